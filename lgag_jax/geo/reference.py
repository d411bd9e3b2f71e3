"""Reference labels of a scene, whatever their form, read by windows onto the scene's grid."""

import contextlib
import dataclasses
import logging
import math
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from lgag_jax.geo import shapes
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery import reading

_LOG = logging.getLogger(__name__)

_TOUCH = 1e-6  # Pixels: what ends on a window's border does not reach into it.


@dataclasses.dataclass(frozen=True)
class Reference:
  """Labels on a scene's grid; windows may reach past its border."""

  kind: str  # "raster", "polygons" or "points".
  read: Callable[[Window], np.ndarray]  # u8[h, w]: 0 background, c class, reading.UNKNOWN.
  # Whether anything of a class lies within so many pixels of a window, or in it, however small.
  near: Callable[[Window, float], bool]


@contextlib.contextmanager
def open_reference(
  path: pathlib.Path, grid: Grid, classes: tuple[str, ...], *, layer: str = "", field: str = "",
  ignore: int = reading.UNKNOWN,
) -> Iterator[Reference]:
  """Opens a raster mask, or polygons or points (.gpkg, .shp, .geojson), as labels of a scene.

  A mask's values mean what `images.read_mask` says, a nodata value other than zero unknown; on
  another grid each pixel takes the nearest, and is unknown outside. A pixel is of a polygon's class
  when its centre lies in it, of a point's when that lies in it, of the last of several. Nothing tells
  how far an inventory reaches: all around its shapes is background. Raises ValueError.
  """
  if path.suffix.lower() in shapes.SUFFIXES:
    found = shapes.read_shapes(path, grid, classes, layer=layer, field=field)
    if not np.any(shapely.intersects(found.geometries, shapely.box(0, 0, grid.width, grid.height))):
      _LOG.warning("%s: none of its %d %s lies in the scene. Do the coordinates fit?",
                   path, len(found.geometries), found.kind)
    yield of_shapes(found)
    return
  with reading.open_raster(path) as raster, _on_grid(raster, grid) as fitting:
    yield _of_raster(fitting, grid, classes=len(classes), ignore=ignore, nodata=raster.nodata)


def of_shapes(found: shapes.Shapes) -> Reference:
  """Returns the labels that shapes in a scene's pixels are, as `open_reference` has it."""
  tree = shapely.STRtree(found.geometries)

  def read(window: Window) -> np.ndarray:
    size = int(window.height), int(window.width)
    hits = np.sort(tree.query(_box(window, 0.0), predicate="intersects"))  # In the layer's order.
    if not len(hits):
      return np.zeros(size, np.uint8)
    pairs = zip(found.geometries[hits], found.classes[hits].tolist(), strict=True)
    place = Affine.translation(window.col_off, window.row_off)
    return rasterize(pairs, out_shape=size, transform=place, dtype=np.uint8)

  def near(window: Window, distance: float) -> bool:
    box = _box(window, _TOUCH)
    return len(tree.query(box, predicate="dwithin", distance=distance)) > 0

  return Reference(found.kind, read, near)


def _box(window: Window, inset: float) -> shapely.Geometry:
  return shapely.box(
    window.col_off + inset, window.row_off + inset,
    window.col_off + window.width - inset, window.row_off + window.height - inset,
  )


@contextlib.contextmanager
def _on_grid(
  raster: rasterio.DatasetReader, grid: Grid
) -> Iterator[rasterio.DatasetReader | WarpedVRT]:
  """Yields the mask itself where it lies on the grid, else a view of it that does, with an alpha band.

  What has no georeference lies on the grid when it has its size.
  """
  mask = Grid.of(raster)
  same_size = (mask.height, mask.width) == (grid.height, grid.width)
  if not (mask.georeferenced and grid.georeferenced):
    reading.check_same_size(raster.name, (mask.height, mask.width), (grid.height, grid.width))
    if mask.georeferenced != grid.georeferenced:
      _LOG.warning("%s: only one of mask and scene is georeferenced; taken pixel by pixel.",
                   raster.name)
    yield raster
    return
  if None in (mask.crs, grid.crs) and mask.crs != grid.crs:
    _LOG.warning("%s: only one of mask and scene has a coordinate reference system; taken to be the "
                 "other's.", raster.name)
  crs = mask.crs or grid.crs
  if same_size and (grid.crs or crs) == crs and _same_transform(mask.transform, grid):
    yield raster
    return
  with WarpedVRT(
    raster, src_crs=crs, crs=grid.crs or crs, transform=grid.transform, height=grid.height,
    width=grid.width, resampling=Resampling.nearest, add_alpha=True,
    src_nodata=None,  # Or a nodata value of zero, which is background, would be outside.
  ) as view:
    yield view


def _same_transform(transform: Affine, grid: Grid) -> bool:
  """Whether two transforms agree at the grid's corners to a hundredth of a pixel."""
  corners = [(0, 0), (grid.width, 0), (0, grid.height)]
  apart = ~grid.transform @ transform
  return all(math.dist(apart @ corner, corner) < 0.01 for corner in corners)


def _of_raster(raster, grid: Grid, *, classes: int, ignore: int, nodata: float | None) -> Reference:
  def read(window: Window) -> np.ndarray:
    values = np.full((int(window.height), int(window.width)), reading.UNKNOWN, np.uint8)
    top, left = max(int(window.row_off), 0), max(int(window.col_off), 0)
    bottom = min(int(window.row_off + window.height), grid.height)
    right = min(int(window.col_off + window.width), grid.width)
    if top >= bottom or left >= right:
      return values
    inside = Window(left, top, right - left, bottom - top)
    rows = slice(top - int(window.row_off), bottom - int(window.row_off))
    cols = slice(left - int(window.col_off), right - int(window.col_off))
    values[rows, cols] = reading.read_mask(raster, classes=classes, ignore=ignore, window=inside)
    if nodata:
      values[rows, cols][raster.read(1, window=inside) == nodata] = reading.UNKNOWN
    if isinstance(raster, WarpedVRT):
      values[rows, cols][raster.read(raster.count, window=inside) == 0] = reading.UNKNOWN
    return values

  def near(window: Window, distance: float) -> bool:
    reach = math.ceil(distance)
    values = read(Window(
      window.col_off - reach, window.row_off - reach,
      window.width + 2 * reach, window.height + 2 * reach,
    ))
    at = np.nonzero((values > 0) & (values != reading.UNKNOWN))
    rows, cols = (
      np.maximum(np.maximum(reach - pixels - 1, pixels - reach - length) + _TOUCH, 0.0)
      for pixels, length in zip(at, (window.height, window.width), strict=True)
    )
    return bool(np.any(np.hypot(rows, cols) <= distance))

  return Reference("raster", read, near)

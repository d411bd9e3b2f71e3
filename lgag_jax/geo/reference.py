"""Reference labels from a raster, polygons or points, read in windows on a scene's grid."""

import contextlib
import dataclasses
import logging
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import shapely
from affine import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from lgag_jax.geo import antimeridian, crs_relation, label_reach, layer_files, layer_formats, shapes
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.placement import grid_of, unplaced_warning
from lgag_jax.geo.shape_index import INSET, ShapeIndex
from lgag_jax.geo.warped_views import check_view
from lgag_jax.imagery import mask_values, opening, own_rasters, reading, side_files
from lgag_jax.imagery.mask_values import MaskRule
from lgag_jax.imagery.orientation import Raster

_LOG = logging.getLogger(__name__)

_WARP_REMEDY = "Restore it, or save it on the scene's grid with gdalwarp."


@dataclasses.dataclass(frozen=True)
class Reference:
  """Labels on a scene's grid; windows may extend past its border."""

  kind: str  # "raster", "polygons" or "points".
  read: Callable[[Window], np.ndarray]  # u8[h, w]: 0 background, k class k, or UNKNOWN.
  # Returns whether any class, however small, lies in a window or within so many pixels of it.
  near: Callable[[Window, float], bool]
  inside: bool = True  # Whether any of it lies in the scene, as far as its place is known.


@contextlib.contextmanager
def open_reference(
  path: pathlib.Path, grid: Grid, classes: tuple[str, ...], *, layer: str = "", field: str = "",
  ignore: int = mask_values.BY_VALUES, masks: Sequence[pathlib.Path] = (),
  scene: pathlib.Path | str = "the scene", background: str = "", may_be_empty: bool = False,
) -> Iterator[Reference]:
  """Opens a raster mask, or polygons or points (.gpkg, .shp, .geojson), as labels of a scene.

  `mask_values.decide` chooses the meaning of a mask's values, together with the other `masks` that
  belong to it; a nodata value other than zero is UNKNOWN. A mask on another grid gives each pixel its
  nearest value, and UNKNOWN outside. A pixel has a polygon's class if the polygon contains its centre,
  and a point's class if the pixel contains the point. The last of several wins. An inventory does not
  say which area it covers, so all other pixels are background. A layer without any feature is an error,
  unless it `may_be_empty`. `scene` is named in messages. Raises ValueError.
  """
  check_format(path)
  if path.suffix.lower() in layer_formats.SUFFIXES:
    if warning := unplaced_warning(grid):  # All of the scene would count as background.
      raise ValueError(f"{path} cannot label the scene: {warning}")
    if may_be_empty and layer_files.is_empty(path, layer):
      _LOG.info("%s holds no feature: its scene counts as free of landslides.", path)
      nothing = shapes.Shapes("polygons", np.empty(0, object), np.empty(0, np.uint8))
      yield dataclasses.replace(reference_from_shapes(nothing), inside=False)
      return
    layer_shapes = shapes.read_shapes(
      path, grid, classes, layer=layer, field=field, scene=scene, background=background)
    scene_box = shapely.box(0, 0, grid.width, grid.height)
    inside = bool(np.any(shapely.intersects(layer_shapes.geometries, scene_box)))
    if not inside:
      _LOG.warning("%s: none of its %d %s lies in the scene. Check its coordinates.",
                   path, len(layer_shapes.geometries), layer_shapes.kind)
    if hidden := _without_a_pixel(layer_shapes, grid):
      _LOG.warning("%s: %d of its polygons in the scene are too narrow to cover the centre of a pixel: "
                   "they count as no landslide.", path, hidden)
    yield dataclasses.replace(reference_from_shapes(layer_shapes), inside=inside)
    return
  if not any(mask.suffix.lower() in layer_formats.SUFFIXES for mask in masks):
    layer_formats.refuse_layer_flags(path, "a raster mask", layer=layer, field=field)
  with contextlib.ExitStack() as stack:
    raster = stack.enter_context(reading.open_raster(path))
    opening.check_extent(raster, path)
    own_rasters.refuse_other_than_masks(path, raster)
    own_rasters.refuse_probabilities(path, raster, classes)
    views = stack.enter_context(_on_grid(raster, path, grid, scene))  # Before all of it is read.
    rule = mask_values.decide(
      [path, *(mask for mask in masks if mask.suffix.lower() not in layer_formats.SUFFIXES)],
      classes=len(classes), ignore=ignore, option="--mask_ignore",
    )
    nodata = reading.mask_nodata(raster)
    reference = _reference_from_raster(views, grid, rule, classes=len(classes), nodata=nodata)
    yield dataclasses.replace(reference, inside=label_reach.overlaps(grid_of(raster, path), grid))


def _without_a_pixel(labels: shapes.Shapes, grid: Grid) -> int:
  """Counts polygons in a scene whose bounds hold no pixel's centre."""
  if labels.kind != "polygons":
    return 0
  left, top, right, bottom = shapely.bounds(labels.geometries).T
  inside = (right > 0) & (left < grid.width) & (bottom > 0) & (top < grid.height)
  no_column = np.ceil(left - 0.5) > np.floor(right - 0.5)
  no_row = np.ceil(top - 0.5) > np.floor(bottom - 0.5)
  return int(np.count_nonzero(inside & (no_column | no_row)))


def check_format(path: pathlib.Path) -> None:
  """Raises ValueError if a file is neither a layer nor a raster by suffix and first bytes."""
  layer_formats.check(path)
  if path.suffix.lower() in (*layer_formats.SUFFIXES, *opening.SUFFIXES) or not path.is_file():
    return
  try:
    with reading.open_raster(path):
      pass
  except reading.ImageError as error:
    raise ValueError(f"{error} If it is a layer of landslides: {layer_formats.remedy(path)}") from error


def reference_from_shapes(labels: shapes.Shapes) -> Reference:
  """Returns the labels that shapes in a scene's pixels give, as `open_reference` explains."""
  index = ShapeIndex(labels.geometries, labels.classes)
  return Reference(labels.kind, index.read, index.near)


@contextlib.contextmanager
def _on_grid(
  raster: Raster, path: pathlib.Path, grid: Grid, scene: pathlib.Path | str
) -> Iterator[list[Raster | WarpedVRT]]:
  """Yields a mask's raster if it lies on the grid, otherwise warped views of it with an alpha band.

  There are several views if the mask reaches the scene from both sides of the 180th meridian. If mask
  or scene has no georeference, the mask lies on the grid if it has the grid's size.
  """
  mask = grid_of(raster, path)
  same_size = (mask.height, mask.width) == (grid.height, grid.width)
  if not (mask.georeferenced and grid.georeferenced):
    reading.check_same_size(path, (mask.height, mask.width), (grid.height, grid.width))
    if mask.georeferenced != grid.georeferenced:
      _LOG.warning("%s: only one of mask and scene is georeferenced; matching them pixel by pixel.",
                   path)
    yield [raster]
    return
  if None in (mask.crs, grid.crs) and mask.crs != grid.crs:
    _LOG.warning("%s: only one of mask and scene has a coordinate reference system; using it for both.",
                 path)
  crs, target = mask.crs or grid.crs, grid.crs or mask.crs
  if crs and target:
    if crs_relation.same(crs, target):
      crs = target
    elif crs_relation.transformer(crs, target) is None:
      raise crs_relation.unrelated_error(path, crs, scene, target)
  if same_size and crs == target and _same_transform(mask.transform, grid):
    yield [raster]
    return
  if beside := side_files.beside(path, ".msk"):
    raise ValueError(
      f"{beside} is a mask of {path}, which lies on another grid than the scene. Save the labels on "
      f"the scene's grid (gdalwarp -dstnodata 255), and remove {beside.name}."
    )
  transforms = antimeridian.mask_transforms(
    dataclasses.replace(mask, crs=crs), dataclasses.replace(grid, crs=target)
  )
  check_view(path, raster, mask=dataclasses.replace(mask, crs=crs), grid=grid)
  with contextlib.ExitStack() as stack:
    with opening.error_context(path, _WARP_REMEDY):
      views = [
        stack.enter_context(WarpedVRT(
          raster, src_crs=crs, src_transform=transform, crs=target,
          transform=grid.transform, height=grid.height, width=grid.width,
          resampling=Resampling.nearest, add_alpha=ColorInterp.alpha not in raster.colorinterp,
          src_nodata=None,  # Otherwise a nodata value of zero, background, would count as outside.
        )) for transform in transforms
      ]
    yield views


def _same_transform(transform: Affine, grid: Grid) -> bool:
  """Returns whether two transforms agree at the grid's corners to within 0.01 pixels."""
  corners = [(0, 0), (grid.width, 0), (0, grid.height)]
  difference = ~grid.transform @ transform
  return all(math.dist(difference @ corner, corner) < 0.01 for corner in corners)


def _reference_from_raster(
  views, grid: Grid, rule: MaskRule, *, classes: int, nodata: list[float]
) -> Reference:
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
    for view in views:  # The first that knows a pixel decides.
      part = reading.read_mask(
        view, classes=classes, ignore=rule.ignore, threshold=rule.threshold, window=inside
      )
      for value in nodata:  # A warped view does not state it.
        part[view.read(1, window=inside) == value] = reading.UNKNOWN
      if isinstance(view, WarpedVRT):
        alpha = view.colorinterp.index(ColorInterp.alpha) + 1
        part[view.read(alpha, window=inside) == 0] = reading.UNKNOWN
      values[rows, cols] = np.where(values[rows, cols] == reading.UNKNOWN, part, values[rows, cols])
    return values

  def near(window: Window, distance: float) -> bool:
    margin = math.ceil(distance)
    values = read(Window(
      window.col_off - margin, window.row_off - margin,
      window.width + 2 * margin, window.height + 2 * margin,
    ))
    class_pixels = np.nonzero((values > 0) & (values != reading.UNKNOWN))
    row_gaps, col_gaps = (
      np.maximum(np.maximum(margin - pixels - 1, pixels - margin - length) + INSET, 0.0)
      for pixels, length in zip(class_pixels, (window.height, window.width), strict=True)
    )
    return bool(np.any(np.hypot(row_gaps, col_gaps) <= distance))

  return Reference("raster", read, near)

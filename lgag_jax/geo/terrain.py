"""Measures the terrain under polygons from a DEM of any grid, resolution and coordinate system.

A DEM is opened as a scene is. It is read in blocks around each polygon, so memory does not depend on
its size. Slopes are those of Horn (1981), as in GDAL's gdaldem, but in metres on the ellipsoid.
"""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import rasterio.features
import scipy.ndimage
import shapely
from affine import Affine
from pyproj import CRS, Transformer
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from lgag_jax.geo import antimeridian, crs_relation
from lgag_jax.geo.grid import GEOD, Grid
from lgag_jax.geo.scene import Scene, open_scene
from lgag_jax.geo.terrain_sums import Sums, Terrain
from lgag_jax.geo.vrt import open_scene_raster
from lgag_jax.imagery import side_files
from lgag_jax.imagery.opening import ImageError

_BLOCK = 512  # Pixels of the DEM on a side that are in memory.
_FINER = 16  # Pixels of the DEM along one of a scene. Of finer DEMs, several become one.
_NODES = 5  # On a side of a block, where the size of a pixel on the ground is computed.
_METRE_NAMES = ("", "m", "metre", "meter", "metres", "meters")
_HEIGHTS = (-11_000.0, 9_000.0)  # Metres. Other values mean missing where a file declares no nodata.
_VOID = -9999.0  # So does this one.


class Dem:
  """An open DEM; `open_dem` creates it."""

  def __init__(self, scene: Scene, to_wgs84: Transformer):
    self._scene, self.grid, self._to_wgs84 = scene, scene.grid, to_wgs84

  def measure(self, outlines: np.ndarray, grid: Grid) -> list[Terrain]:
    """Returns the terrain under polygons that are given in the pixels of another grid.

    Uses the DEM's pixels whose centres lie in a polygon, or those that it touches if there are none.
    If the DEM is at least 32 times finer than the other grid, pixels are means of several.
    Raises ImageError naming a DEM that is damaged.
    """
    copies: list[list[shapely.Polygon]] = [[] for _ in outlines]
    shapes, owners = self._in_own_pixels(outlines, grid)
    bounds = shapely.bounds(shapes)
    inside = np.all((bounds[:, 2:] > 0) & (bounds[:, :2] < (self.grid.width, self.grid.height)), axis=1)
    for number in np.flatnonzero(inside):
      copies[owners[number]].append(shapes[number])
    terrains = [
      self._under(shapes, _reduction(shapes, outline)) if shapes else Terrain()
      for shapes, outline in zip(copies, outlines, strict=True)
    ]
    return self._placed(terrains, outlines, grid)

  def _placed(self, terrains: list[Terrain], outlines: np.ndarray, grid: Grid) -> list[Terrain]:
    """Returns terrains with the places of their lowest and highest pixels, in coordinates of `grid`."""
    numbers = [number for number, under in enumerate(terrains) if under.lowest is not None]
    if not numbers:
      return terrains
    assert grid.crs is not None and self.grid.crs is not None
    transformer = crs_relation.transformer(self.grid.crs, grid.crs)
    assert transformer is not None  # There is one the other way.
    pixels = [pixel for n in numbers for pixel in (terrains[n].lowest_pixel, terrains[n].highest_pixel)]
    centres: Any = tuple(np.array(pixels).T + 0.5)
    x, y = transformer.transform(*(self.grid.transform @ centres))
    if width := antimeridian.period(grid):  # The DEM may count longitudes from elsewhere.
      inside: Any = tuple(shapely.get_coordinates(shapely.centroid(outlines[numbers])).T)
      middle = np.repeat(np.asarray((grid.transform @ inside)[0]), 2)
      x = x + width * np.round((middle - x) / width)
    placed = list(terrains)
    for n, (lowest, highest) in zip(numbers, np.stack([x, y], axis=1).reshape(-1, 2, 2), strict=True):
      if np.isfinite([lowest, highest]).all():
        placed[n] = dataclasses.replace(
          terrains[n], lowest_place=tuple(lowest.tolist()), highest_place=tuple(highest.tolist())
        )
    return placed

  def _in_own_pixels(self, outlines: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Returns polygons in the DEM's pixels, moved around the Earth to it, and their numbers."""
    points, owners = shapely.get_coordinates(outlines, return_index=True)
    x, y = (np.asarray(values) for values in grid.transform @ tuple(points.T))
    assert self.grid.crs is not None
    transformer = crs_relation.transformer(grid.crs, self.grid.crs) if grid.crs else None
    if transformer is None:
      return np.zeros(0, object), np.zeros(0, int)
    x, y = transformer.transform(x, y)
    lost = np.bincount(owners[~(np.isfinite(x) & np.isfinite(y))], minlength=len(outlines)) > 0
    known, located = np.flatnonzero(~lost), ~lost[owners]
    numbers = np.searchsorted(known, owners[located])
    x: Any = antimeridian.unwrapped(x[located], numbers, antimeridian.period(self.grid))
    pixels = np.stack(~self.grid.transform @ (x, y[located]), axis=1)
    shapes = shapely.set_coordinates(outlines[known].copy(), pixels)
    shapes, index = antimeridian.copies_in_scene(shapes, self.grid)
    return shapes, known[index]

  def _under(self, copies: Sequence[shapely.Polygon], reduction: int) -> Terrain:
    """Returns the terrain under copies of a polygon; `reduction` pixels on a side become one."""
    terrain = Terrain()
    copies = [shapely.transform(shape, lambda points: points / reduction) for shape in copies]
    for all_touched in (False, True):
      sums = Sums()
      for shape in copies:
        geometry = shapely.geometry.mapping(shape)
        for window in _windows(shape, max(1, _BLOCK // reduction)):
          inside = rasterio.features.geometry_mask(
            [geometry], (window.height, window.width), invert=True, all_touched=all_touched,
            transform=Affine.translation(window.col_off, window.row_off),
          )
          if inside.any():
            rows, cols = np.nonzero(inside)
            pixels = np.stack([cols + window.col_off, rows + window.row_off], axis=1)
            pixels = pixels * reduction + (reduction - 1) // 2
            heights, east, north = (values[inside] for values in self._ground(window, reduction))
            sums.add(heights, east, north, pixels)
      terrain = sums.terrain()
      if sums.pixels:  # A polygon smaller than a pixel may cover no centre.
        break
    return terrain

  def _ground(
    self, window: Window, reduction: int
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns heights, and their gradients to the east and to the north, f64[h, w]; NaN if missing.

    The window is in pixels after the reduction.
    """
    heights = self._heights(window, reduction)
    # Sobel's weights are Horn's; where a neighbour is NaN, so is the result.
    down, across = (scipy.ndimage.sobel(heights, axis)[1:-1, 1:-1] / 8 for axis in (0, 1))
    to_east, to_north = (factor / reduction for factor in self._inverse_metric(window, reduction))
    east = to_east[0] * across + to_east[1] * down
    return heights[1:-1, 1:-1], east, to_north[0] * across + to_north[1] * down

  def _heights(self, window: Window, reduction: int) -> np.ndarray:
    """Returns the mean known heights of a window and a pixel around it, f64[h + 2, w + 2]."""
    values, valid = self._scene.read(Window(*(
      reduction * length for length in (
        window.col_off - 1, window.row_off - 1, window.width + 2, window.height + 2)
    )))
    heights = values[..., 0].astype(np.float64)
    valid &= (heights >= _HEIGHTS[0]) & (heights <= _HEIGHTS[1]) & (heights != _VOID)
    if reduction == 1:
      return np.where(valid, heights, np.nan)
    blocks = window.height + 2, reduction, window.width + 2, reduction
    sums, known = (
      part.reshape(blocks).sum((1, 3)) for part in (np.where(valid, heights, 0.0), valid))
    return np.where(known > 0, sums / np.maximum(known, 1), np.nan)

  def _inverse_metric(self, window: Window, reduction: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns what turns gradients per column and row into gradients per metre east, and north.

    Each is f64[2, h, w]. It is computed from the ground's size of pixels at some nodes of the window,
    and interpolated between them.
    """
    cols = reduction * (window.col_off + np.linspace(0, window.width, _NODES))
    rows = reduction * (window.row_off + np.linspace(0, window.height, _NODES))
    col, row = (axis.ravel() for axis in np.meshgrid(cols, rows))
    ends: Any = np.concatenate([col - 0.5, col + 0.5, col, col]), np.concatenate(
      [row, row, row - 0.5, row + 0.5])
    places = self._to_wgs84.transform(*(self.grid.transform @ ends))
    lon, lat = (np.reshape(values, (4, -1)) for values in places)
    with np.errstate(all="ignore"):  # Outside the projection all is infinite or NaN.
      lon_steps = np.radians((np.stack([lon[1] - lon[0], lon[3] - lon[2]]) + 180) % 360 - 180)
      lat_steps = np.radians(np.stack([lat[1] - lat[0], lat[3] - lat[2]]))
      latitude = np.radians(lat.mean(axis=0))
      flattened = 1 - GEOD.es * np.sin(latitude) ** 2
      east = lon_steps * np.cos(latitude) * GEOD.a / np.sqrt(flattened)  # Per column, and per row.
      north = lat_steps * GEOD.a * (1 - GEOD.es) / flattened**1.5
      area = east[0] * north[1] - east[1] * north[0]
      nodes = np.stack([north[1], -north[0], -east[1], east[0]]) / area
    nodes = nodes.reshape(4, _NODES, _NODES)
    inverse = _weights(window.height) @ nodes @ _weights(window.width).T
    return inverse[:2], inverse[2:]


@contextlib.contextmanager
def open_dem(path: pathlib.Path) -> Iterator[Dem]:
  """Opens a DEM; raises ImageError naming a file that is not one, and the remedy."""
  if not path.is_file():
    raise ImageError(
      f"--dem={path}: no such file. Of several tiles make one mosaic first: gdalbuildvrt dem.vrt "
      "tiles/*.tif"
    )
  with open_scene_raster(path) as raster:
    kinds = [kind for kind in raster.colorinterp if kind != ColorInterp.alpha]
    beside = "" if raster.driver == "VRT" else side_files.read_notes(path).unit
    unit = (beside or raster.units[0] or "").strip().lower()
  if len(kinds) != 1 or ColorInterp.palette in kinds:
    what = f"{len(kinds)} bands" if len(kinds) != 1 else "a palette of colours"
    raise ImageError(
      f"--dem={path} has {what}, but a DEM has one band of heights in metres. If band 1 holds them: "
      "gdal_translate -b 1 in.tif dem.tif"
    )
  with open_scene(path, 1, bands=(1,)) as scene:
    if (to_wgs84 := scene.grid.to_wgs84()) is None:
      system = crs_relation.full_name(scene.grid.crs) if scene.grid.crs else "none"
      raise ImageError(
        f"--dem={path} has no place on the Earth (CRS: {system}). Give it its true CRS, such as "
        "gdal_edit.py -a_srs EPSG:32633."
      )
    if unit not in _METRE_NAMES or _vertical_unit(scene.grid) != 1:
      raise ImageError(
        f"--dem={path} gives heights in {unit or 'a unit of its CRS'}, but they must be in metres. For "
        "feet: gdal_calc.py -A in.tif --calc='A*0.3048' --type=Float32 --outfile=dem.tif, then "
        "gdal_edit.py -units m -a_srs with a CRS without heights."
      )
    yield Dem(scene, to_wgs84)


def _vertical_unit(grid: Grid) -> float:
  """Returns the metres of the unit of heights in a compound CRS, 1 for any other."""
  assert grid.crs is not None
  for part in CRS.from_wkt(grid.crs.to_wkt()).sub_crs_list:
    if part.is_vertical:
      return part.axis_info[0].unit_conversion_factor
  return 1.0


def _reduction(shapes: Sequence[shapely.Polygon], outline: shapely.Polygon) -> int:
  """Returns how many pixels on a side become one, from a polygon in pixels of a DEM and a scene."""
  finer = max(shapely.area(shapes)) / max(outline.area, 1e-9)
  return max(1, math.floor(math.sqrt(finer) / _FINER))


def _windows(shape: shapely.Polygon, side: int) -> Iterator[Window]:
  """Yields the blocks of pixels, of up to `side` on a side, that cover a polygon."""
  left, top, right, bottom = shape.bounds
  first_col, first_row = int(np.floor(left)), int(np.floor(top))
  stop_col, stop_row = int(np.ceil(right)), int(np.ceil(bottom))
  for row in range(first_row, stop_row, side):
    for col in range(first_col, stop_col, side):
      yield Window(col, row, min(side, stop_col - col), min(side, stop_row - row))


def _weights(length: int) -> np.ndarray:
  """Returns the weights f64[length, _NODES] that interpolate nodes linearly at centres of pixels."""
  places = (np.arange(length) + 0.5) / length * (_NODES - 1)
  return np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(_NODES)))

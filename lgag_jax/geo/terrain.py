"""Measures the terrain under polygons from a DEM of any grid, resolution and coordinate system.

The DEM is read in blocks around each polygon, so memory does not depend on its size.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from rasterio.windows import Window

from lgag_jax.geo import antimeridian, crs_relation
from lgag_jax.geo.dem import Dem
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.terrain_sums import Sums, Terrain

_BLOCK = 512  # Pixels of the DEM on a side that are in memory.
_FINER = 16  # Pixels of the DEM along one of a scene. Of finer DEMs, several become one.


def measure(dem: Dem, outlines: np.ndarray, grid: Grid) -> list[Terrain]:
  """Returns the terrain under polygons that are given in the pixels of another grid.

  Uses the DEM's pixels whose centres lie in a polygon, or those that it touches if there are none.
  If the DEM is at least 32 times finer than the other grid, pixels are means of several.
  Raises ImageError naming a DEM that is damaged.
  """
  copies: list[list[shapely.Polygon]] = [[] for _ in outlines]
  shapes, owners = _in_own_pixels(dem, outlines, grid)
  bounds = shapely.bounds(shapes)
  inside = np.all((bounds[:, 2:] > 0) & (bounds[:, :2] < (dem.grid.width, dem.grid.height)), axis=1)
  for number in np.flatnonzero(inside):
    copies[owners[number]].append(shapes[number])
  terrains = [
    _under(dem, shapes, _reduction(shapes, outline)) if shapes else Terrain()
    for shapes, outline in zip(copies, outlines, strict=True)
  ]
  return _placed(dem, terrains, outlines, grid)


def _placed(
  dem: Dem, terrains: list[Terrain], outlines: np.ndarray, grid: Grid
) -> list[Terrain]:
  """Returns terrains with the places of their lowest and highest pixels, in coordinates of `grid`."""
  numbers = [number for number, under in enumerate(terrains) if under.lowest is not None]
  if not numbers:
    return terrains
  assert grid.crs is not None and dem.grid.crs is not None
  transformer = crs_relation.transformer(dem.grid.crs, grid.crs)
  assert transformer is not None  # There is one the other way.
  pixels = [pixel for n in numbers for pixel in (terrains[n].lowest_pixel, terrains[n].highest_pixel)]
  centres: Any = tuple(np.array(pixels).T + 0.5)
  x, y = transformer.transform(*(dem.grid.transform @ centres))
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


def _in_own_pixels(
  dem: Dem, outlines: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
  """Returns polygons in the DEM's pixels, moved around the Earth to it, and their numbers."""
  points, owners = shapely.get_coordinates(outlines, return_index=True)
  x, y = (np.asarray(values) for values in grid.transform @ tuple(points.T))
  assert dem.grid.crs is not None
  transformer = crs_relation.transformer(grid.crs, dem.grid.crs) if grid.crs else None
  if transformer is None:
    return np.zeros(0, object), np.zeros(0, int)
  x, y = transformer.transform(x, y)
  lost = np.bincount(owners[~(np.isfinite(x) & np.isfinite(y))], minlength=len(outlines)) > 0
  known, located = np.flatnonzero(~lost), ~lost[owners]
  numbers = np.searchsorted(known, owners[located])
  x: Any = antimeridian.unwrapped(x[located], numbers, antimeridian.period(dem.grid))
  pixels = np.stack(~dem.grid.transform @ (x, y[located]), axis=1)
  shapes = shapely.set_coordinates(outlines[known].copy(), pixels)
  shapes, index = antimeridian.copies_in_scene(shapes, dem.grid)
  return shapes, known[index]


def _under(dem: Dem, copies: Sequence[shapely.Polygon], reduction: int) -> Terrain:
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
          heights, east, north = (values[inside] for values in dem.gradients(window, reduction))
          sums.add(heights, east, north, pixels)
    terrain = sums.terrain()
    if sums.pixels:  # A polygon smaller than a pixel may cover no centre.
      break
  return terrain


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

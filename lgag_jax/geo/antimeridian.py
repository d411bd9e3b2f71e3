"""Deals with the 180th meridian: 181 and -179 degrees are the same place.

Shapes and masks are moved around the Earth to the longitudes that a scene uses, and polygons in
longitude and latitude are cut where RFC 7946 asks for it.
"""

import math
from typing import Any

import numpy as np
import shapely
from affine import Affine
from shapely import GeometryType

from lgag_jax.geo import crs_relation
from lgag_jax.geo.grid import Grid

# Web Mercator, World Mercator and equirectangular: x goes around the equator, in metres.
_AROUND_THE_EQUATOR = (3857, 3395, 4087)
_EQUATOR = 2 * math.pi * 6378137.0
_SAMPLES = 17  # Along each side of a scene.
_TURNS = (0, -1, 1)


def period(grid: Grid) -> float:
  """Returns the width of the Earth along x if coordinates repeat after it, otherwise 0.

  They do not if a raster's coordinates cannot be of its CRS, such as metres that are called degrees.
  """
  if grid.crs is None:
    return 0.0
  width = _EQUATOR if grid.crs.to_epsg() in _AROUND_THE_EQUATOR else 0.0
  if grid.crs.is_geographic:
    width = 2 * math.pi / grid.crs.units_factor[1]
  return width if np.max(np.abs(_sample(grid)[0])) <= 2 * width else 0.0


def same_places(x: float, grid: Grid) -> list[float]:
  """Returns the coordinates along x of one place, its own first."""
  width = period(grid)
  return [x + turn * width for turn in _TURNS] if width else [x]


def unwrapped(x: np.ndarray, owners: np.ndarray, width: float) -> np.ndarray:
  """Returns the x of shapes without a jump at the 180th meridian.

  A shape that is wider than half the Earth has such a jump. `owners` are the shapes of the points, from
  0; `width` is what `period` returns.
  """
  if not width or not len(x):
    return x
  low, high = np.full(owners.max() + 1, np.inf), np.full(owners.max() + 1, -np.inf)
  np.minimum.at(low, owners, x)
  np.maximum.at(high, owners, x)
  wide = (high - low > width / 2)[owners]
  middle = (low + high)[owners] / 2
  return np.where(wide & (x < middle), x + width, x)


def copies_in_scene(shapes: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
  """Returns shapes in pixels, moved around the Earth into the scene, and i64[n], each one's origin.

  A shape that reaches the scene several times is returned several times, one that never does where it
  is nearest to the scene.
  """
  width = period(grid)
  if not width:
    return shapes, np.arange(len(shapes))
  inverse = ~grid.transform
  step = np.array([inverse.a, inverse.d]) * width  # In pixels.
  bounds, centre = shapely.bounds(shapes), np.array([grid.width, grid.height]) / 2
  inside, distances = {}, []
  for turn in _TURNS:
    low, high = bounds[:, :2] + turn * step, bounds[:, 2:] + turn * step
    inside[turn] = np.all((high >= 0) & (low <= 2 * centre), axis=1)
    distances.append(np.linalg.norm((low + high) / 2 - centre, axis=1))
  nearest = np.argmin(distances, axis=0)
  for number, turn in enumerate(_TURNS):
    inside[turn] |= nearest == number
  copies = [
    shapely.transform(shapes[mask], lambda points, turn=turn: points + turn * step)
    for turn, mask in inside.items()
  ]
  index = np.concatenate([np.flatnonzero(mask) for mask in inside.values()])
  order = np.argsort(index, kind="stable")  # The last of several shapes wins, as in the layer.
  return np.concatenate(copies)[order], index[order]


def mask_transforms(mask: Grid, grid: Grid) -> list[Affine]:
  """Returns the transforms of a mask, moved around the Earth, with which it reaches the scene.

  It is the mask's own transform if none does. Systems are known and related.
  """
  width = period(mask)
  if not width or grid.crs is None or mask.crs is None:
    return [mask.transform]
  x, y = _sample(grid)
  # Between systems, GDAL computes x from -180 to 180 degrees, so the scene may lie at both ends.
  if not crs_relation.same(grid.crs, mask.crs):
    transformer = crs_relation.transformer(grid.crs, mask.crs)
    x = transformer.transform(x, y)[0] if transformer else x
    x = x[np.isfinite(x)]
  corners = [mask.transform @ corner for corner in (
    (0, 0), (mask.width, 0), (0, mask.height), (mask.width, mask.height))]
  left, right = min(corner[0] for corner in corners), max(corner[0] for corner in corners)
  turns = [
    turn for turn in _TURNS
    if len(x) and left + turn * width < x.max() and right + turn * width > x.min()
  ]
  return [Affine.translation(turn * width, 0) @ mask.transform for turn in turns or (0,)]


def _sample(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
  """Returns coordinates of points all over a grid."""
  cols, rows = np.meshgrid(np.linspace(0, grid.width, _SAMPLES), np.linspace(0, grid.height, _SAMPLES))
  points: Any = cols.ravel(), rows.ravel()
  return grid.transform @ points


def cut(polygons: np.ndarray, precision: float) -> np.ndarray:
  """Cuts polygons in longitude and latitude into parts between -180 and 180 degrees.

  Coordinates become multiples of `precision`, in degrees. The parts stay valid, but those that are
  narrower than it vanish, unless nothing else is left of the polygon.
  """
  points, owners = shapely.get_coordinates(polygons, return_index=True)
  x = unwrapped(points[:, 0], owners, 360.0)
  polygons = shapely.set_coordinates(polygons.copy(), np.stack([x, points[:, 1]], axis=1))
  left, _, right, _ = shapely.bounds(polygons).T
  first, last = np.floor((left + 180) / 360), np.ceil((right + 180) / 360) - 1
  shifted = np.stack([x - 360 * first[owners], points[:, 1]], axis=1)
  polygons = shapely.set_coordinates(polygons, shifted)
  snapped = shapely.set_precision(polygons, precision)
  for i in np.flatnonzero((last > first) | (shapely.get_type_id(snapped) != GeometryType.POLYGON)
                          | shapely.is_empty(snapped)):
    snapped[i] = _parts(polygons[i], range(max(1, int(last[i] - first[i]) + 1)), precision)
  return snapped


def _parts(polygon: shapely.Polygon, turns: range, precision: float) -> shapely.Geometry:
  """Returns the part of a polygon, which begins between -180 and 180 degrees, in each turn."""
  exact, snapped = [], []
  for turn in turns:
    part = polygon
    if len(turns) > 1:
      edges = shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
      part = shapely.make_valid(polygon).intersection(edges)
    part = shapely.transform(part, lambda points, turn=turn: points - [360.0 * turn, 0.0])
    exact += _polygons_in(part)
    snapped += _polygons_in(shapely.set_precision(part, precision))
  parts = snapped or exact
  return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _polygons_in(geometry: shapely.Geometry) -> list[shapely.Polygon]:
  return [part for part in shapely.get_parts(shapely.get_parts(geometry)) if part.area > 0]

"""Deals with the 180th meridian: 181 and -179 degrees are the same place.

Shapes and masks are moved around the Earth to the longitudes that a scene uses, and polygons in
longitude and latitude are cut where RFC 7946 asks for it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import shapely
from affine import Affine
from rasterio.windows import Window
from shapely import GeometryType

from lgag_jax.geo import crs_relation, world_width
from lgag_jax.geo.grid import Grid

_SAMPLES = 17  # Along each side of a scene.
_TURNS = (0, -1, 1)
_LONG_EDGE = 5.0  # Degrees.


def period(grid: Grid) -> float:
  """Returns the width of the Earth along x if coordinates repeat after it, otherwise 0.

  They do not if a raster's coordinates cannot be of its CRS, such as metres that are called degrees.
  """
  if grid.crs is None:
    return 0.0
  width = world_width.of_system(grid.crs.to_wkt())
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


def turned(grid: Grid) -> list[Affine]:
  """Returns a grid's transform, also moved once around the Earth in both directions if x repeats."""
  width = period(grid)
  turns = _TURNS if width else (0,)
  return [Affine.translation(turn * width, 0) @ grid.transform for turn in turns]


def in_first_turn(grid: Grid, window: Window) -> list[Affine]:
  """Returns a grid's transforms with which a window of it lies between -180 and 180 degrees, in part.

  Between systems, GDAL computes such longitudes.
  """
  width = period(grid)
  if not width:
    return [grid.transform]
  left, top, right, bottom = (
    window.col_off, window.row_off, window.col_off + window.width, window.row_off + window.height
  )
  found = []
  for transform in turned(grid):
    x = [(transform @ (col, row))[0] for col in (left, right) for row in (top, bottom)]
    if min(x) < width / 2 and max(x) > -width / 2:
      found.append(transform)
  return found


def _sample(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
  """Returns coordinates of points all over a grid."""
  cols, rows = np.meshgrid(np.linspace(0, grid.width, _SAMPLES), np.linspace(0, grid.height, _SAMPLES))
  points: Any = cols.ravel(), rows.ravel()
  return grid.transform @ points


def needs_more_points(polygons: np.ndarray) -> np.ndarray:
  """Returns bool [n], which polygons in longitude and latitude have edges of many degrees.

  Near a pole, an edge that is straight in the scene's coordinates is not straight in these.
  """
  steps, owners = _steps(polygons)
  found = np.zeros(len(polygons), bool)
  found[owners[np.abs((steps + 180.0) % 360.0 - 180.0) > _LONG_EDGE]] = True
  return found


def cut(
  polygons: np.ndarray, precision: float, repair: Callable = shapely.make_valid
) -> np.ndarray:
  """Cuts polygons in longitude and latitude into parts between -180 and 180 degrees.

  A polygon around a pole reaches up to the pole's latitude on all longitudes. Coordinates become
  multiples of `precision`, in degrees. The parts stay valid, but those that are narrower than it
  vanish, unless nothing else is left of the polygon. `repair` makes invalid polygons valid.
  """
  steps, owners = _steps(polygons)
  left, _, right, _ = shapely.bounds(polygons).T
  whole = (left >= -180.0) & (right <= 180.0)
  whole[owners[np.abs(steps) > 180.0]] = False  # A jump across the meridian.
  snapped = polygons.copy()
  snapped[whole] = shapely.set_precision(polygons[whole], precision)
  broken = (shapely.get_type_id(snapped) != GeometryType.POLYGON) | shapely.is_empty(snapped)
  for i in np.flatnonzero(~whole | broken):
    snapped[i] = _parts(polygons[i], precision, repair)
  return snapped


def jumps(polygons: np.ndarray) -> np.ndarray:
  """Returns bool [n], which polygons in longitude and latitude have an edge of over 180 degrees.

  An edge from -180 to 180, as of an outline of the whole Earth, does not count.
  """
  steps, owners = _steps(polygons)
  found = np.zeros(len(polygons), bool)
  found[owners[(np.abs(steps) > 180.0) & (np.abs(steps) < 360.0)]] = True
  return found


def _steps(polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns how far along x each edge of polygons goes, and i64[n], the polygon of each edge."""
  rings, polygon = shapely.get_rings(polygons, return_index=True)
  points, ring = shapely.get_coordinates(rings, return_index=True)
  is_edge = ring[1:] == ring[:-1]
  return np.diff(points[:, 0])[is_edge], polygon[ring[1:][is_edge]]


def _parts(polygon: shapely.Polygon, precision: float, repair: Callable) -> shapely.Geometry:
  """Returns the parts of a polygon between -180 and 180 degrees."""
  rings = (polygon.exterior, *polygon.interiors)
  covered, *holes = (_enclosed(np.asarray(ring.coords), repair) for ring in rings)
  if holes:
    covered = covered.difference(shapely.union_all(holes))
  parts = _polygons_in(shapely.set_precision(covered, precision)) or _polygons_in(covered)
  return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _enclosed(points: np.ndarray, repair: Callable) -> Any:
  """Returns what a ring encloses, between -180 and 180 degrees; edges take the short way around."""
  x, y = points[:, 0].copy(), points[:, 1]
  x[1:] -= 360.0 * np.cumsum(np.rint(np.diff(x) / 360.0))
  if abs(x[-1] - x[0]) > 180.0:  # It goes around a pole.
    pole = math.copysign(90.0, float(np.mean(y)))
    x, y = np.r_[x, x[-1], x[0]], np.r_[y, pole, pole]
  area: Any = shapely.Polygon(np.stack([x, y], axis=1))
  if not area.is_valid:
    area = repair(area)
  parts = []
  for turn in range(math.floor((x.min() + 180) / 360), math.ceil((x.max() + 180) / 360)):
    part = area.intersection(shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90))
    parts.append(shapely.transform(part, lambda points, turn=turn: points - [360.0 * turn, 0.0]))
  return shapely.union_all(parts)


def _polygons_in(geometry: shapely.Geometry) -> list[shapely.Polygon]:
  return [part for part in shapely.get_parts(shapely.get_parts(geometry)) if part.area > 0]

"""Outlines between the pixels of a scene, which the page uses, and the scene's coordinates."""

import math
import re
from typing import Any

import numpy as np
import shapely
from shapely import GeometryType

from lgag_jax.geo import geometry_parts
from lgag_jax.geo.grid import GEOD, Grid

MAX_POINTS = 20_000  # Of an outline that the page sends.
_DIGITS = 2  # Of a pixel.
_FARTHEST = 2.0**50  # Pixels from the scene's corner. Degrees read as metres lie nearer.
_MAX_STEPS = 1 << 17  # Points that are added to an outline to measure its area on the ellipsoid.
_WKT = re.compile(r"(?:MULTI)?POLYGON (?:EMPTY|[-+.eE\d, ()]+)", re.ASCII)


def from_wkt(text: Any) -> shapely.Geometry:
  """Reads an outline of a log; raises ValueError if it is none.

  Its form is checked before GEOS reads it: GEOS follows nested collections until the process crashes.
  """
  if not isinstance(text, str) or not _WKT.fullmatch(text):
    raise ValueError(f"{str(text)[:50]!r} is no POLYGON or MULTIPOLYGON of numbers")
  return shapely.from_wkt(text)


def usable(geometries: np.ndarray, grid: Grid) -> np.ndarray:
  """Returns outlines in a scene's coordinates, repaired where they are invalid.

  Raises ValueError unless they are polygons of finite numbers that can be repaired in little time. They
  may lie outside the scene: decisions outlive a new map of a larger or smaller one.
  """
  types = shapely.get_type_id(geometries)
  if not np.isin(types, (GeometryType.POLYGON, GeometryType.MULTIPOLYGON)).all():
    raise ValueError("an outline must be a polygon")
  pixels = _apply(~grid.transform, shapely.get_coordinates(geometries))
  if not (np.abs(pixels) < _FARTHEST).all():  # False for NaN.
    raise ValueError("an outline has coordinates that are no numbers, or are far outside the scene")
  result = geometries.copy()
  for i in np.flatnonzero(~shapely.is_valid(geometries)):
    result[i] = as_multi(geometry_parts.valid(geometries[i]))
  return result


def from_page(value: Any, grid: Grid) -> shapely.MultiPolygon:
  """Returns an outline of the page, [[[x, y], ...] per ring] per polygon, in pixels of the scene.

  It is repaired and cut at the scene's border. Raises ValueError if it is none, or has no area.
  """
  try:
    polygons = [[np.array(ring, np.float64) for ring in rings] for rings in value]
    points = sum(len(ring) for rings in polygons for ring in rings)
    shaped = all(ring.ndim == 2 and ring.shape[1] == 2 for rings in polygons for ring in rings)
    if not shaped or not all(np.isfinite(ring).all() for rings in polygons for ring in rings):
      raise ValueError("an outline is made of pairs of finite numbers")
    if points > MAX_POINTS:
      raise ValueError(f"it has {points} points, more than {MAX_POINTS}")
    shape = shapely.union_all([
      geometry_parts.valid(shapely.Polygon(rings[0], rings[1:])) for rings in polygons if rings
    ])
  except (ValueError, TypeError, OverflowError, shapely.GEOSException) as error:
    raise ValueError(f"This outline cannot be used: {error}.") from error
  return _polygons(shapely.intersection(shape, shapely.box(0, 0, grid.width, grid.height)))


def cut(outline: shapely.MultiPolygon, area: shapely.MultiPolygon) -> shapely.MultiPolygon:
  """Returns an outline without an area; raises ValueError if nothing is left."""
  return _polygons(shapely.difference(outline, area))


def to_page(geometry: shapely.Geometry, grid: Grid) -> list[list[list[list[float]]]]:
  """Returns a geometry in the scene's coordinates as the page has it."""
  inverse = ~grid.transform
  pixels = shapely.transform(geometry, lambda points: _apply(inverse, points))
  return pixels_to_page(pixels)


def pixels_to_page(geometry: shapely.Geometry) -> list[list[list[list[float]]]]:
  """Returns a geometry in pixels as the page has it: each ring without its repeated first point."""
  return [
    [shapely.get_coordinates(ring)[:-1].round(_DIGITS).tolist()
     for ring in (part.exterior, *part.interiors)]
    for part in shapely.get_parts(geometry) if isinstance(part, shapely.Polygon)
  ]


def to_scene(outline: shapely.Geometry, grid: Grid) -> shapely.Geometry:
  """Returns an outline in pixels in the scene's coordinates."""
  return shapely.transform(outline, lambda points: _apply(grid.transform, points))


def area_m2(geometry: shapely.Geometry, grid: Grid) -> float | None:
  """Returns the area on the ellipsoid of a geometry in the scene's coordinates; None if unknown."""
  transformer = grid.to_wgs84()
  if transformer is None:
    return None
  inverse = ~grid.transform
  pixels = shapely.transform(geometry, lambda points: _apply(inverse, points))
  total = 0.0
  step = max(1.0, shapely.length(pixels) / _MAX_STEPS)
  for part in shapely.get_parts(shapely.segmentize(pixels, step)):
    on_earth = shapely.transform(
      shapely.orient_polygons(part),
      lambda points: np.stack(transformer.transform(*_apply(grid.transform, points).T), axis=1))
    total += abs(GEOD.geometry_area_perimeter(on_earth)[0])
  return total if math.isfinite(total) else None


def as_multi(geometry: shapely.Geometry) -> shapely.MultiPolygon:
  """Returns the polygons of a geometry, which may be none."""
  parts = shapely.get_parts(shapely.get_parts(geometry))
  return shapely.MultiPolygon(list(parts[shapely.get_type_id(parts) == GeometryType.POLYGON]))


def _polygons(geometry: shapely.Geometry) -> shapely.MultiPolygon:
  shape = as_multi(geometry)
  if shape.is_empty or shape.area == 0:
    raise ValueError("This outline has no area in the scene. Draw another.")
  return shape


def _apply(transform, points: np.ndarray) -> np.ndarray:
  a, b, c, d, e, f = transform[:6]
  x, y = points.T
  return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

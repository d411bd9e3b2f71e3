"""Takes features apart into single polygons or points, which every library reads alike.

Libraries disagree on what is empty: rasterio skips a whole feature because of one empty part, but
shapely calls such a feature valid. Therefore unusable parts are removed here, counted and named.
"""

import logging
from typing import Any

import numpy as np
import shapely
from shapely import GeometryType
from shapely.geometry.base import BaseGeometry

_LOG = logging.getLogger(__name__)

# The time of a repair grows with the square of the crossings. This many take some seconds. Edges that
# run along each other take less time, and a hole may repeat the whole outline.
_MAX_CROSSINGS = 2000
_MAX_OVERLAPS = 1 << 16
_FEW_VERTICES = 64  # So few edges cross less often.
_MAX_EDGES_AT_ONCE = 1 << 10
_KINDS = ("polygons", "points", "lines")  # A collection counts as the first of these that it holds.
_TYPES = {"polygons": GeometryType.POLYGON, "points": GeometryType.POINT}


def take_apart(path, features: np.ndarray) -> tuple[str, np.ndarray, np.ndarray]:
  """Returns "polygons" or "points", the parts of that kind, and i64[parts], the feature of each.

  Features are not missing and not empty; collections may be nested. Logs how many features lose parts.
  Raises ValueError naming the file unless the features are either polygons or points.
  """
  if not len(features):
    raise ValueError(f"{path} holds no feature with a geometry. Save the layer again from its source.")
  parts, owners, with_empty = _single(features)
  kind = _kind(path, parts, owners, len(features))
  wanted = shapely.get_type_id(parts) == _TYPES[kind]
  warn(path, owners[~wanted], f"hold other geometry beside {kind}; using only the {kind}")
  return kind, *_usable(path, parts[wanted], owners[wanted], with_empty)


def take_all(path, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns all parts of features, and i64[parts], the feature of each, as `take_apart` does."""
  return _usable(path, *_single(features))


def _single(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the single parts of features, the feature of each, and the features with empty parts."""
  parts, owners, with_empty = features, np.arange(len(features)), []
  while True:
    empty = shapely.is_empty(parts)
    with_empty.append(owners[empty])
    parts, owners = parts[~empty], owners[~empty]
    if np.all(shapely.get_type_id(parts) <= GeometryType.POLYGON):
      return parts, owners, np.concatenate(with_empty)
    parts, index = shapely.get_parts(parts, return_index=True)
    owners = owners[index]


def _usable(
  path, parts: np.ndarray, owners: np.ndarray, with_empty: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the parts of which every coordinate is a number, without empty holes."""
  rings, index = shapely.get_rings(parts, return_index=True)
  hollow = np.unique(index[shapely.is_empty(rings)])
  parts[hollow] = [_without_empty_holes(polygon) for polygon in parts[hollow]]
  points, index = shapely.get_coordinates(parts, return_index=True)
  finite = np.ones(len(parts), bool)
  finite[index[~np.isfinite(points).all(axis=1)]] = False
  with_empty = np.concatenate([with_empty, owners[hollow]])
  warn(path, with_empty, "have empty parts; skipping those parts")
  warn(path, owners[~finite], "have coordinates that are not numbers; skipping those parts")
  return parts[finite], owners[finite]


def _kind(path, parts: np.ndarray, owners: np.ndarray, count: int) -> str:
  types = shapely.get_type_id(parts)
  numbers = np.select([types == _TYPES["polygons"], types == _TYPES["points"]], [0, 1], 2)
  best = np.full(count, len(_KINDS) - 1)
  np.minimum.at(best, owners, numbers)
  kinds = [_KINDS[number] for number in np.unique(best)]
  if len(kinds) != 1 or kinds[0] not in _TYPES:
    outlines = " If lines are outlines, make polygons of them." if "lines" in kinds else ""
    raise ValueError(
      f"{path} holds {' and '.join(kinds)}: labels must be either "
      f"polygons or points. Save them in a layer of their own.{outlines} --mode=tile also "
      "reads lines and mixed shapes if a field names what is no landslide, too."
    )
  return kinds[0]


def _without_empty_holes(polygon: shapely.Polygon) -> shapely.Polygon:
  return shapely.Polygon(polygon.exterior, [hole for hole in polygon.interiors if not hole.is_empty])


def repaired(path, polygons: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns valid polygons with an area, and bool[n], which ones of all they are."""
  invalid = ~shapely.is_valid(polygons)
  warn(path, owners[invalid], "are invalid; repairing them")
  for polygon in polygons[invalid & (shapely.get_num_coordinates(polygons) > _FEW_VERTICES)]:
    if problem := _repair_problem(polygon):
      raise ValueError(
        f"{path} holds {problem}. Repair or remove it, such as with Fix geometries in QGIS."
      )
  valid = polygons.copy()
  valid[invalid] = [_polygons_of(geometry) for geometry in shapely.make_valid(polygons[invalid])]
  with_area = shapely.area(valid) > 0
  warn(path, owners[~with_area], "have parts without an area, such as lines; skipping those parts")
  return valid[with_area], with_area


def valid(geometry: BaseGeometry) -> BaseGeometry:
  """Returns a geometry, repaired if it is invalid; raises ValueError if that would take too long."""
  if geometry.is_valid:
    return geometry
  parts = _single(np.array([geometry], object))[0]
  if problem := _repair_problem(parts[shapely.get_type_id(parts) == GeometryType.POLYGON]):
    raise ValueError(f"it holds {problem}: repair it, such as with Fix geometries in QGIS")
  repaired_geometry: Any = shapely.make_valid(geometry)
  return repaired_geometry


def _repair_problem(polygons: shapely.Polygon | np.ndarray) -> str:
  """Returns why polygons that are repaired together would take too long, "" if they do not."""
  points, ring = shapely.get_coordinates(shapely.get_rings(polygons), return_index=True)
  if len(points) <= _FEW_VERTICES:
    return ""
  ends = np.stack([points[:-1], points[1:]], axis=1)[ring[:-1] == ring[1:]]
  edges = np.asarray(shapely.linestrings(ends))
  tree, crossings, overlaps, start, step = shapely.STRtree(edges), 0, 0, 0, 1
  count = lambda kind: tree.query(edges[start : start + step], predicate=kind).shape[1]
  while start < len(edges):  # Each of two edges finds the other.
    crossings += count("crosses")
    if crossings <= 2 * _MAX_CROSSINGS:
      overlaps += count("overlaps") + 2 * (count("covers") - len(edges[start : start + step]))
    if crossings > 2 * _MAX_CROSSINGS or overlaps > 2 * _MAX_OVERLAPS:
      how = f"crosses itself more than {_MAX_CROSSINGS} times"
      if crossings <= 2 * _MAX_CROSSINGS:
        how = f"runs along itself more than {_MAX_OVERLAPS} times"
      return f"a polygon of {len(points)} vertices that {how}"
    start, step = start + step, min(2 * step, _MAX_EDGES_AT_ONCE)  # An edge may cross all others.
  return ""


def _polygons_of(geometry: shapely.Geometry) -> shapely.Geometry:
  """Returns the polygons in a result of make_valid, without the lines that polygons may collapse to."""
  parts = shapely.get_parts(shapely.get_parts(geometry))
  parts = parts[(shapely.get_type_id(parts) == GeometryType.POLYGON) & ~shapely.is_empty(parts)]
  return shapely.MultiPolygon(parts.tolist())


def warn(path, features: np.ndarray, message: str) -> None:
  """Logs how many different features something is the matter with, unless it is none."""
  if len(features):
    _LOG.warning("%s: %d of its features %s.", path, len(np.unique(features)), message)

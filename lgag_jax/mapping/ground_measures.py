"""Measures outlines on the WGS84 ellipsoid, whatever the coordinate reference system of the scene."""

import numpy as np
import shapely
from affine import Affine

from lgag_jax.geo.grid import GEOD, Grid

_POLYGONS_AT_ONCE = 1000  # Coordinates are only projected fast in bulk.


def apply(transform: Affine, points: np.ndarray) -> np.ndarray:
  """Returns the coordinates f64[n, 2] of points in pixels f64[n, 2]."""
  a, b, c, d, e, f = transform[:6]
  x, y = points.T
  return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)


def areas_and_perimeters(outlines: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
  """Returns areas in square metres and perimeters in metres on the ellipsoid; NaN if unknown.

  Edges are first cut at every pixel: a straight line on the map is not the shortest line on the
  ellipsoid, between which areas are computed. So the area is exactly the sum of the pixels' areas.
  """
  areas, perimeters = np.full((2, len(outlines)), np.nan)
  transformer = grid.to_wgs84()
  if transformer is None:
    return areas, perimeters
  for start in range(0, len(outlines), _POLYGONS_AT_ONCE):
    rings, polygon = shapely.get_rings(outlines[start : start + _POLYGONS_AT_ONCE], return_index=True)
    rings = shapely.segmentize(rings, 1.0)
    points = apply(grid.transform, shapely.get_coordinates(rings))
    longitudes, latitudes = transformer.transform(*points.T)
    stops = np.cumsum(shapely.get_num_coordinates(rings))
    previous = None
    for ring_start, stop, i in zip(np.r_[0, stops], stops, polygon + start, strict=False):
      ring = slice(ring_start, stop)
      area, length = GEOD.polygon_area_perimeter(longitudes[ring], latitudes[ring])
      if i != previous:  # A polygon's first ring is its outline; the others are holes.
        areas[i], perimeters[i] = abs(area), length
      else:
        areas[i], perimeters[i] = areas[i] - abs(area), perimeters[i] + length
      previous = i
  return areas, perimeters


def inner_points(outlines: np.ndarray, grid: Grid) -> np.ndarray:
  """Returns longitude and latitude of a point inside each outline, f64[N, 2]; NaN if unknown."""
  transformer = grid.to_wgs84()
  if transformer is None or not len(outlines):
    return np.full((len(outlines), 2), np.nan)
  points = apply(grid.transform, shapely.get_coordinates(shapely.point_on_surface(outlines)))
  degrees = np.stack(transformer.transform(*points.T), axis=1)
  degrees[:, 0] = (degrees[:, 0] + 180) % 360 - 180
  return degrees


def central_pixels(outlines: np.ndarray) -> np.ndarray:
  """Returns row and column of the pixel at each outline's centroid, i64[N, 2].

  If the centroid of a bent outline lies outside of it, the pixel is that of a point inside.
  """
  centres = shapely.centroid(outlines)
  outside = ~shapely.contains(outlines, centres)  # On its edge, the pixel may be a neighbour.
  centres[outside] = shapely.point_on_surface(outlines[outside])
  return np.floor(shapely.get_coordinates(centres)[:, ::-1]).astype(np.int64)


def pixel_areas(points: np.ndarray, grid: Grid) -> np.ndarray:
  """Returns the areas in m² of pixels that have points f64[n, 2] as their centres; NaN if unknown."""
  transformer = grid.to_wgs84()
  if transformer is None:
    return np.full(len(points), np.nan)
  ends = [transformer.transform(*apply(grid.transform, points + half).T)
          for half in ((-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5))]
  bearing, _, length = zip(*(GEOD.inv(*ends[i], *ends[i + 1]) for i in (0, 2)), strict=True)
  areas = np.abs(length[0] * length[1] * np.sin(np.radians(np.subtract(*bearing))))
  return np.where(np.isfinite(areas), areas, np.nan)


def rectangles(outlines: np.ndarray, grid: Grid) -> np.ndarray:
  """Returns length, width and bearing of the smallest rectangle around each outline, f64[N, 3].

  Length and width are in metres. The bearing is that of the long sides, 0..180 degrees clockwise from
  true north. Unknown rectangles are NaN. Each is fitted in the azimuthal equidistant plane around its
  own outline, where distances and directions from the centre are those on the ellipsoid.
  """
  result = np.full((len(outlines), 3), np.nan)
  transformer = grid.to_wgs84()
  if transformer is None:
    return result
  for start in range(0, len(outlines), _POLYGONS_AT_ONCE):
    rings = shapely.get_exterior_ring(outlines[start : start + _POLYGONS_AT_ONCE])
    points, owners = shapely.get_coordinates(rings, return_index=True)
    bounds = shapely.bounds(rings)
    centres = (bounds[:, :2] + bounds[:, 2:]) / 2
    lon, lat = transformer.transform(*apply(grid.transform, points).T)
    centre_lon, centre_lat = transformer.transform(*apply(grid.transform, centres).T)
    bearing, _, distance = GEOD.inv(centre_lon[owners], centre_lat[owners], lon, lat)
    plane = np.stack([np.sin(np.radians(bearing)), np.cos(np.radians(bearing))]) * distance
    known = np.bincount(owners[~np.isfinite(plane).all(axis=0)], minlength=len(rings)) == 0
    fitted = shapely.set_coordinates(rings[known], plane.T[known[owners]])
    result[start + np.flatnonzero(known)] = _sides(shapely.minimum_rotated_rectangle(fitted))
  return result


def _sides(boxes: np.ndarray) -> np.ndarray:
  """Returns length, width and bearing of rectangles, f64[n, 3]; NaN if one has no area."""
  result = np.full((len(boxes), 3), np.nan)
  whole = shapely.get_num_coordinates(boxes) == 5
  corners = shapely.get_coordinates(boxes[whole]).reshape(-1, 5, 2)
  sides = np.diff(corners, axis=1)[:, :2]  # To the east and to the north.
  lengths = np.linalg.norm(sides, axis=2)
  along = sides[np.arange(len(sides)), lengths.argmax(axis=1)]
  bearings = np.degrees(np.arctan2(along[:, 0], along[:, 1])) % 180
  result[whole] = np.stack([lengths.max(axis=1), lengths.min(axis=1), bearings], axis=1)
  return result

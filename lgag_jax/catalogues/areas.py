"""Reads the area to map from GeoJSON, as nothing but shapes."""

import json
import logging
import pathlib
from typing import Any

import numpy as np
import shapely
import shapely.geometry
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from lgag_jax.geo import antimeridian, geometry_parts
from lgag_jax.runtime import files

_LOG = logging.getLogger(__name__)

_PRECISION = 1e-9  # Degrees, a tenth of a millimetre.
_MAX_BYTES = 64 << 20
_WGS84 = ("urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:EPSG::4326", "EPSG:4326")
# What shapely raises for what is no geometry of GeoJSON.
UNREADABLE = (ShapelyError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


def read_area(path: pathlib.Path) -> BaseGeometry:
  """Returns the union of a GeoJSON's polygons in longitude and latitude.

  Raises ValueError naming a file that is no GeoJSON of polygons, or is in another CRS.
  """
  if not path.is_file():
    raise FileNotFoundError(f"--area={path}: no such file.")
  if path.stat().st_size > _MAX_BYTES:
    raise ValueError(f"--area={path} has more than {_MAX_BYTES >> 20} MiB: simplify its polygons.")
  try:
    content = json.loads(files.read_regular(path))  # In any UTF, also with a mark.
  except (ValueError, RecursionError) as error:
    raise ValueError(f"--area={path} is not valid JSON: {error}. Save it as GeoJSON.") from error
  try:
    crs = content.get("crs")
    if crs and crs["properties"]["name"] not in _WGS84:
      raise ValueError(f"its CRS is {str(crs['properties']['name'])[:80]}")
    geometries = _geometries(content)
    if None in geometries or not geometries:
      raise ValueError("a feature has no geometry" if geometries else "it holds no feature")
    west, south, east, north = shapely.total_bounds([shapely.geometry.shape(g) for g in geometries])
    area = shapely.union_all([polygon_of(g, keeps_wide=True) for g in geometries])
  except UNREADABLE as error:
    raise ValueError(
      f"--area={path} is no GeoJSON of polygons in longitude and latitude: {error}. Convert it: "
      "ogr2ogr -t_srs EPSG:4326 area.geojson in.gpkg"
    ) from error
  if west < -180 or east > 180 or south < -90 or north > 90:
    bounds = tuple(map(float, (west, south, east, north)))
    raise ValueError(f"--area={path}: {bounds} are not degrees of longitude and latitude.")
  if antimeridian.jumps(_polygons(area)).any():
    _LOG.warning(
      "--area=%s has an edge of more than 180 degrees, which is taken as it is. If the area crosses "
      "the 180th meridian, divide it there: ogr2ogr -wrapdateline new.geojson area.geojson", path,
    )
  return area


def polygon_of(geometry: Any, *, keeps_wide: bool = False) -> BaseGeometry:
  """Returns a valid polygon of GeoJSON's geometry; raises one of UNREADABLE for what is none.

  ValueError for one without area, and one that crosses itself too often to be repaired.
  A polygon with an edge of more than 180 degrees, such as from 179 to -179, crosses the 180th meridian:
  it is cut there, as RFC 7946 asks. With `keeps_wide` it stays as it is if its points are in the order
  that RFC 7946 asks for, counterclockwise: only then can it be meant.
  """
  shape = geometry_parts.valid(_cut(shapely.geometry.shape(geometry), keeps_wide))
  if shape.is_empty or shape.area == 0:
    raise ValueError(f"a {shape.geom_type} has no area")
  return shapely.force_2d(shape)


def _cut(shape: BaseGeometry, keeps_wide: bool) -> BaseGeometry:
  polygons = _polygons(shape)
  crossing = antimeridian.jumps(polygons)
  if keeps_wide:
    crossing &= ~shapely.is_ccw(shapely.get_exterior_ring(polygons))
  if not crossing.any():
    return shape
  polygons[crossing] = antimeridian.cut(polygons[crossing], _PRECISION, geometry_parts.valid)
  polygons[~crossing] = [geometry_parts.valid(polygon) for polygon in polygons[~crossing]]
  return shapely.union_all(polygons)


def _polygons(shape: BaseGeometry) -> np.ndarray:
  parts = shapely.get_parts(shapely.get_parts(shape))  # A collection may hold multipolygons.
  return parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]


def _geometries(content: Any) -> list:
  if content["type"] == "FeatureCollection":
    return [feature["geometry"] for feature in content["features"]]
  return [content["geometry"] if content["type"] == "Feature" else content]

"""Reads the area to map from GeoJSON, as nothing but shapes."""

import pathlib
from typing import Any

import shapely
import shapely.geometry
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from lgag_jax.runtime import files

_MAX_BYTES = 64 << 20
_WGS84 = ("urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:EPSG::4326", "EPSG:4326")


def read_area(path: pathlib.Path) -> BaseGeometry:
  """Returns the union of a GeoJSON's polygons in longitude and latitude.

  Raises ValueError naming a file that is no GeoJSON of polygons, or is in another CRS.
  """
  if not path.is_file():
    raise FileNotFoundError(f"--area={path}: no such file.")
  if path.stat().st_size > _MAX_BYTES:
    raise ValueError(f"--area={path} has more than {_MAX_BYTES >> 20} MiB: simplify its polygons.")
  content = files.read_json(path)
  try:
    crs = content.get("crs")
    if crs and crs["properties"]["name"] not in _WGS84:
      raise ValueError(f"its CRS is {str(crs['properties']['name'])[:80]}")
    area = shapely.union_all([polygon_of(geometry) for geometry in _geometries(content)])
  except (ShapelyError, ValueError, LookupError, TypeError, AttributeError) as error:
    raise ValueError(
      f"--area={path} is no GeoJSON of polygons in longitude and latitude: {error}. Convert it: "
      "ogr2ogr -t_srs EPSG:4326 area.geojson in.gpkg"
    ) from error
  west, south, east, north = area.bounds
  if west < -180 or east > 180 or south < -90 or north > 90:
    raise ValueError(f"--area={path}: {area.bounds} are not degrees of longitude and latitude.")
  return area


def polygon_of(geometry: Any) -> BaseGeometry:
  """Returns a valid polygon of GeoJSON's geometry; raises ValueError for one without area."""
  shape = shapely.geometry.shape(geometry)
  shape = shape if shape.is_valid else shapely.make_valid(shape)
  if shape.is_empty or shape.area == 0:
    raise ValueError(f"a {shape.geom_type} has no area")
  return shapely.force_2d(shape)


def _geometries(content: Any) -> list:
  if content["type"] == "FeatureCollection":
    return [feature["geometry"] for feature in content["features"]]
  return [content["geometry"] if content["type"] == "Feature" else content]

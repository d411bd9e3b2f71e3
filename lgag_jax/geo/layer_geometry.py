"""Reads the geometry of a layer's features from what GDAL returns, and drops none that has one.

GDAL returns nothing for a geometry that is damaged, as for a feature without one. Shapely reads neither
TINs and other surfaces, which are taken for polygons here, nor curves in collections.
"""

import contextlib
import json
import pathlib
import sqlite3
import struct
from collections.abc import Iterator

import numpy as np
import shapely
from shapely import GeometryType

from lgag_jax.geo import shapefile_parts

# Types of WKB.
_POINT, _LINE, _POLYGON, _MULTIPOLYGON, _SURFACE, _TIN, _TRIANGLE = 1, 2, 3, 6, 15, 16, 17
_AS = {_SURFACE: _MULTIPOLYGON, _TIN: _MULTIPOLYGON, _TRIANGLE: _POLYGON}
_CURVES = range(8, 15)
_EMPTY = 16  # The flag of an empty geometry in a GeoPackage.


def read(
  path: pathlib.Path, source: str | bytes, layer: str, wkb: np.ndarray, numbers: np.ndarray
) -> np.ndarray:
  """Returns the geometries of features, None for one without; they may be invalid or empty.

  `wkb` holds two-dimensional geometries and `numbers` the features' numbers, both as GDAL returns
  them. Raises ValueError naming the file, the first feature that cannot be read, and the remedy.
  """
  nothing = np.array([content is None for content in wkb], bool)
  for number in _stored(path, source, layer, numbers[nothing].tolist()):
    raise _damaged(path, number)
  with np.errstate(invalid="ignore"):  # Coordinates may be NaN.
    features = shapely.from_wkb(wkb, on_invalid="ignore")
    unread = shapely.is_missing(features) & ~nothing
    collections = shapely.get_type_id(features) == GeometryType.GEOMETRYCOLLECTION
    for i in np.flatnonzero(unread | collections):
      content = bytearray(wkb[i])
      kinds = _replace_surfaces(content)
      if kinds & set(_CURVES):
        raise ValueError(
          f"{path}: its feature {numbers[i]} is a collection with curves. Save the layer with straight "
          "lines: ogr2ogr -nlt CONVERT_TO_LINEAR out.gpkg in.gpkg."
        )
      if unread[i]:
        features[i] = shapely.from_wkb(bytes(content), on_invalid="fix") if kinds else None
        if features[i] is None:
          raise _damaged(path, numbers[i])
  return features


def _damaged(path: pathlib.Path, number: int) -> ValueError:
  return ValueError(
    f"{path}: the geometry of its feature {number} is damaged. Remove or draw it again, or save the "
    "layer again from its source."
  )


def _replace_surfaces(content: bytearray) -> set[int]:
  """Gives surfaces in little-endian WKB the types of polygons; returns all types, none if it is cut."""
  kinds: set[int] = set()

  def number(at: int) -> int:
    return struct.unpack_from("<I", content, at)[0]

  def replace(at: int) -> int:
    kind = number(at + 1)
    kinds.add(kind)
    struct.pack_into("<I", content, at + 1, _AS.get(kind, kind))
    at += 5
    if kind == _POINT:
      return at + 16
    count, at = number(at), at + 4
    if kind in (_LINE, 8):
      return at + 16 * count
    for _ in range(count):
      at = at + 4 + 16 * number(at) if kind in (_POLYGON, _TRIANGLE) else replace(at)
    return at

  with contextlib.suppress(struct.error, RecursionError):
    replace(0)
    return kinds
  return set()


def _stored(
  path: pathlib.Path, source: str | bytes, layer: str, numbers: list[int]
) -> Iterator[int]:
  """Yields which of these features have a geometry in the file that is not empty."""
  if not numbers:
    return
  if isinstance(source, bytes):  # The GeoJSON that `layer_files` wrote.
    features = json.loads(source)["features"]
    for number in numbers:
      geometry = features[number]["geometry"]
      if geometry and (geometry.get("coordinates") or geometry.get("geometries")):
        yield number
  elif path.suffix.lower() == ".shp":
    yield from (number for number in numbers if shapefile_parts.has_shape(path, number))
  else:
    yield from _stored_in_geopackage(path, layer, numbers)


def _stored_in_geopackage(path: pathlib.Path, layer: str, numbers: list[int]) -> Iterator[int]:
  address = f"{path.absolute().as_uri()}?mode=ro"
  with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
    (column,) = database.execute(
      "SELECT column_name FROM gpkg_geometry_columns WHERE lower(table_name) = lower(?)", (layer,)
    ).fetchone()
    names = [name.replace('"', '""') for name in (column, layer)]
    query = 'SELECT substr("{}", 1, 4) FROM "{}" WHERE rowid = ?'.format(*names)
    for number in numbers:
      header = (database.execute(query, (number,)).fetchone() or (None,))[0]
      if isinstance(header, bytes) and len(header) == 4 and not header[3] & _EMPTY:
        yield number

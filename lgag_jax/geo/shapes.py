"""Reads polygons and points from GeoPackage, shapefile and GeoJSON, in the pixels of a scene.

Layers may be untrusted. GDAL chooses the driver for a file by itself, and some drivers open other files
and URLs that the file names. So a file must begin as one of the three formats does.
"""

import contextlib
import dataclasses
import json
import logging
import pathlib
from collections.abc import Iterator
from typing import cast

import numpy as np
import pyogrio.raw
import pyproj
import shapely
from pyproj.exceptions import ProjError
from shapely import GeometryType

from lgag_jax.geo.grid import Grid

_LOG = logging.getLogger(__name__)

SUFFIXES = {".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".geojson": "GeoJSON", ".json": "GeoJSON"}
_KINDS = {
  GeometryType.POLYGON: "polygons", GeometryType.MULTIPOLYGON: "polygons",
  GeometryType.POINT: "points", GeometryType.MULTIPOINT: "points",
}
_MAX_JSON_BYTES = 1 << 28
_GPKG_IDS = (b"GPKG", b"GP10", b"GP11")  # At byte 68 of an SQLite file.
_JSON_TYPES = ("FeatureCollection", "Feature", *(
  kind + name for name in ("Polygon", "Point") for kind in ("", "Multi")
))


@dataclasses.dataclass(frozen=True)
class Shapes:
  """The shapes of a layer in the scene's pixels: x is the column, y the row, (0, 0) its corner."""

  kind: str  # "polygons" or "points".
  geometries: np.ndarray  # Valid shapely geometries.
  classes: np.ndarray  # u8, the class of each geometry, from 1.


def read_shapes(
  path: pathlib.Path, grid: Grid, classes: tuple[str, ...], *, layer: str = "", field: str = ""
) -> Shapes:
  """Reads a layer's polygons or points; `field` holds their class names, "" if there is one class.

  Skips geometries that are empty or have no position in the scene's coordinates, repairs invalid ones,
  and warns with the number of both. Raises ValueError naming the file and the remedy.
  """
  driver = _driver(path)
  with _error_context(path):
    layer = _layer(path, layer)
    info = pyogrio.read_info(path, layer=layer)
    if info["driver"] != driver:
      raise ValueError(f"GDAL opens it with {info['driver']}, not {driver}")
    _check_field(info["fields"], field, classes)
    columns = [field] if field else []
    meta, _, wkb, data = pyogrio.raw.read(path, layer=layer, columns=columns, force_2d=True)
  geometries = shapely.from_wkb(wkb, on_invalid="ignore")
  readable = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
  _warn(path, np.sum(~readable), "have no readable geometry; skipping them")
  geometries = geometries[readable]
  if field:
    numbers = _class_numbers(path, data[0][readable], field, classes)
  else:
    numbers = np.ones(len(geometries), np.uint8)
  kind = _kind(path, geometries)
  geometries, located = _to_pixels(path, geometries, meta["crs"], grid)
  if not located.any():
    raise ValueError(
      f"{path}: none of its {len(located)} {kind} has a position in the scene's coordinates. Check its "
      "coordinate reference system."
    )
  _warn(path, np.sum(~located), "have no position in the scene's coordinates; skipping them")
  return Shapes(kind, _repair(path, geometries), numbers[located])


@contextlib.contextmanager
def _error_context(path: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except (RuntimeError, ValueError) as error:  # pyogrio raises either.
    raise ValueError(f"{path} cannot be read as labels: {str(error).rstrip('.')}.") from error


def _driver(path: pathlib.Path) -> str:
  """Returns the driver for a file's suffix; raises ValueError unless its first bytes agree."""
  driver = SUFFIXES.get(path.suffix.lower())
  if driver is None:
    raise ValueError(f"{path} cannot be read as labels: save it as one of {', '.join(SUFFIXES)}.")
  if not path.is_file():  # URLs and paths in archives are not files either.
    raise ValueError(f"{path} cannot be read as labels: no such file.")
  if set(str(path)) & set("!;"):  # They would be read as a path in an archive.
    raise ValueError(f"{path}: a path with '!' or ';' is unsupported. Rename it.")
  with path.open("rb") as file:
    header = file.read(72)
  if driver == "GeoJSON":
    matches = _is_geojson(path)
  elif driver == "GPKG":
    matches = header.startswith(b"SQLite format 3\0") and header[68:] in _GPKG_IDS
  else:
    matches = header.startswith(b"\x00\x00\x27\x0a")
  if not matches:
    raise ValueError(f"{path} is not a valid {driver} file: save the layer as one, with this suffix.")
  return driver


def _is_geojson(path: pathlib.Path) -> bool:
  if (size := path.stat().st_size) > _MAX_JSON_BYTES:
    raise ValueError(
      f"{path} has {size >> 20} MiB, more than the {_MAX_JSON_BYTES >> 20} MiB allowed for GeoJSON: "
      "save it as GeoPackage."
    )
  content = path.read_bytes()
  if b"gdal_streamed_alg" in content:  # GDAL would run the commands in the file.
    return False
  try:
    return json.loads(content).get("type") in _JSON_TYPES
  except (ValueError, AttributeError, RecursionError):
    return False


def _layer(path: pathlib.Path, layer: str) -> str:
  names = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
  if layer in names or (not layer and len(names) == 1):
    return layer or names[0]
  problem = f"no layer {layer!r}" if layer else f"{len(names)} layers"
  raise ValueError(f"it has {problem}: choose one with --layer, of {', '.join(names) or 'none'}")


def _check_field(fields: np.ndarray, field: str, classes: tuple[str, ...]) -> None:
  if field and field not in fields:
    raise ValueError(f"it has no field {field!r}: choose one with --field, of {', '.join(fields)}")
  if not field and len(classes) > 1:
    raise ValueError(
      f"set --field to the one of its fields ({', '.join(fields)}) that holds the class, of "
      f"{', '.join(classes)}"
    )


def _class_numbers(path, values: np.ndarray, field: str, classes: tuple[str, ...]) -> np.ndarray:
  names, inverse = np.unique([str(value) for value in values], return_inverse=True)
  for name in names:
    if name not in classes:
      raise ValueError(
        f"{path}: the field {field} holds {str(name)!r}, which is not among the classes "
        f"({', '.join(classes)}): add it to the classes, or change the layer."
      )
  return np.array([classes.index(name) + 1 for name in names], np.uint8)[inverse]


def _kind(path, geometries: np.ndarray) -> str:
  types = {GeometryType(i) for i in shapely.get_type_id(geometries)}
  kinds = {_KINDS.get(kind, kind.name.lower()) for kind in types}
  if len(kinds) != 1 or not kinds <= set(_KINDS.values()):
    raise ValueError(
      f"{path} holds {' and '.join(sorted(kinds)) or 'nothing'}: labels must be either polygons or "
      "points. Save them in a layer of their own."
    )
  return kinds.pop()


def _to_pixels(
  path, geometries: np.ndarray, crs: str | None, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the geometries with a position in pixels, and bool [n], which ones have a position."""
  transformer = _transformer(path, crs, grid)
  points, owners = shapely.get_coordinates(geometries, return_index=True)
  x, y = points.T
  if transformer is not None:
    x, y = transformer.transform(x, y)
  located, finite = np.ones(len(geometries), bool), np.isfinite(x) & np.isfinite(y)
  located[owners[~finite]] = False
  valid = located[owners]
  pixels = np.stack(~grid.transform @ (x[valid], y[valid]), axis=1)
  return shapely.set_coordinates(geometries[located], pixels), located


def _transformer(path, crs: str | None, grid: Grid) -> pyproj.Transformer | None:
  if crs is None or grid.crs is None:
    lacking, other = ("it", "the scene") if crs is None else ("the scene", "the layer")
    _LOG.warning("%s: %s has no coordinate reference system; using that of %s.", path, lacking, other)
    return None
  try:
    source, target = pyproj.CRS.from_user_input(crs), pyproj.CRS.from_wkt(grid.crs.to_wkt())
    if source.equals(target, ignore_axis_order=True):
      return None
    return pyproj.Transformer.from_crs(source, target, always_xy=True)
  except ProjError as error:
    raise ValueError(f"{path} cannot be transformed to the scene's coordinates: {error}.") from error


def _repair(path, geometries: np.ndarray) -> np.ndarray:
  invalid = ~shapely.is_valid(geometries)
  _warn(path, int(np.sum(invalid)), "are invalid; repairing them")
  result = geometries.copy()
  result[invalid] = [_polygons_of(geometry) for geometry in shapely.make_valid(geometries[invalid])]
  return result


def _polygons_of(geometry: shapely.Geometry) -> shapely.Geometry:
  """Returns the polygons in a result of make_valid, without the lines that polygons may collapse to."""
  parts = shapely.get_parts(shapely.get_parts(geometry))
  parts = parts[shapely.get_type_id(parts) == GeometryType.POLYGON]
  return cast(shapely.MultiPolygon, shapely.multipolygons(parts))


def _warn(path, count: int, message: str) -> None:
  if count:
    _LOG.warning("%s: %d of its features %s.", path, count, message)

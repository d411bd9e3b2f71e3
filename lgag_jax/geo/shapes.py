"""Polygons and points of GeoPackages, shapefiles and GeoJSON, brought to the pixels of a scene.

Layers may come from anywhere. GDAL tells by itself which driver opens a file, and some follow what is
written in it to other files and URLs, so a file has to begin as one of the three formats does.
"""

import contextlib
import dataclasses
import json
import logging
import pathlib
from collections.abc import Iterator

import numpy as np
import pyogrio
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
  """What a layer holds, in the scene's pixels: x is the column, y the row, (0, 0) its corner."""

  kind: str  # "polygons" or "points".
  geometries: np.ndarray  # Valid ones, of shapely.
  classes: np.ndarray  # u8, of each, from 1.


def read_shapes(
  path: pathlib.Path, grid: Grid, classes: tuple[str, ...], *, layer: str = "", field: str = ""
) -> Shapes:
  """Reads a layer's polygons or points; `field` holds a class name each, "" where there is one class.

  Geometries that are empty or lie nowhere in the scene's coordinates are left out, invalid ones made
  valid, and a warning counts both. Raises ValueError naming the file and the remedy.
  """
  driver = _driver(path)
  with _naming(path):
    layer = _layer(path, layer)
    info = pyogrio.read_info(path, layer=layer)
    if info["driver"] != driver:
      raise ValueError(f"{info['driver']} opens it, not {driver}")
    _check_field(info["fields"], field, classes)
    columns = [field] if field else []
    meta, _, wkb, data = pyogrio.raw.read(path, layer=layer, columns=columns, force_2d=True)
  geometries = shapely.from_wkb(wkb, on_invalid="ignore")
  there = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
  _tell(path, np.sum(~there), "hold no geometry that can be read, and are left out")
  geometries = geometries[there]
  numbers = _numbers(path, data[0][there], field, classes) if field else None
  kind = _kind(path, geometries)
  geometries, somewhere = _to_pixels(path, geometries, meta["crs"], grid)
  if not somewhere.any():
    raise ValueError(
      f"{path}: none of its {len(somewhere)} {kind} lies in the scene's coordinates. Is its coordinate "
      "reference system the right one?"
    )
  _tell(path, np.sum(~somewhere), "lie nowhere in the scene's coordinates, and are left out")
  numbers = np.ones(len(somewhere), np.uint8) if numbers is None else numbers
  return Shapes(kind, _valid(path, geometries), numbers[somewhere])


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except (RuntimeError, ValueError) as error:  # pyogrio's are of the one kind or the other.
    raise ValueError(f"{path} cannot be read as labels: {str(error).rstrip('.')}.") from error


def _driver(path: pathlib.Path) -> str:
  """Returns the driver of a regular file whose suffix and first bytes agree on it."""
  driver = SUFFIXES.get(path.suffix.lower())
  if driver is None:
    raise ValueError(f"{path} cannot be read as labels: save it as one of {', '.join(SUFFIXES)}.")
  if not path.is_file():  # Nor is a URL, or a place in an archive.
    raise ValueError(f"{path} cannot be read as labels: there is no such file.")
  if set(str(path)) & set("!;"):  # They would be read as a place in an archive.
    raise ValueError(f"{path}: a path with '!' or ';' cannot be read. Rename it.")
  with path.open("rb") as file:
    start = file.read(72)
  if driver == "GeoJSON":
    fits = _is_geojson(path)
  elif driver == "GPKG":
    fits = start.startswith(b"SQLite format 3\0") and start[68:] in _GPKG_IDS
  else:
    fits = start.startswith(b"\x00\x00\x27\x0a")
  if not fits:
    raise ValueError(f"{path} is no {driver} file: save the layer as one, with this suffix.")
  return driver


def _is_geojson(path: pathlib.Path) -> bool:
  if (size := path.stat().st_size) > _MAX_JSON_BYTES:
    raise ValueError(
      f"{path} has {size >> 20} MiB, a GeoJSON at most {_MAX_JSON_BYTES >> 20}: save it as GeoPackage."
    )
  content = path.read_bytes()
  if b"gdal_streamed_alg" in content:  # GDAL would run the commands in it.
    return False
  try:
    return json.loads(content).get("type") in _JSON_TYPES
  except (ValueError, AttributeError, RecursionError):
    return False


def _layer(path: pathlib.Path, layer: str) -> str:
  names = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
  if layer in names or (not layer and len(names) == 1):
    return layer or names[0]
  wish = f"no layer {layer!r}" if layer else f"{len(names)} layers"
  raise ValueError(f"it has {wish}: choose one by --layer, of {', '.join(names) or 'none'}")


def _check_field(fields: np.ndarray, field: str, classes: tuple[str, ...]) -> None:
  if field and field not in fields:
    raise ValueError(f"it has no field {field!r}: choose one by --field, of {', '.join(fields)}")
  if not field and len(classes) > 1:
    raise ValueError(
      f"--field must say which of its fields ({', '.join(fields)}) holds the class, of "
      f"{', '.join(classes)}"
    )


def _numbers(path, values: np.ndarray, field: str, classes: tuple[str, ...]) -> np.ndarray:
  names, inverse = np.unique([str(value) for value in values], return_inverse=True)
  for name in names:
    if name not in classes:
      raise ValueError(
        f"{path}: the field {field} holds {str(name)!r}, which is none of the classes "
        f"({', '.join(classes)}): add it to them, or change the layer."
      )
  return np.array([classes.index(name) + 1 for name in names], np.uint8)[inverse]


def _kind(path, geometries: np.ndarray) -> str:
  types = {GeometryType(i) for i in shapely.get_type_id(geometries)}
  kinds = {_KINDS.get(kind, kind.name.lower()) for kind in types}
  if len(kinds) != 1 or not kinds <= set(_KINDS.values()):
    raise ValueError(
      f"{path} holds {' and '.join(sorted(kinds)) or 'nothing'}: labels are either polygons or points. "
      "Save those in a layer of their own."
    )
  return kinds.pop()


def _to_pixels(
  path, geometries: np.ndarray, crs: str | None, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
  """Returns, in pixels, the geometries that lie somewhere there, and which those are."""
  transformer = _transformer(path, crs, grid)
  points, owners = shapely.get_coordinates(geometries, return_index=True)
  x, y = points.T
  if transformer is not None:
    x, y = transformer.transform(x, y)
  somewhere, finite = np.ones(len(geometries), bool), np.isfinite(x) & np.isfinite(y)
  somewhere[owners[~finite]] = False
  kept = somewhere[owners]
  pixels = np.stack(~grid.transform @ (x[kept], y[kept]), axis=1)
  return shapely.set_coordinates(geometries[somewhere], pixels), somewhere


def _transformer(path, crs: str | None, grid: Grid) -> pyproj.Transformer | None:
  """Returns what brings coordinates to the scene's, None where they are taken to be."""
  if crs is None or grid.crs is None:
    which = "it" if crs is None else "the scene"
    _LOG.warning("%s: %s has no coordinate reference system; taken to be the other's.", path, which)
    return None
  try:
    here, there = pyproj.CRS.from_user_input(crs), pyproj.CRS.from_wkt(grid.crs.to_wkt())
    if here.equals(there, ignore_axis_order=True):
      return None
    return pyproj.Transformer.from_crs(here, there, always_xy=True)
  except ProjError as error:
    raise ValueError(f"{path} cannot be brought to the scene's coordinates: {error}.") from error


def _valid(path, geometries: np.ndarray) -> np.ndarray:
  wrong = ~shapely.is_valid(geometries)
  _tell(path, np.sum(wrong), "are invalid, and have been made valid")
  repaired = geometries.copy()
  repaired[wrong] = [_polygonal(geometry) for geometry in shapely.make_valid(geometries[wrong])]
  return repaired


def _polygonal(geometry: shapely.Geometry) -> shapely.Geometry:
  """Returns the polygons of what make_valid returns, which may hold the lines that they fell to."""
  parts = shapely.get_parts(shapely.get_parts(geometry))
  return shapely.multipolygons(parts[shapely.get_type_id(parts) == GeometryType.POLYGON])


def _tell(path, count: int, what: str) -> None:
  if count:
    _LOG.warning("%s: %d of its features %s.", path, count, what)

"""Checks the untrusted file of a layer, and gives GDAL no more than it may open.

GDAL chooses the driver for a file by its content, and some drivers open other files and URLs that the
file names, or run its commands. GeoPackages and shapefiles begin as no other format does, and only the
CRSs in them can name anything. GeoJSON is text, in which another format may hide: GDAL gets
a copy of its shapes and fields.
"""

import io
import json
import pathlib
import re
from typing import Any

import pyogrio

from lgag_jax.geo import layer_formats, shapefile_parts
from lgag_jax.geo.geopackage_checks import check_crs, check_geopackage, is_geopackage

# Otherwise GDAL reads notes in a file beside a layer.
pyogrio.set_gdal_config_options({"GDAL_PAM_ENABLED": False})
_MAX_JSON_BYTES = 1 << 27
_MAX_JSON_PARTS = 1 << 22  # Lists and objects. Python takes some 130 bytes for each, if empty, too.
_MAX_FIELDS = 1000  # GDAL takes time with their square.
_MAX_PRJ_BYTES = 1 << 16
_PARTS = (".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".idm", ".ind")
_TYPES = ("FeatureCollection", "Feature", "GeometryCollection", *(
  kind + name for name in ("Polygon", "Point") for kind in ("", "Multi")
))
_CODE = re.compile(r"(urn:(x-)?ogc:def:crs:)?[A-Za-z]+:[\w.]*:?\w+", re.ASCII)


def source(path: pathlib.Path) -> tuple[str, str | bytes]:
  """Returns the driver of a layer's file, and the file's absolute path or the content for GDAL.

  Raises ValueError naming a file that is missing, of another format than its name says, or unsafe.
  """
  layer_formats.check(path)
  driver = layer_formats.SUFFIXES.get(path.suffix.lower())
  if driver is None:
    raise ValueError(f"{path} cannot be read as labels. {layer_formats.remedy(path)}")
  if not path.is_file():  # URLs and paths in archives are not files either.
    raise ValueError(f"{path} cannot be read as labels: no such file.")
  absolute = str(path.absolute())
  if set(absolute) & set("!;") or absolute.startswith("/vsi"):
    raise ValueError(f"{path}: a path with '!' or ';' is unsupported. Rename it.")
  with path.open("rb") as file:
    header = file.read(72)
  content: Any = None
  if driver == "GeoJSON":
    content = _parse(path)
    matches = isinstance(content, dict) and content.get("type") in _TYPES
  elif driver == "GPKG":
    matches = is_geopackage(header)
  else:
    matches = header.startswith(b"\x00\x00\x27\x0a")
  if not matches:
    raise ValueError(
      f"{path} is not a valid {driver} file, although its name ends in {path.suffix}. "
      f"{layer_formats.remedy(path)}"
    )
  try:
    if driver == "GeoJSON":
      return driver, _plain_json(content, path)
    if driver == "ESRI Shapefile":
      _check_shapefile(path)
      shapefile_parts.check(path)
    else:
      check_geopackage(path)
  except ValueError as error:
    raise ValueError(f"{path} cannot be read as labels: {error}. Save the layer again.") from error
  except (TypeError, KeyError, AttributeError, RecursionError) as error:
    raise ValueError(f"{path} cannot be read as labels: it is not GeoJSON. Save it again.") from error
  return driver, absolute


def is_empty(path: pathlib.Path, layer: str = "") -> bool:
  """Returns whether a layer, or each layer of a file, holds no feature; raises as `source` does."""
  driver, content = source(path)
  names = [name for name, kind in pyogrio.list_layers(content) if kind is not None]
  counted = [layer] if layer in names else names
  infos = [pyogrio.read_info(content, layer=name, force_feature_count=True) for name in counted]
  return all(info["driver"] == driver and not info["features"] for info in infos)


def _parse(path: pathlib.Path) -> Any:
  if (size := path.stat().st_size) > _MAX_JSON_BYTES:
    raise ValueError(
      f"{path} has {size >> 20} MiB, more than the {_MAX_JSON_BYTES >> 20} MiB allowed for GeoJSON: "
      "save it as GeoPackage."
    )
  content = path.read_bytes()
  if (parts := content.count(b"{") + content.count(b"[")) > _MAX_JSON_PARTS:
    raise ValueError(
      f"{path} has {parts} points and other parts, more than the {_MAX_JSON_PARTS} allowed for "
      "GeoJSON: save it as GeoPackage."
    )
  if b"gdal_streamed_alg" in content:  # Commands that GDAL would run.
    return None
  try:
    return json.loads(content)
  except (ValueError, RecursionError):
    return None


def _plain_json(content: dict, path: pathlib.Path) -> bytes:
  """Returns a layer as GeoJSON with its name, CRS, shapes and fields, and nothing else.

  "<" is escaped, so that no text in it can begin XML.
  """
  kind = content["type"]
  if kind == "FeatureCollection":
    features = content["features"]
  else:
    own = {key: value for key, value in content.items() if key != "crs"}
    features = [own if kind == "Feature" else {"geometry": own}]
  name = content.get("name")
  name = name if isinstance(name, str) and name else path.stem
  layer: dict[str, Any] = {"type": "FeatureCollection", "name": name}
  if (crs := content.get("crs")) is not None:
    layer["crs"] = {"type": "name", "properties": {"name": _crs_name(crs)}}
  text = io.StringIO()
  text.write(f'{json.dumps(layer)[:-1]}, "features": [')
  fields: set[str] = set()
  for number, feature in enumerate(features):  # One at a time: Python's copies take more than texts.
    fields.update(feature.get("properties") or ())
    if len(fields) > _MAX_FIELDS:
      raise ValueError(f"it has more than {_MAX_FIELDS} fields, such as {min(fields)[:80]!r}")
    text.write(f"{',' if number else ''}{json.dumps(_feature(feature))}")
  text.write("]}")
  return text.getvalue().replace("<", "\\u003c").encode()


def _feature(feature: dict) -> dict:
  geometry, properties = feature.get("geometry"), feature.get("properties")
  return {
    "type": "Feature", "properties": properties if isinstance(properties, dict) else {},
    "geometry": None if geometry is None else _geometry(geometry),
  }


def _geometry(geometry: dict) -> dict:
  if (crs := geometry.get("crs")) is not None:
    _crs_name(crs)
    raise ValueError("a geometry has a CRS of its own")
  if geometry.get("type") == "GeometryCollection":
    parts = [_geometry(part) for part in geometry["geometries"]]
    return {"type": "GeometryCollection", "geometries": parts}
  return {"type": geometry.get("type"), "coordinates": geometry.get("coordinates")}


def _crs_name(crs: dict) -> str:
  """Returns the name of a CRS member; raises ValueError for a link, which GDAL would follow."""
  name = crs["properties"].get("name") if crs.get("type") == "name" else None
  if not isinstance(name, str) or not _CODE.fullmatch(name):
    raise ValueError(f"its CRS {str(crs)[:200]} is no name of a register, such as EPSG:32633")
  return name


def _check_shapefile(path: pathlib.Path) -> None:
  for suffix in _PARTS:  # GDAL would wait for a pipe.
    for part in (path.with_suffix(suffix), path.with_suffix(suffix.upper())):
      if part.exists() and not (part.is_file() or part.is_dir()):
        raise ValueError(f"{part.name} beside it is not a regular file")
  for suffix in (".prj", ".PRJ"):
    file = path.with_suffix(suffix)
    if not file.exists():
      continue
    if not file.is_file() or file.stat().st_size > _MAX_PRJ_BYTES:
      raise ValueError(f"{file.name} is no CRS")
    text = file.read_bytes().decode("latin-1")
    # GDAL joins the lines, each of which ends at a zero.
    joined = "".join(line.partition("\0")[0] for line in re.split(r"[\r\n]", text))
    check_crs(text)
    check_crs(joined)

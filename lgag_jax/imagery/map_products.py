"""Recognises what lgag has written, so that a glob over an output does not map its maps."""

import functools
import json
import pathlib
import stat

TAG = "LGAG_PRODUCT"  # Of a raster: its folder, which gdal_translate and gdalwarp keep in copies.
_PAGES = ("predictions.csv", "report.html", "lock")
PRODUCT_FOLDERS = (
  "mask", "probability", "polygons", "unsplit", "points", "density", "gate", "overlay", "image",
  "image_before",
)
_AREA_PICTURE, _AREA_RECORD = "quick_look.png", "manifest.json"  # Of --mode=map.
_EVALUATION = "eval"
_REVIEW = "review"
_RECORDS = "scenes"
MAX_STEM_BYTES = 200  # File systems take names of 255; suffixes and side files need the rest.
_MAX_RECORD = 256 << 20  # Bytes, as of other texts of an output.


def is_product(path: pathlib.Path) -> bool:
  """Returns whether a file lies in an output of mapping, and a record there names it."""
  path = path.absolute()
  folder, output = path.parent, path.parent.parent
  if folder.name in PRODUCT_FOLDERS:
    return f"{folder.name}/{path.name}" in recorded_files(output / _RECORDS / f"{path.stem}.json")
  if folder.name == _EVALUATION:
    is_table = path.name in ("scenes.json", "scenes.md") and is_output(output)
    return is_table or bool(recorded_files(output / _RECORDS / f"{path.stem}.json"))
  if folder.name == _REVIEW:
    return is_output(output)
  if folder.name == _RECORDS:
    return path.suffix == ".json" and bool(recorded_files(path))
  if path.name == _AREA_PICTURE:
    return path.name in recorded_files(folder / _AREA_RECORD)
  return path.name in _PAGES and is_output(folder)


def scene_name(scene: pathlib.Path) -> str:
  """Returns the stem of a scene's map, if it fits and no other map has it."""
  return f"{scene.stem}_{scene.suffix[1:]}"


def is_output(folder: pathlib.Path) -> bool:
  """Returns whether a folder holds the record of a map."""
  return any(recorded_files(path) for path in (folder / _RECORDS).glob("*.json"))


def recorded_files(record: pathlib.Path) -> frozenset[str]:
  """Returns the files of a map by its record; none if the file is missing or no record."""
  try:
    status = record.stat()
  except OSError:
    return frozenset()
  if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_RECORD:
    return frozenset()
  return _read_record(record, status.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _read_record(record: pathlib.Path, modified: int) -> frozenset[str]:
  """Reads the names that a map or an area records; `modified` tells versions of the file apart."""
  del modified
  try:
    content = json.loads(record.read_text(encoding="utf-8"))
    own = content["stem"] == record.stem if "stem" in content else content["made_by"] == "lgag_jax"
    return frozenset(content["files"]) if own else frozenset()
  except (OSError, ValueError, LookupError, TypeError, RecursionError):
    return frozenset()

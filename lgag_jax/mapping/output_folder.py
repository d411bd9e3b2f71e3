"""The files of an output: which of them lgag wrote, and how a scene's new files replace the older ones.

The record of a map, scenes/<stem>.json, lists its files. What no record lists belongs to the user.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import pathlib
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence

from lgag_jax.geo import sqlite_files
from lgag_jax.imagery import map_products
from lgag_jax.imagery.map_products import PRODUCT_FOLDERS
from lgag_jax.runtime import files

_LOG = logging.getLogger(__name__)

HALF_REPLACED = "is not whole, since a run was killed while it replaced it: map the scene again"
_SUFFIXES = (".tif", ".png", ".jpg", ".gpkg", ".geojson", ".parquet", ".qml", ".npz")
_PAGES = ("report.html", "predictions.csv")
_EVALUATION = ("eval/scenes.json", "eval/scenes.md")
_UNFINISHED = UNFINISHED_EVALUATION = ".unfinished"  # In an output, and in its folder eval.
_WORKDIR_FILES = ("checkpoints", "examples.json", "metrics.jsonl", "model.safetensors")
_REMEDY = "Move it, or use another --output."


def record_path(output: pathlib.Path, stem: str) -> pathlib.Path:
  """Returns the record of a map."""
  return output / "scenes" / f"{stem}.json"


def working_folder(output: pathlib.Path, stem: str) -> pathlib.Path:
  """Returns the folder of a map's rows and new files until they are whole."""
  return output / _UNFINISHED / stem


def read_record(output: pathlib.Path, stem: str) -> dict:
  """Returns the record of a map; {} if there is none, or the file is no record."""
  with contextlib.suppress(OSError, ValueError):
    content = files.read_json(record_path(output, stem))
    if isinstance(content, dict) and content.get("stem") == stem:
      return content
  return {}


def read_figures(output: pathlib.Path, classes: tuple[str, ...]) -> list[dict]:
  """Returns the records of all whole maps of these classes, those of earlier runs included.

  Logs which maps are not whole. Raises ValueError naming a record that is damaged.
  """
  figures = []
  for path in sorted((output / "scenes").glob("*.json")):
    content = files.read_json(path)  # A damaged one is an error, not a map less.
    if isinstance(content, dict) and content.get("stem") == path.stem and "classes" in content:
      if is_half_replaced(content):
        _LOG.warning("%s: the map of %s %s.", output, content.get("file", path.stem), HALF_REPLACED)
        continue
      if not isinstance(content["classes"], dict) or tuple(content["classes"]) == classes:
        _check_record(path, content)
        figures.append(content)
  return figures


def require_flags(
  output: pathlib.Path, scenes: Iterable[pathlib.Path], flags: Iterable[str]
) -> None:
  """Raises ValueError if a map of one of `scenes` was made with flags whose names `flags` leave out.

  It would be mapped again without them, and the new map would replace it.
  """
  paths, given = {os.path.abspath(path) for path in scenes}, {flag.split("=")[0] for flag in flags}
  for record in (read_record(output, path.stem) for path in (output / "scenes").glob("*.json")):
    words = record.get("flags", ()) if record.get("path") in paths else ()
    if left_out := [str(word) for word in words if str(word).split("=")[0] not in given]:
      raise ValueError(
        f"{output} holds a map of {record['path']} that was made with {shlex.join(left_out)}. Give the "
        "same flags to evaluate it, or another --output to map the scene without them."
      )


def is_half_replaced(record: dict) -> bool:
  """Returns whether a run was killed while it replaced the files of a map, which are of two maps."""
  return record.get("key") == ""


def _check_record(path: pathlib.Path, record: dict) -> None:
  """Raises ValueError if a record of a map does not hold what its table and its page show."""
  try:
    if not isinstance(record["file"], str) or not isinstance(record.get("path", ""), str):
      raise TypeError("its file is no name")
    for name in ("no_data_share", "valid_pixels", "height", "width"):
      float(record[name])
    for values in record["classes"].values():
      for name in ("probability", "share", "pixels"):
        float(values[name])
      if values["landslides"] is not None:
        int(values["landslides"])
      sum(values["areas_m2"] or ())
  except (TypeError, ValueError, LookupError, AttributeError) as error:
    raise ValueError(
      f"{path} is damaged: {error!r:.100}. Delete it, and map its scene again (--mode=predict)."
    ) from error


def prepare(output: pathlib.Path, products: Mapping[str, Sequence[str]]) -> None:
  """Removes what killed runs left, if an output only has files of lgag where it will write.

  `products` lists the files of each map by its stem. Raises ValueError naming a file of another origin,
  a folder that is a symbolic link, since files are removed in these folders, or a link among the files
  of an unfinished map, since a run that resumes writes into them.
  """
  folders = (_UNFINISHED, *PRODUCT_FOLDERS, "scenes", "eval", f"eval/{UNFINISHED_EVALUATION}")
  require_plain_folders(output, folders)
  for stem in products:
    _require_plain_tree(working_folder(output, stem))
  if not map_products.is_output(output) and not (output / _UNFINISHED).exists():
    _require_none(output, _PAGES)
  for stem, names in products.items():
    record = record_path(output, stem)
    if os.path.lexists(record) and not read_record(output, stem):
      raise _foreign(record)
    own = set(map_products.recorded_files(record))
    if working_folder(output, stem).is_dir():  # A run was killed when it put them in place.
      own.update(names)
    _require_none(output, [name for name in names if name not in own])
  files.remove_partials(output, *(output / name for name in (*PRODUCT_FOLDERS, "scenes", "eval")))


def require_plain_folders(output: pathlib.Path, names: Iterable[str]) -> None:
  """Raises ValueError naming a folder of an output that is a symbolic link, a pipe or a device.

  Files are written, replaced and removed in these folders, so a link would change those of another.
  """
  for name in names:
    files.require_plain(output / name)


def _require_plain_tree(folder: pathlib.Path) -> None:
  files.require_plain(folder)
  for place, folders, names in os.walk(folder):  # It does not follow links.
    for name in (*folders, *names):
      files.require_plain(pathlib.Path(place, name))


def require_usable(output: pathlib.Path) -> None:
  """Raises ValueError if an output is a workdir or a model directory, or its name is not UTF-8."""
  files.require_utf8(output, f"--output={output}")
  if (output / "config.json").exists() and any((output / name).exists() for name in _WORKDIR_FILES):
    raise ValueError(
      f"--output={output} is a workdir, whose report.html would be replaced: use a new folder, such as "
      f"{output / 'maps'}."
    )


def prepare_evaluation(output: pathlib.Path, stems: Iterable[str]) -> None:
  """Records that the pictures of an evaluation are lgag's; raises ValueError naming one that is not."""
  evaluation = {}
  with contextlib.suppress(OSError, ValueError):
    evaluation = files.read_json(output / _EVALUATION[0])
  try:
    evaluated = {scene["stem"] for scene in evaluation["scenes"]}
  except (LookupError, TypeError):
    evaluated = set()
    _require_none(output, _EVALUATION)
  for stem in stems:
    record = read_record(output, stem)
    picture = f"eval/{stem}.png"
    if record.get("picture") != picture and stem not in evaluated:
      _require_none(output, [picture])
    files.write_json(record_path(output, stem), record | {"picture": picture})


def publish(
  output: pathlib.Path, stem: str, staged: pathlib.Path, names: Sequence[str], figures: dict
) -> None:
  """Puts the whole files of a map, `names` in `staged`, in their places, with `figures` as its record.

  The older record stays, as one of an unfinished map, until the new one replaces it.
  """
  old, path = read_record(output, stem), record_path(output, stem)
  record = figures | {"files": list(names)}
  if "picture" in old:
    record["picture"] = old["picture"]
  files.write_json(staged / path.name, record)  # While nothing has changed: the disk may be full.
  if old:
    files.write_json(path, old | {"key": ""})
  path.parent.mkdir(exist_ok=True)
  for name in names:
    (output / name).parent.mkdir(exist_ok=True)
    if name.endswith(".gpkg"):
      sqlite_files.remove_side_files(output / name)
    (staged / name).rename(output / name)
  for folder, suffix in itertools.product(PRODUCT_FOLDERS, _SUFFIXES):
    name = f"{folder}/{stem}{suffix}"
    if name in old.get("files", ()) and name not in names:
      (output / name).unlink(missing_ok=True)
  (staged / path.name).rename(path)
  shutil.rmtree(working_folder(output, stem))


def digest(scenes: Sequence[dict], skipped: dict[str, str]) -> str:
  """Returns a digest of maps, by their records, and of the images that could not be mapped."""
  keys = sorted([scene["stem"], scene.get("key")] for scene in scenes)
  return hashlib.sha256(json.dumps([keys, skipped], sort_keys=True).encode()).hexdigest()[:32]


def is_page_current(output: pathlib.Path, maps_digest: str) -> bool:
  """Returns whether report.html shows the maps of this digest; earlier releases wrote none into it."""
  page = output / "report.html"
  try:
    with files.open_regular(page) as file:
      head = file.read(2000)
    written = page.stat().st_mtime_ns
    newest = max(path.stat().st_mtime_ns for path in (output / "scenes").glob("*.json"))
  except (OSError, ValueError):
    return False
  if b'name="maps"' not in head:
    return written >= newest
  return f'content="{maps_digest}"'.encode() in head


def _require_none(output: pathlib.Path, names: Iterable[str]) -> None:
  for name in names:
    if os.path.lexists(output / name):
      raise _foreign(output / name)


def _foreign(path: pathlib.Path) -> ValueError:
  return ValueError(f"{path} would be replaced, but lgag has not written it there. {_REMEDY}")

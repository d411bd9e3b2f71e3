"""Names the files of maps. A scene keeps its name in an output; two scenes never share one."""

import contextlib
import hashlib
import logging
import os
import pathlib

from lgag_jax.geo.grid import Grid
from lgag_jax.imagery.map_products import MAX_STEM_BYTES, scene_name
from lgag_jax.runtime import files

_LOG = logging.getLogger(__name__)

_GRID_FIELDS = ("height", "width", "crs", "gsd")
_RECORD_FIELDS = ("key", "file", "path", *_GRID_FIELDS)


def source_path(path: pathlib.Path) -> str:
  """Returns the absolute path that identifies a scene in the records of an output."""
  return os.path.abspath(path)


def grid_figures(grid: Grid) -> dict:
  """Returns what the record of a map says of the scene's grid."""
  crs = grid.crs.to_string() if grid.crs else None
  return {"height": grid.height, "width": grid.width, "gsd": grid.gsd(), "crs": crs}


class MapNames:
  """The stems of the maps in an output: those of earlier runs, and those of this one."""

  def __init__(self, output: pathlib.Path):
    self._output = output
    self._records = {path.stem: _record(path) for path in sorted((output / "scenes").glob("*.json"))}
    self._stems = {
      record["path"]: stem for stem, record in self._records.items() if "path" in record
    }

  def stem(self, path: pathlib.Path, grid: Grid, key: str) -> str:
    """Returns the stem of a scene's files; `key` identifies its map (`ScenePlan.key`).

    A map of the same path keeps its name. If a map of another path has the name, the stem ends in a
    digest of the path.
    """
    source = source_path(path)
    if source not in self._stems:
      self._stems[source] = self._earlier_stem(key) or self._new_stem(path, grid)
    stem = self._stems[source]
    self._records[stem] = {"path": source, "key": key}
    return stem

  def _earlier_stem(self, key: str) -> str | None:
    """Returns the stem of the same map in an output of a release that did not record paths."""
    same = (stem for stem, record in self._records.items() if record.get("key") == key)
    return next((stem for stem in same if "path" not in self._records[stem]), None)

  def _new_stem(self, path: pathlib.Path, grid: Grid) -> str:
    name = scene_name(path)
    stem = files.fitting_name(name, MAX_STEM_BYTES, source_path(path))
    record = self._records.get(stem)
    if record is None or ("path" not in record and _may_be_of(record, path, grid)):
      return stem
    _LOG.info(
      "%s already has a map of another %s (%s). The path column of predictions.csv tells them apart.",
      self._output, path.name, record.get("path", "from an earlier release"),
    )
    digest = hashlib.sha256(os.fsencode(source_path(path))).hexdigest()[:16]
    return f"{files.fitting_name(name, MAX_STEM_BYTES - 17, name)}_{digest}"


def _record(path: pathlib.Path) -> dict:
  """Returns the parts of a map's record that identify its scene; {} if the record is damaged."""
  with contextlib.suppress(OSError, ValueError):
    content = files.read_json(path)
    if isinstance(content, dict) and isinstance(content.get("path", ""), str):
      return {name: content[name] for name in _RECORD_FIELDS if name in content}
  return {}


def _may_be_of(record: dict, path: pathlib.Path, grid: Grid) -> bool:
  """Returns whether a record without a path has a scene's name and grid, or says nothing of them."""
  figures = {"file": path.name, **grid_figures(grid)}
  return all(record.get(name, value) == value for name, value in figures.items())

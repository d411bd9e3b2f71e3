"""Reads what --mode=predict wrote: the polygons of each map, its grid and where its scene was."""

import dataclasses
import logging
import math
import pathlib
import shlex
import unicodedata
from collections.abc import Sequence
from typing import Any

import pyogrio
import pyogrio.raw
import shapely

from lgag_jax.geo import layer_files
from lgag_jax.geo.grid import Grid
from lgag_jax.mapping import gate_windows, output_folder, polygons, preview, rasters, vectors
from lgag_jax.options import mapping
from lgag_jax.reviewing import outlines
from lgag_jax.reviewing.decisions import Mapped
from lgag_jax.runtime import files

_LOG = logging.getLogger(__name__)

_COLUMNS = ("id", "class", "area_m2", "mean_probability")
_MIN_PIXELS = 16  # Of a polygon of a map without a georeference, which has no polygons on disk.


@dataclasses.dataclass(frozen=True)
class SceneMap:
  """The map of a scene in an output folder."""

  output: pathlib.Path
  stem: str
  key: str  # Differs for another map.
  file: str  # The scene's file name.
  scene: pathlib.Path  # Where it was when it was mapped.
  grid: Grid
  classes: tuple[str, ...]
  polygons: tuple[Mapped, ...]
  probability: pathlib.Path
  thresholds: tuple[float | None, ...]  # By class; None for a map of a release that recorded none.
  gate: float | None  # None for a network without a gate, or a map of a release that kept no windows.
  workdir: str  # Of the network, "" if unknown.
  flags: tuple[str, ...]  # That the map was made with.

  def command(self, thresholds: Sequence[float], gate: float | None) -> str:
    """Returns the command that maps the scene at other thresholds, or another gate if one is given."""
    changed = {"--threshold=": ",".join(f"{level:g}" for level in thresholds)}
    if gate is not None:
      changed["--gate="] = f"{gate:g}"
    workdir, scene = _plain(self.workdir) or "WORKDIR", _plain(str(self.scene)) or "SCENE"
    return shlex.join([
      "lgag", "--mode=predict", f"--workdir={workdir}", f"--input={scene}",
      *(flag for flag in self.flags if not flag.startswith((*changed,))),
      *(name + value for name, value in changed.items()), f"--output={self.output}",
    ])

  def gate_at(self, value: float) -> preview.Gate | None:
    """Returns a gate to preview, None for the map's own; raises ValueError if the map has none."""
    if self.gate is None:
      raise ValueError(f"The map of {self.file} has no gate to move.")
    if value == self.gate:
      return None
    shape = gate_windows.cell_shape(self.grid.height, self.grid.width, len(self.classes))
    path = self.output / gate_windows.file_name(self.stem)
    windows = gate_windows.read(path, shape, len(self.classes))
    return preview.Gate(windows, self.gate, value)

  @property
  def overlay(self) -> pathlib.Path:
    return self.output / "overlay" / f"{self.stem}.png"


def read(output: pathlib.Path) -> list[SceneMap]:
  """Returns the maps in an output of --mode=predict; raises ValueError or OSError naming a fault."""
  records = sorted((output / "scenes").glob("*.json"))
  if not records:
    raise FileNotFoundError(
      f"--input={output} holds no map: name the folder that --mode=predict wrote (--output)."
    )
  return [_read_map(output, path.stem, files.read_json(path)) for path in records]


def _read_map(output: pathlib.Path, stem: str, record: dict[str, Any]) -> SceneMap:
  try:
    (mask,) = [output / name for name in record["files"] if name in _names("mask", stem)]
    (scores,) = [output / name for name in record["files"] if name in _names("probability", stem)]
    classes, name = tuple(record["classes"]), str(record["file"])
    scene = pathlib.Path(record.get("path") or name)
    key = str(record["key"])
    thresholds = tuple(_share("threshold", record["classes"][c].get("threshold")) for c in classes)
    kept = gate_windows.file_name(stem)
    has_gate = kept in record["files"] and (output / kept).is_file()
    gate = _share("gate", record["gate"]) if has_gate else None
    workdir, words = str(record.get("workdir", "")), list(map(str, record.get("flags", ())))
  except (LookupError, TypeError, ValueError, AttributeError) as error:
    raise ValueError(
      f"{output}/scenes/{stem}.json is damaged: {error}. Make the map again (--mode=predict)."
    ) from error
  flags = tuple(mapping.checked_flags(words))
  if len(flags) < len(words):
    _LOG.warning(
      "%s/scenes/%s.json holds flags that --mode=predict does not take: the command on the page maps "
      "with %s only.", output, stem, shlex.join(flags) or "default options",
    )
  if output_folder.is_half_replaced(record):
    raise ValueError(f"{output}: the map of {name} {output_folder.HALF_REPLACED} (--mode=predict).")
  with (
    rasters.open_map_raster(mask, 1) as opened,
    rasters.open_map_raster(scores, len(classes)) as probability,
  ):
    grid = opened.grid
    path = output / "polygons" / f"{stem}.gpkg"
    if path.exists() or f"polygons/{path.name}" in record["files"]:
      found = _read_polygons(path, grid)
    else:
      found = tuple(
        Mapped(p.id, p.class_name, p.geometry, p.mean_probability, p.area_m2)
        for p in polygons.trace(opened, probability, classes, name, min_area=_MIN_PIXELS)
      )
  return SceneMap(
    output, stem, key, name, scene, grid, classes, found, scores, thresholds, gate, workdir,
    flags)


def _plain(text: str) -> str:
  """Returns a text of a record; "" if it has control characters, which a terminal may act on."""
  return "" if any(unicodedata.category(letter) == "Cc" for letter in text) else text


def _share(name: str, value: Any) -> float | None:
  if value is not None and not 0 <= float(value) <= 1:  # Not a NaN, either.
    raise ValueError(f"the {name} {value!r} does not lie in 0 to 1")
  return None if value is None else float(value)


def _names(folder: str, stem: str) -> tuple[str, str]:
  return f"{folder}/{stem}.tif", f"{folder}/{stem}.png"


def _read_polygons(path: pathlib.Path, grid: Grid) -> tuple[Mapped, ...]:
  if not path.exists():
    raise FileNotFoundError(f"{path} is missing: restore it, or make the map again (--mode=predict).")
  try:
    layer_files.check_geopackage(path)
    if pyogrio.read_info(path, layer=vectors.LAYER)["driver"] != "GPKG":
      raise ValueError("it is no GeoPackage")
    meta, _, wkb, data = pyogrio.raw.read(path, layer=vectors.LAYER, columns=_COLUMNS)
    columns = dict(zip(meta["fields"].tolist(), data, strict=True))
    shapes = shapely.from_wkb(wkb)
    present = ~shapely.is_missing(shapes)
    shapes[present] = outlines.usable(shapes[present], grid)
    values = [columns[name].tolist() for name in _COLUMNS]
    return tuple(
      Mapped(int(number), str(name), geometry, _or_none(mean), _or_none(area))
      for number, name, area, mean, geometry in zip(*values, shapes, strict=True)
      if geometry is not None
    )
  except (
    RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, shapely.GEOSException
  ) as error:
    raise ValueError(
      f"{path} cannot be read: {error}. Make the map again (--mode=predict --schema=plain)."
    ) from error


def _or_none(value: float | None) -> float | None:
  return None if value is None or not math.isfinite(value) else float(value)

"""The decisions of a review: a log that is only ever appended to, and synced to disk.

Each line is JSON and holds all that was decided on a feature: a polygon of the map, or a drawing.
The last line of a feature counts; an empty decision takes the earlier ones back. The first line of a
mapped polygon also holds the polygon, since a later map may not have it any more.
"""

import dataclasses
import datetime
import hashlib
import json
import logging
import math
import pathlib
import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

from lgag_jax.geo import scene_ground
from lgag_jax.geo.scene_ground import SceneGround
from lgag_jax.reviewing import edited_files, outlines
from lgag_jax.runtime import files
from lgag_jax.runtime.appended import AppendedFile

_LOG = logging.getLogger(__name__)

_MAX_LINES = 1 << 18
_BEGIN = b'{"feature": "'  # Of every line.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # A zero ends a text in a GeoPackage.


@dataclasses.dataclass(frozen=True)
class Mapped:
  """A polygon as it was mapped, in the scene's coordinates."""

  number: int  # In its map.
  class_name: str
  geometry: shapely.Geometry
  mean_probability: float | None
  area_m2: float | None

  @property
  def feature(self) -> str:
    """Returns a name that a polygon of another map only has if it is the same."""
    content = self.class_name.encode(errors="backslashreplace") + shapely.to_wkb(self.geometry)
    return hashlib.sha256(content).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Decision:
  """What was decided on a feature."""

  feature: str
  decision: str
  class_name: str
  comment: str
  geometry: shapely.Geometry | None  # Of what was drawn or redrawn, in the scene's coordinates.
  time: str = ""
  scene_grid: str = ""  # Of the scene when it was decided (`SceneGround.text`).


class DecisionLog:
  """The decisions on the map of a scene, for several threads."""

  def __init__(self, path: pathlib.Path, ground: SceneGround):
    """Reads a log, and repairs a torn last line.

    Raises ValueError naming a damaged line, or a log of decisions on another ground.
    """
    self.path, self._lock, self.ground = path, threading.Lock(), ground
    self._latest: dict[str, Decision] = {}
    self._mapped: dict[str, Mapped] = {}
    files.require_plain(path)
    if path.exists():
      _repair(path)
      lines = files.read_regular(path).splitlines()
      if len(lines) > _MAX_LINES:
        raise ValueError(f"{path} has {len(lines)} lines, more than {_MAX_LINES}. Restore the file.")
      for number, line in enumerate(lines, 1):
        try:
          self._take(json.loads(line))
        except (
          ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError,
          shapely.GEOSException,
        ) as error:
          raise ValueError(
            f"{path}, line {number} is damaged: {error}. Restore the file, or remove the line."
          ) from error
      self._check_ground()
      self._check_outlines()
    else:
      path.parent.mkdir(parents=True, exist_ok=True)
      files.write_text(path, "")
    self._file = AppendedFile(path, path.parent / edited_files.FOLDER, self._lines)

  def state(self) -> tuple[dict[str, Decision], dict[str, Mapped], int]:
    """Returns the decisions and comments that count, all mapped polygons of the log, and its length."""
    with self._lock:
      latest = {feature: d for feature, d in self._latest.items() if d.decision or d.comment}
      return latest, dict(self._mapped), self.path.stat().st_size

  def give(self, given: Sequence[tuple[Decision, Mapped | None]]) -> None:
    """Appends decisions, which are on disk when it returns; raises OSError, and keeps none of them."""
    if not given:
      return
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    with self._lock:
      lines, known = [], set(self._mapped)
      for decision, mapped in given:
        decision = dataclasses.replace(decision, time=now, scene_grid=self.ground.text)
        is_new = mapped is not None and decision.feature not in known
        lines.append(_line(decision, mapped if is_new else None))
        known.add(decision.feature)
      self._file.append(map(_text, lines))
      for line in lines:
        self._take(line)

  def _lines(self) -> list[str]:
    return [_text(_line(d, self._mapped.get(feature))) for feature, d in self._latest.items()]

  def _check_ground(self) -> None:
    grids = {decision.scene_grid for decision in self.state()[0].values()}
    for text in sorted(grids):
      try:
        difference = self.ground.difference(text)
      except ValueError as error:
        raise ValueError(
          f"{self.path} holds {text!r} as {scene_ground.COLUMN}, which is no grid: restore the file."
        ) from error
      if difference:
        raise ValueError(
          f"{self.path} holds decisions on another {self.ground.scene}: {difference}. Map this scene "
          "into another folder (--mode=predict --output) and review that map, or restore the scene "
          "that was reviewed. If it shows the same at the same coordinates, remove every "
          f"{scene_ground.COLUMN} from the log."
        )

  def _check_outlines(self) -> None:
    """Repairs invalid outlines; raises ValueError naming the feature of one that cannot be used."""
    outlined: dict[str, Any]
    for outlined in (self._latest, self._mapped):
      for feature, item in outlined.items():
        if item.geometry is None:
          continue
        try:
          (shape,) = outlines.usable(np.array([item.geometry], object), self.ground.grid)
        except (ValueError, shapely.GEOSException) as error:
          raise ValueError(
            f"{self.path}: the outline of the feature {feature[:50]} cannot be used: {error}. Restore "
            "the file, or remove its line."
          ) from error
        if shape is not item.geometry:
          outlined[feature] = dataclasses.replace(item, geometry=shape)

  def _take(self, line: dict[str, Any]) -> None:
    outline = line["geometry"]
    feature, kind, class_name, comment, time = (
      clean(line[name]) for name in ("feature", "decision", "class", "comment", "time"))
    decision = Decision(
      feature, kind, class_name, comment, outlines.from_wkt(outline) if outline else None, time,
      clean(line.get(scene_ground.COLUMN, "")),
    )
    if original := line.get("original"):
      self._mapped[feature] = Mapped(
        int(original["number"]), clean(original["class"]),
        outlines.from_wkt(original["geometry"]), _number(original["mean_probability"]),
        _number(original["area_m2"]),
      )
    self._latest[feature] = decision


def clean(text: object) -> str:
  """Returns a text as every GeoPackage holds it: control characters and half characters are escaped."""
  valid = str(text).encode(errors="backslashreplace").decode()
  return CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", valid)


def _number(value: Any) -> float | None:
  if value is not None and not math.isfinite(value):
    raise ValueError(f"{value!r} is not a number")
  return value


def _line(decision: Decision, mapped: Mapped | None) -> dict[str, Any]:
  shape = decision.geometry
  line: dict[str, Any] = {
    "feature": decision.feature, "decision": decision.decision, "class": decision.class_name,
    "comment": decision.comment, "geometry": None if shape is None else _wkt(shape),
    "time": decision.time, scene_ground.COLUMN: decision.scene_grid,
  }
  if mapped is not None:
    line["original"] = {
      "number": mapped.number, "class": mapped.class_name, "mean_probability": mapped.mean_probability,
      "area_m2": mapped.area_m2, "geometry": _wkt(mapped.geometry),
    }
  return line


def _text(line: dict[str, Any]) -> str:
  return json.dumps(line, allow_nan=False)


def _wkt(geometry: shapely.Geometry) -> str:
  return shapely.to_wkt(geometry, rounding_precision=-1)  # Every digit.


def _repair(path: pathlib.Path) -> None:
  """Ends a last line that a killed server has torn: it is completed if it is whole, else removed."""
  content = files.read_regular(path)
  if not content or content.endswith(b"\n"):
    return
  end = content.rfind(b"\n") + 1
  if not _BEGIN.startswith(content[end:][: len(_BEGIN)]):  # Not lgag's: reading names it.
    return
  try:
    json.loads(content[end:])
  except ValueError:
    _LOG.warning("%s: removed its last line, which was not written whole.", path)
    with path.open("r+b") as file:
      file.truncate(end)
  else:
    files.append_line(path, "", sync=True)

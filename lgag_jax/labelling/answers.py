"""The answers that a person gives: a table that is only ever appended to, and synced to disk.

The last row of a tile counts. An empty label takes the answer back. `tiling.labels` reads the table.
"""

import csv
import dataclasses
import datetime
import io
import logging
import pathlib
import threading
from collections.abc import Iterable, Mapping

from lgag_jax.geo import scene_ground
from lgag_jax.geo.scene_ground import SceneGround
from lgag_jax.imagery import tables
from lgag_jax.labelling.own_files import DISPUTES
from lgag_jax.options.tiling import Settings
from lgag_jax.runtime import files
from lgag_jax.tiling import tile_labels

_LOG = logging.getLogger(__name__)

_EARLIER_COLUMNS = ("scene", "row", "col", "label", "tile_size", "time")
COLUMNS = (*_EARLIER_COLUMNS[:5], scene_ground.COLUMN, "time")
_HEADER = ",".join(COLUMNS)

Key = tuple[str, int, int]  # The scene's file name, row and column.


@dataclasses.dataclass(frozen=True)
class Answer:
  """The label of a tile and when it was given; "" if it was taken back."""

  label: str
  tile_size: int
  time: str
  scene_grid: str = ""  # Of the scene when the answer was given (`SceneGround.text`).


@dataclasses.dataclass(frozen=True)
class Merged:
  """What came of merging another table: new answers, and tiles on which the two disagree."""

  path: str
  added: int
  agreed: int
  disputed: tuple[tuple[Key, str, str], ...]  # The tile, the label here and the label there.


class Answers:
  """The answers of an output folder, for several threads."""

  def __init__(
    self, folder: pathlib.Path, settings: Settings, grounds: Mapping[str, SceneGround] | None = None
  ):
    """Reads the table of a folder, and repairs it; raises ValueError naming what is wrong in it.

    `grounds` has the scenes by file name: answers to tiles of another ground are refused.
    """
    self.path = folder / pathlib.Path(settings.labels).name
    self._settings, self._lock, self._grounds = settings, threading.Lock(), grounds or {}
    self._latest: dict[Key, Answer] = {}
    if self.path.exists():
      _repair(self.path)
      self._latest = read(self.path, settings, self._grounds)
    else:
      files.write_text(self.path, _HEADER + "\n")

  @property
  def latest(self) -> dict[Key, Answer]:
    """Returns the answer of each tile that has one."""
    with self._lock:
      return {key: answer for key, answer in self._latest.items() if answer.label}

  def keys(self) -> set[Key]:
    """Returns the tiles that have a row, also without an answer."""
    with self._lock:
      return set(self._latest)

  @property
  def tile_size(self) -> int:
    """Returns the side of the answered tiles, 0 if there are none; raises ValueError for several."""
    sizes = {answer.tile_size for answer in self.latest.values()}
    if len(sizes) > 1:
      raise ValueError(
        f"{self.path} holds answers for tiles of {' and '.join(map(str, sorted(sizes)))} pixels: keep "
        "those of one size."
      )
    return next(iter(sizes), 0)

  def give(self, labels_by_tile: Iterable[tuple[Key, str]], tile_size: int) -> None:
    """Appends answers, which are on disk when it returns; raises OSError, and keeps none of them."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    given = {
      key: Answer(label, tile_size, now, ground.text if (ground := self._grounds.get(key[0])) else "")
      for key, label in labels_by_tile
    }
    with self._lock:
      files.append_line(self.path, "\n".join(map(_line, given.items())), sync=True)
      self._latest |= given

  def clear(self) -> None:
    """Empties a table in which every answer was taken back."""
    with self._lock:
      if any(answer.label for answer in self._latest.values()):
        raise ValueError(f"{self.path} holds answers.")
      files.write_text(self.path, _HEADER + "\n")
      self._latest = {}

  def merge(self, path: pathlib.Path, unknown: str) -> Merged:
    """Adds the answers of another person. Where two certain answers differ, none of them counts.

    The disagreements are appended to disagreements.csv. An uncertain answer gives way to a certain one.
    """
    if not path.is_file():
      raise FileNotFoundError(f"--merge={path}: no such file.")
    read_answers = read(path, self._settings, self._grounds)
    theirs = {key: answer for key, answer in read_answers.items() if answer.label}
    sizes = {answer.tile_size for answer in theirs.values()} | ({self.tile_size} - {0})
    if len(sizes) > 1:
      raise ValueError(
        f"--merge={path} holds answers for tiles of {' and '.join(map(str, sorted(sizes)))} pixels, "
        f"together with {self.path}: only answers for tiles of one size can be merged."
      )
    own, earlier = self.latest, self._disputes()
    disputes, added, agreed = [], {}, 0
    for key, answer in theirs.items():
      mine, label = own[key].label if key in own else "", answer.label
      if mine == label or (label == unknown and mine):
        agreed += 1
      elif not mine or (mine == unknown and all(key != other for other, *_ in earlier)):
        added[key] = label
      elif mine != unknown and (key, mine, label) not in earlier:  # Not settled after an earlier merge.
        disputes.append((key, mine, label))
    if disputes:
      self._write_disputes(disputes, path)
    if added or disputes:
      self.give([*added.items(), *((key, unknown) for key, *_ in disputes)], min(sizes))
    return Merged(str(path), len(added), agreed, tuple(disputes))

  def disputed(self, unknown: str) -> set[Key]:
    """Returns the tiles on which people disagree and that nobody has answered since."""
    latest = self.latest
    return {key for key, *_ in self._disputes() if key in latest and latest[key].label == unknown}

  def _disputes(self) -> list[tuple[Key, str, str]]:
    path = self.path.with_name(DISPUTES)
    if not path.exists():
      return []
    rows = tables.read_table(path, ("scene", "row", "col", "label", "other_label"))
    return [
      ((line["scene"], int(line["row"]), int(line["col"])), line["label"], line["other_label"])
      for _, line in rows
    ]

  def _write_disputes(self, disputed: list[tuple[Key, str, str]], source: pathlib.Path) -> None:
    path = self.path.with_name(DISPUTES)
    if not path.exists():
      files.write_text(path, "scene,row,col,label,other_label,other_table\n")
    lines = [_csv((*key, mine, other, str(source))) for key, mine, other in disputed]
    files.append_line(path, "\n".join(lines), sync=True)


def read(
  path: pathlib.Path, settings: Settings, grounds: Mapping[str, SceneGround]
) -> dict[Key, Answer]:
  """Reads the last answer of each tile; raises ValueError naming the table and the row."""
  latest: dict[Key, Answer] = {}
  places: dict[Key, str] = {}  # In the table, for messages.
  for number, line in tables.read_table(path, COLUMNS[:5]):
    where = f"{path}, row {number}"
    try:
      row, col, side = (int(line[name]) for name in ("row", "col", "tile_size"))
    except ValueError as error:
      raise ValueError(f"{where} needs whole numbers in row, col and tile_size: {line}.") from error
    label = tile_labels.read_label(where, line["label"], settings) if line["label"] else ""
    key = line["scene"], row, col
    grid = line.get(scene_ground.COLUMN, "")
    latest[key], places[key] = Answer(label, side, line.get("time", ""), grid), where
  for key, answer in latest.items():
    if answer.label and (ground := grounds.get(key[0])):
      tile_labels.check_ground(places[key], answer.scene_grid, ground)
  return latest


def _repair(path: pathlib.Path) -> None:
  """Brings a table into the form that rows are appended to: a killed server may have torn its last row.

  A table that a spreadsheet or an earlier release wrote is kept beside it as it was.
  """
  content = files.read_regular(path)
  for columns in (COLUMNS, _EARLIER_COLUMNS):
    if content.startswith(f"{','.join(columns)}\n".encode()):
      content = _end_last_row(path, content, len(columns))
  if content.startswith(f"{_HEADER}\n".encode()):
    return
  if not content.strip():
    files.write_text(path, _HEADER + "\n")
    return
  rows = tables.read_table(path, COLUMNS[:5])
  kept, number = path.with_suffix(".original.csv"), 1
  while kept.exists():  # Of an earlier time.
    kept, number = path.with_suffix(f".original_{number}.csv"), number + 1
  _LOG.warning("%s was written by another program or release: kept as %s, and rewritten.", path, kept)
  with files.atomic_path(kept) as partial:  # First: a killed server must not lose it.
    partial.write_bytes(content)
  files.write_text(path, "\n".join([
    _HEADER, *(_csv([line.get(name, "") for name in COLUMNS]) for _, line in rows)]) + "\n")


def _end_last_row(path: pathlib.Path, content: bytes, columns: int) -> bytes:
  """Completes the last row if it is whole, else removes it; returns what the table holds then."""
  if content.endswith(b"\n"):
    return content
  end = content.rfind(b"\n") + 1
  torn = content[end:].decode(errors="replace")
  if _is_whole(torn, columns):
    files.append_line(path, "", sync=True)
    return content + b"\n"
  _LOG.warning("%s: removed its last row, which was not written whole: %r.", path, torn)
  with path.open("r+b") as file:
    file.truncate(end)
  return content[:end]


def _is_whole(row: str, columns: int) -> bool:
  cells = next(csv.reader([row]), [])
  try:
    datetime.datetime.fromisoformat(cells[columns - 1])  # The last cell.
  except (IndexError, ValueError):
    return False
  return True


def _line(item: tuple[Key, Answer]) -> str:
  key, answer = item
  return _csv((*key, answer.label, answer.tile_size, answer.scene_grid, answer.time))


def _csv(cells: Iterable) -> str:
  buffer = io.StringIO()
  csv.writer(buffer, lineterminator="").writerow(map(tables.cell, cells))
  return buffer.getvalue()

"""The answers that a person gives: a table that is only ever appended to, and synced to disk.

`answer_table` says how it is read. An empty label takes an answer back. `tiling.labels` reads it, too.
"""

import dataclasses
import datetime
import pathlib
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from lgag_jax.geo.scene_ground import SceneGround
from lgag_jax.imagery import tables
from lgag_jax.labelling import answer_table
from lgag_jax.labelling.answer_table import Answer, Key
from lgag_jax.labelling.own_files import DISPUTES
from lgag_jax.options.tiling import Settings
from lgag_jax.runtime import files
from lgag_jax.runtime.appended import AppendedFile
from lgag_jax.tiling import label_rows

_DISPUTE_COLUMNS = ("scene", "row", "col", "label", "other_label", "other_table", "time")
Dispute = tuple[Key, str, str]  # The tile, the label here and the label there.


@dataclasses.dataclass(frozen=True)
class Merged:
  """What came of merging another table: new answers, and tiles on which the two disagree."""

  path: str
  added: int
  agreed: int
  disputed: tuple[Dispute, ...]


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
      answer_table.repair(self.path)
      self._latest = answer_table.read(self.path, settings, self._grounds)
    else:
      files.write_text(self.path, answer_table.HEADER + "\n")
    self._file = AppendedFile(self.path, folder, lambda: answer_table.lines(self._latest))

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
    labels = dict(labels_by_tile)
    with self._lock:
      now = self._next_time(labels)
      given = {
        key: Answer(label, tile_size, now, ground.text if (ground := self._grounds.get(key[0])) else "")
        for key, label in labels.items()
      }
      self._file.append(map(answer_table.line, given.items()))
      self._latest |= given

  def close(self) -> None:
    """Puts the table back if another program has changed it."""
    with self._lock:
      self._file.restore()

  def _next_time(self, keys: Iterable[Key]) -> str:
    """Returns the time of new answers: not before the earlier ones, also of a clock that was fast."""
    times = [
      label_rows.moment(str(self.path), self._latest[key].time) for key in keys if key in self._latest]
    earlier = max(filter(None, times), default=None)
    now = datetime.datetime.now(datetime.UTC)
    return earlier.isoformat() if earlier and earlier > now else now.isoformat(timespec="milliseconds")

  def clear(self) -> None:
    """Empties a table in which every answer was taken back."""
    with self._lock:
      if any(answer.label for answer in self._latest.values()):
        raise ValueError(f"{self.path} holds answers.")
      self._file.restore()
      self._latest = {}
      self._file.rewrite()

  def merge(self, path: pathlib.Path, unknown: str) -> Merged:
    """Adds the answers of another person. Where two certain answers differ, none of them counts.

    The disagreements are appended to disagreements.csv. An uncertain answer gives way to a certain one.
    """
    if not path.is_file():
      raise FileNotFoundError(f"--merge={path}: no such file.")
    read_answers = answer_table.read(path, self._settings, self._grounds)
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
      elif mine != unknown and earlier.get((key, mine, label), own[key].time) == own[key].time:
        disputes.append((key, mine, label))  # Not settled by an answer after an earlier merge.
    if disputes:
      self._write_disputes(((d, own[d[0]].time) for d in disputes), path)
    if added or disputes:
      self.give([*added.items(), *((key, unknown) for key, *_ in disputes)], min(sizes))
    return Merged(str(path), len(added), agreed, tuple(disputes))

  def disputed(self, unknown: str) -> set[Key]:
    """Returns the tiles on which people disagree and that nobody has answered since."""
    latest = self.latest
    return {key for key, *_ in self._disputes() if key in latest and latest[key].label == unknown}

  def _disputes(self) -> dict[Dispute, str | None]:
    """Returns the disagreements of all merges, each with the time of the answer here.

    A killed merge may not have made the answer uncertain yet: then it still has this time. The time is
    None in a table of an earlier release.
    """
    scene = answer_table.scene_names(self._grounds)
    disputes: dict[Dispute, str | None] = {}
    for number, cells in self._dispute_rows():
      try:
        key = scene(cells["scene"]), int(cells["row"]), int(cells["col"])
      except ValueError as error:
        raise ValueError(
          f"{self.path.with_name(DISPUTES)}, row {number} needs whole numbers in row and col: {cells}."
        ) from error
      disputes[key, cells["label"], cells["other_label"]] = cells.get("time")
    return disputes

  def _dispute_rows(self) -> list[tables.Line]:
    path = self.path.with_name(DISPUTES)
    return tables.read_table(path, _DISPUTE_COLUMNS[:5]) if path.exists() else []

  def _write_disputes(self, disputed: Iterable[tuple[Dispute, str]], source: pathlib.Path) -> None:
    rows: list[Iterable[Any]] = [_DISPUTE_COLUMNS]
    rows += [[cells.get(name, "") for name in _DISPUTE_COLUMNS] for _, cells in self._dispute_rows()]
    rows += [(*key, mine, other, str(source), time) for (key, mine, other), time in disputed]
    text = "".join(f"{answer_table.csv_row(row)}\n" for row in rows)
    files.write_text(self.path.with_name(DISPUTES), text)

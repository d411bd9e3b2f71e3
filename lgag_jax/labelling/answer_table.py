"""The table of answers: its columns, how it is read, and its repair after a kill or a spreadsheet.

The latest row of a tile counts, whatever the order of the rows.
"""

import csv
import dataclasses
import datetime
import io
import logging
import pathlib
from collections.abc import Callable, Iterable, Mapping

from lgag_jax.geo import scene_ground
from lgag_jax.geo.scene_ground import SceneGround
from lgag_jax.imagery import listing, tables
from lgag_jax.options.tiling import Settings
from lgag_jax.runtime import appended, files
from lgag_jax.tiling import label_rows, tile_labels
from lgag_jax.tiling.label_rows import LabelRow

_LOG = logging.getLogger(__name__)

_EARLIER_COLUMNS = ("scene", "row", "col", "label", "tile_size", "time")
COLUMNS = (*_EARLIER_COLUMNS[:5], scene_ground.COLUMN, "time")
HEADER = ",".join(COLUMNS)

Key = tuple[str, int, int]  # The scene's file name, row and column.


@dataclasses.dataclass(frozen=True)
class Answer:
  """The label of a tile and when it was given; "" if it was taken back."""

  label: str
  tile_size: int
  time: str
  scene_grid: str = ""  # Of the scene when the answer was given (`SceneGround.text`).


def read(
  path: pathlib.Path, settings: Settings, grounds: Mapping[str, SceneGround]
) -> dict[Key, Answer]:
  """Reads the latest answer of each tile; raises ValueError naming the table and the row."""
  answers: dict[str, tuple[Key, Answer]] = {}  # By their place in the table.
  scene = scene_names(grounds)
  rows = [
    LabelRow(f"{path}, row {number}", cells) for number, cells in tables.read_table(path, COLUMNS[:5])]
  for row in rows:
    cells = row.cells
    try:
      number, col, side = (int(cells[name]) for name in ("row", "col", "tile_size"))
      is_tile = min(number, col) >= 0 < side
    except ValueError:
      is_tile = False
    if not is_tile:
      raise ValueError(
        f"{row.where} needs whole numbers in row and col from 0, and in tile_size from 1: {cells}.")
    label = tile_labels.read_label(row.where, cells["label"], settings) if cells["label"] else ""
    answers[row.where] = (scene(cells["scene"]), number, col), Answer(
      label, side, cells.get(label_rows.TIME, ""), cells.get(scene_ground.COLUMN, ""))
  latest: dict[Key, Answer] = {}
  for row in label_rows.latest(rows, lambda row: answers[row.where][0]).values():
    key, answer = answers[row.where]
    latest[key] = answer
    if answer.label and (ground := grounds.get(key[0])):
      tile_labels.check_ground(row.where, answer.scene_grid, ground)
  return latest


def scene_names(grounds: Mapping[str, SceneGround]) -> Callable[[str], str]:
  """Returns a function from a scene's name in a table to that of its file, of the same look."""
  names = {listing.name_key(name): name for name in grounds}
  return lambda name: names.get(listing.name_key(name), name)


def repair(path: pathlib.Path) -> None:
  """Brings a table into the form that rows are appended to: a killed server may have torn its last row.

  A table that a spreadsheet or an earlier release wrote is kept beside it as it was.
  """
  content = files.read_regular(path)
  for columns in (COLUMNS, _EARLIER_COLUMNS):
    if content.startswith(f"{','.join(columns)}\n".encode()):
      content = _end_last_row(path, content, len(columns))
  if content.startswith(f"{HEADER}\n".encode()):
    return
  if not content.strip():
    files.write_text(path, HEADER + "\n")
    return
  rows = tables.read_table(path, COLUMNS[:5])
  kept = appended.free_name(path)
  _LOG.warning("%s was written by another program or release: kept as %s, and rewritten.", path, kept)
  with files.atomic_path(kept) as partial:  # First: a killed server must not lose it.
    partial.write_bytes(content)
  files.write_text(path, "\n".join([
    HEADER, *(csv_row([line.get(name, "") for name in COLUMNS]) for _, line in rows)]) + "\n")


def _end_last_row(path: pathlib.Path, content: bytes, columns: int) -> bytes:
  """Completes the last row if it is whole, else removes it; returns what the table holds then."""
  if content.endswith(b"\n"):
    return content
  end = content.rfind(b"\n") + 1
  torn = content[end:].decode(errors="replace")
  if _is_whole(torn, columns):
    files.append_line(path, "", sync=True)
    return content + b"\n"
  _LOG.warning(
    "%s: removed its last row, which was not written whole: %r. If you wrote it, write it again with "
    "all %d cells.", path, torn, columns,
  )
  with path.open("r+b") as file:
    file.truncate(end)
  return content[:end]


def _is_whole(row: str, columns: int) -> bool:
  """Returns whether a row has all cells. The server's ends with a time; a person's may have none."""
  cells = next(csv.reader([row]), [])
  try:
    last = cells[columns - 1]
    return not last or bool(datetime.datetime.fromisoformat(last))
  except (IndexError, ValueError):
    return False


def lines(answers: Mapping[Key, Answer]) -> list[str]:
  """Returns a table as lines, without line breaks."""
  return [HEADER, *map(line, answers.items())]


def line(item: tuple[Key, Answer]) -> str:
  """Returns an answer as a row, without a line break."""
  key, answer = item
  return csv_row((*key, answer.label, answer.tile_size, answer.scene_grid, answer.time))


def csv_row(cells: Iterable) -> str:
  """Returns cells as a row that spreadsheets do not calculate, without a line break."""
  buffer = io.StringIO()
  csv.writer(buffer, lineterminator="").writerow(map(tables.cell, cells))
  return buffer.getvalue()

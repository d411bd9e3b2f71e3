"""Reads the rows of a table of tile labels, or the features of a layer of tile outlines."""

import dataclasses
import datetime
import pathlib
from collections.abc import Callable, Hashable, Iterable

import shapely

from lgag_jax.geo import layer_formats, tile_outlines
from lgag_jax.imagery import tables
from lgag_jax.inputs import splits
from lgag_jax.options.tiling import Settings

TIME = "time"  # The column of a table that says when an answer was given.


@dataclasses.dataclass(frozen=True)
class LabelRow:
  """A row of a table, or a feature of a layer with its outline and CRS."""

  where: str  # For messages.
  cells: dict[str, str]
  outline: shapely.Geometry | None = None
  crs: str | None = None

  @property
  def is_answer(self) -> bool:
    """Returns whether --mode=label has listed the tile."""
    return tile_outlines.SIZE_FIELD in self.cells

  @property
  def time(self) -> datetime.datetime | None:
    """Returns when an answer was given, in UTC if it names no zone; raises ValueError for no time."""
    return moment(self.where, self.cells.get(TIME, ""))


def is_layer(path: pathlib.Path) -> bool:
  """Returns whether labels of tiles are outlines, not a table."""
  return path.suffix.lower() != ".csv"


def read(path: pathlib.Path, settings: Settings) -> list[LabelRow]:
  """Returns all rows, or features; raises ValueError naming a file that holds no labels of tiles."""
  if not is_layer(path):
    return [LabelRow(f"{path}, row {number}", cells) for number, cells in _table(path)]
  rows = []
  for layer in tile_outlines.tile_layers(path, settings.layer):
    outlines, crs = tile_outlines.read(path, layer)
    rows += [
      LabelRow(f"{path}, layer {layer}, feature {number}", cells, shape, crs)
      for number, cells, shape in outlines
    ]
  return rows


def _table(path: pathlib.Path) -> list[tables.Line]:
  """Returns the rows of a table of tile labels; raises ValueError if it is an inventory instead."""
  rows = tables.read_table(path, ())
  names = set(rows[0][1]) if rows else set()
  if "label" not in names and names & layer_formats.GEOMETRY_COLUMNS:
    raise ValueError(
      f"{path} lacks the column label of a table of tiles, and inventories are not read from tables. "
      f"{layer_formats.remedy(path)}"
    )
  if set(splits.TILE_COLUMNS) <= names:  # Its rows and columns are of tiles of any size.
    raise ValueError(
      f"{path} is the manifest of a training set, which does not say how large its tiles are. Give "
      "tiles.gpkg beside it, or the labels that they were cut by."
    )
  return tables.read_table(path, ("label",))


def moment(where: str, text: str) -> datetime.datetime | None:
  """Returns the time in a cell, None if it is empty; raises ValueError naming `where` it stands."""
  if not text:
    return None
  try:
    time = datetime.datetime.fromisoformat(text)
  except ValueError as error:
    raise ValueError(
      f"{where} has the {TIME} {text!r}, which cannot be read: write it as 2026-11-29T10:00:00, or "
      f"empty the column {TIME}. The latest answer to a tile counts; without times, the last row."
    ) from error
  return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)


def latest(
  rows: Iterable[LabelRow], key: Callable[[LabelRow], Hashable]
) -> dict[Hashable, LabelRow]:
  """Returns the latest row of each key: a spreadsheet may have sorted a table.

  Of rows of one time the last one counts. A row without a time was written after the rows before it.
  Raises ValueError naming a row whose time is none.
  """
  found: dict[Hashable, tuple[datetime.datetime | None, LabelRow]] = {}
  for row in rows:
    time, (earlier, _) = row.time, found.get(key(row), (None, row))
    if not (time and earlier) or time >= earlier:
      found[key(row)] = time or earlier, row
  return {name: row for name, (_, row) in found.items()}

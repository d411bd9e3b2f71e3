"""Labels the tiles of a scene from a reference map or a table of tile labels.

Only certain labels are used. A tile with a small part of a landslide, with unknown pixels or near a
landslide is a good example neither of landslides nor of other terrain.
"""

import contextlib
import dataclasses
import logging
import math
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from rasterio.windows import Window

from lgag_jax.geo import antimeridian, layer_formats
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.reference import Reference, check_format, open_reference
from lgag_jax.imagery import reading, tables
from lgag_jax.inputs import splits
from lgag_jax.options.tiling import NO_DATA, UNKNOWN_LABEL, Settings
from lgag_jax.tiling import review_files
from lgag_jax.tiling.review_labels import open_review

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SceneTile:
  """The position of a tile. Rows and columns count tiles from the scene's first pixel."""

  row: int
  col: int
  window: Window  # The pixels of the tile.


# Maps a tile and bool[h, w], where it has data, to its label and its mask u8[h, w] or None.
Labeller = Callable[[SceneTile, np.ndarray], tuple[str, np.ndarray | None]]


def tiles(grid: Grid, settings: Settings) -> list[SceneTile]:
  """Returns the tiles of a scene on a regular grid; the last ones may reach past the scene's border."""
  side, (rows, cols) = settings.tile_size, counts(grid, settings)
  return [
    SceneTile(row, col, Window(col * settings.stride, row * settings.stride, side, side))
    for row in range(rows) for col in range(cols)
  ]


def counts(grid: Grid, settings: Settings) -> tuple[int, int]:
  """Returns the numbers of rows and columns of tiles."""
  side, step = settings.tile_size, settings.stride
  rows, cols = (1 + max(0, math.ceil((end - side) / step)) for end in (grid.height, grid.width))
  return rows, cols


@contextlib.contextmanager
def open_labels(scene: pathlib.Path, grid: Grid, settings: Settings) -> Iterator[Labeller]:
  """Opens the labels of a scene; raises ValueError that names the file and the problem."""
  with _open_labels(scene, grid, settings) as label:
    if not settings.review:
      yield label
      return
    decisions = open_review(pathlib.Path(settings.review), scene, grid, settings, "review")
    buffer = _buffer_pixels(scene, grid, settings)
    yield label if decisions is None else lambda tile, valid: decisions.label_over(
      *label(tile, valid), tile.window, valid, buffer
    )


@contextlib.contextmanager
def _open_labels(scene: pathlib.Path, grid: Grid, settings: Settings) -> Iterator[Labeller]:
  path = pathlib.Path(settings.labels)
  if path.suffix.lower() == ".csv":
    table = _table(path, scene.name, grid, settings)
    yield lambda tile, _: (table.get((tile.row, tile.col), UNKNOWN_LABEL), None)
    return
  if review_files.find(path):
    decisions, buffer = open_review(path, scene, grid, settings), _buffer_pixels(scene, grid, settings)
    yield lambda tile, valid: (
      decisions.label(tile.window, valid, buffer) if decisions else (UNKNOWN_LABEL, None)
    )
    return
  with open_reference(
    path, grid, settings.classes, layer=settings.layer, field=settings.field,
    ignore=settings.mask_ignore, scene=scene,
  ) as reference:
    if reference.kind == "points" and not settings.unknown_buffer:
      _LOG.warning(
        "%s: landslides are larger than their points, and may reach into tiles that count as free of "
        "landslides. Set --unknown_buffer to the length of a landslide in metres.", path,
      )
    yield _reference_labeller(reference, _buffer_pixels(scene, grid, settings), settings)


def _buffer_pixels(scene: pathlib.Path, grid: Grid, settings: Settings) -> float:
  if not settings.unknown_buffer:
    return 0.0
  gsd = grid.gsd()
  if gsd is None:
    raise ValueError(
      f"--unknown_buffer={settings.unknown_buffer:g} is in metres, but the ground resolution of "
      f"{scene} is unknown: add a coordinate reference system to it (gdal_edit -a_srs), or set 0."
    )
  return settings.unknown_buffer / gsd


def _reference_labeller(reference: Reference, buffer: float, settings: Settings) -> Labeller:
  points = reference.kind == "points"

  def label(tile: SceneTile, valid: np.ndarray) -> tuple[str, np.ndarray | None]:
    mask = np.where(valid, reference.read(tile.window), np.uint8(reading.UNKNOWN))
    pixels = {name: np.count_nonzero(mask == number) for number, name in enumerate(settings.classes, 1)}
    classes = [name for name, count in pixels.items() if count]
    minimum = 1 if points else max(settings.min_pixels, settings.min_fraction * mask.size)
    complete = not np.any((mask == reading.UNKNOWN) & valid)
    name = UNKNOWN_LABEL
    if classes:  # A tile has one class: with pixels of several classes its label is uncertain.
      if len(classes) == 1 and pixels[classes[0]] >= minimum:
        name = classes[0]
    elif complete and not reference.near(tile.window, buffer):
      name = settings.background
    return name, None if points else mask

  return label


def check_scenes(scenes: list[pathlib.Path], settings: Settings) -> None:
  """Raises ValueError if labels have another format, or a row of a table names none of the scenes."""
  path = pathlib.Path(settings.labels)
  review_files.check_scenes(scenes, settings)
  if path.is_dir():
    return
  if path.suffix.lower() != ".csv":
    check_format(path)
  if not path.is_file():
    raise FileNotFoundError(f"--labels={path}: no such file.")
  if path.suffix.lower() != ".csv":
    return
  names = {name for scene in scenes for name in (scene.name, scene.stem)}
  for number, line in _rows(path):
    name = line.get("scene") or ""
    if name not in names and (name or len(scenes) > 1):
      raise ValueError(
        f"{path}, row {number} names the scene {name!r}, which is not in --input={settings.input}: "
        f"{', '.join(scene.name for scene in scenes[:5])}{', ...' if len(scenes) > 5 else ''}."
      )


def _table(
  path: pathlib.Path, scene: str, grid: Grid, settings: Settings
) -> dict[tuple[int, int], str]:
  """Returns the labels in a table by row and column of the scene's tiles.

  In a table of --mode=label, which has the column tile_size, the last row of a tile counts, and an
  empty label means that there is no answer.
  """
  labels: dict[tuple[int, int], str] = {}
  for number, line in _rows(path):
    if line.get("scene") and line["scene"] not in (scene, pathlib.Path(scene).stem):
      continue
    where = f"{path}, row {number}"
    answered = "tile_size" in line
    if answered and line["tile_size"] != str(settings.tile_size):
      raise ValueError(
        f"{where} labels a tile of {line['tile_size'] or 'unknown'} pixels, but "
        f"--tile_size={settings.tile_size}: set the size of the labelled tiles."
      )
    tile = _tile_of_row(where, line, grid, settings)
    text = line["label"]
    label = UNKNOWN_LABEL if answered and not text else read_label(where, text, settings)
    other = labels.setdefault(tile, label)
    if answered:
      labels[tile] = label
    elif other != label:
      raise ValueError(
        f"{where} labels tile {tile[0]},{tile[1]} as {label}, but an earlier row labels it as {other}: "
        "remove one of them."
      )
  return labels


def _rows(path: pathlib.Path) -> list[tables.Line]:
  """Returns the rows of a table of tile labels; raises ValueError if it is an inventory instead."""
  rows = tables.read_table(path, ())
  names = set(rows[0][1]) if rows else set()
  if "label" not in names and names & layer_formats.GEOMETRY_COLUMNS:
    raise ValueError(
      f"{path} lacks the column label of a table of tiles, and inventories are not read from tables. "
      f"{layer_formats.remedy(path)}"
    )
  return tables.read_table(path, ("label",))


def read_label(where: str, text: str | None, settings: Settings) -> str:
  """Returns the label that a cell of a table means; raises ValueError naming `where` it stands."""
  text = (text or "").strip()
  if text in (*settings.classes, settings.background, UNKNOWN_LABEL):
    return text
  if text == NO_DATA:
    return UNKNOWN_LABEL
  if text.lower() in splits.NO:
    return settings.background
  if text.lower() in splits.YES and len(settings.classes) == 1:
    return settings.classes[0]
  known = ", ".join((*settings.classes, settings.background, UNKNOWN_LABEL, NO_DATA))
  raise ValueError(
    f"{where} has the label {text!r}: use one of {known}, or for one class "
    f"{', '.join(splits.YES)} and {', '.join(splits.NO)}."
  )


def _tile_of_row(where: str, line: dict, grid: Grid, settings: Settings) -> tuple[int, int]:
  names = ("row", "col") if line.get("row") else ("x", "y")
  try:
    first, second = (float(line[name]) for name in names)
    tile = (first, second) if names[0] == "row" else _tile_at(first, second, grid, settings)
  except (KeyError, TypeError, ValueError, OverflowError) as error:
    raise ValueError(
      f"{where} needs numbers in row and col, or in x and y, with decimal points: {line}."
    ) from error
  if not all(n in range(count) for n, count in zip(tile, counts(grid, settings), strict=True)):
    raise ValueError(f"{where} means no tile of the scene: {names[0]}={first:g}, {names[1]}={second:g}")
  return int(tile[0]), int(tile[1])


def _tile_at(x: float, y: float, grid: Grid, settings: Settings) -> tuple[int, int]:
  """Returns row and column of the tile with the nearest centre that holds a point, -1 for no tile."""
  side, step = settings.tile_size, settings.stride
  tile = -1, -1
  for place in antimeridian.same_places(x, grid):
    row, col = (
      _number_at(pixel, length, count, side, step) for pixel, length, count in zip(
        (~grid.transform @ (place, y))[::-1], (grid.height, grid.width), counts(grid, settings),
        strict=True,
      )
    )
    if min(row, col) >= 0:
      return row, col
    tile = max(tile, (row, col))
  return tile


def _number_at(pixel: float, length: int, count: int, side: int, step: int) -> int:
  number = min(max(math.floor((pixel - side / 2) / step + 0.5), 0), count - 1)
  inside = 0 <= pixel < length and number * step <= pixel < number * step + side
  return number if inside else -1

"""What is known of each tile of a scene, from a reference map or a table of tile labels.

Only labels that are certain are given: a tile with a little landslide, with unknown pixels, or near a
landslide is neither a good example of one nor of terrain without.
"""

import contextlib
import dataclasses
import logging
import math
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from rasterio.windows import Window

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.reference import Reference, open_reference
from lgag_jax.imagery import listing, reading
from lgag_jax.options.tiling import UNKNOWN, Settings

_LOG = logging.getLogger(__name__)

_YES, _NO = ("1", "yes", "true"), ("0", "no", "false")


@dataclasses.dataclass(frozen=True)
class Tile:
  """A tile's place: row and column count tiles from the scene's first pixel, the window its pixels."""

  row: int
  col: int
  window: Window


# Of a tile and where it has data, bool [h, w]: its label, and its mask u8[h, w] where there is one.
Labeller = Callable[[Tile, np.ndarray], tuple[str, np.ndarray | None]]


def tiles(grid: Grid, settings: Settings) -> list[Tile]:
  """Covers a scene with tiles on a regular grid; the last ones may reach past its border."""
  side, (rows, cols) = settings.tile_size, counts(grid, settings)
  return [
    Tile(row, col, Window(col * settings.stride, row * settings.stride, side, side))
    for row in range(rows) for col in range(cols)
  ]


def counts(grid: Grid, settings: Settings) -> tuple[int, int]:
  """Returns the numbers of rows and columns of tiles."""
  side, step = settings.tile_size, settings.stride
  return tuple(1 + max(0, math.ceil((end - side) / step)) for end in (grid.height, grid.width))


@contextlib.contextmanager
def open_labels(scene: pathlib.Path, grid: Grid, settings: Settings) -> Iterator[Labeller]:
  """Opens the labels of a scene; raises ValueError naming the file and what is wrong."""
  path = pathlib.Path(settings.labels)
  if path.suffix.lower() == ".csv":
    table = _table(path, scene.name, grid, settings)
    yield lambda tile, _: (table.get((tile.row, tile.col), UNKNOWN), None)
    return
  with open_reference(
    path, grid, settings.classes, layer=settings.layer, field=settings.field,
    ignore=settings.mask_ignore,
  ) as reference:
    if reference.kind == "points" and not settings.unknown_buffer:
      _LOG.warning(
        "%s: a landslide reaches beyond its point, perhaps into tiles that count as free of it. Set "
        "--unknown_buffer to a landslide's length in metres.", path,
      )
    yield _by_reference(reference, _reach(scene, grid, settings), settings)


def _reach(scene: pathlib.Path, grid: Grid, settings: Settings) -> float:
  """Returns the buffer in pixels."""
  if not settings.unknown_buffer:
    return 0.0
  gsd = grid.gsd()
  if gsd is None:
    raise ValueError(
      f"--unknown_buffer={settings.unknown_buffer:g} is in metres, but nothing tells the ground "
      f"resolution of {scene}: give it a coordinate reference system (gdal_edit -a_srs), or set 0."
    )
  return settings.unknown_buffer / gsd


def _by_reference(reference: Reference, reach: float, settings: Settings) -> Labeller:
  points = reference.kind == "points"

  def label(tile: Tile, valid: np.ndarray) -> tuple[str, np.ndarray | None]:
    mask = np.where(valid, reference.read(tile.window), np.uint8(reading.UNKNOWN))
    pixels = {
      name: np.count_nonzero(mask == number) for number, name in enumerate(settings.classes, 1)
    }
    held = [name for name, count in pixels.items() if count]
    least = 1 if points else max(settings.min_pixels, settings.min_fraction * mask.size)
    known = not np.any((mask == reading.UNKNOWN) & valid)
    if held:  # An example is of one class; what has a bit of another is none of it for certain.
      found = held[0] if len(held) == 1 and pixels[held[0]] >= least else UNKNOWN
    else:
      found = settings.background if known and not reference.near(tile.window, reach) else UNKNOWN
    return found, None if points else mask

  return label


def check_scenes(scenes: list[pathlib.Path], settings: Settings) -> None:
  """Raises ValueError when a table of tile labels does not say which of several scenes a row means."""
  path = pathlib.Path(settings.labels)
  if not path.is_file():
    raise FileNotFoundError(f"--labels={path}: there is no such file.")
  if path.suffix.lower() != ".csv":
    return
  names = {name for scene in scenes for name in (scene.name, scene.stem)}
  for number, line in enumerate(listing.read_table(path, ("label",)), 2):
    name = line.get("scene") or ""
    if name not in names and (name or len(scenes) > 1):
      raise ValueError(
        f"{path}, row {number} names the scene {name!r}, which is none of --input={settings.input}: "
        f"{', '.join(scene.name for scene in scenes[:5])}{', ...' if len(scenes) > 5 else ''}."
      )


def _table(
  path: pathlib.Path, scene: str, grid: Grid, settings: Settings
) -> dict[tuple[int, int], str]:
  """Reads the labels of a scene's tiles by row and column."""
  rows = listing.read_table(path, ("label",))
  found: dict[tuple[int, int], str] = {}
  for number, line in enumerate(rows, 2):
    if line.get("scene") and line["scene"] not in (scene, pathlib.Path(scene).stem):
      continue
    where = f"{path}, row {number}"
    place, label = _place(where, line, grid, settings), _label(where, line["label"], settings)
    if found.setdefault(place, label) != label:
      raise ValueError(
        f"{where} says {label} of tile {place[0]},{place[1]}, a row before it {found[place]}: keep one."
      )
  return found


def _label(where: str, text: str | None, settings: Settings) -> str:
  text = (text or "").strip()
  if text in (*settings.classes, settings.background, UNKNOWN):
    return text
  if text.lower() in _NO:
    return settings.background
  if text.lower() in _YES and len(settings.classes) == 1:
    return settings.classes[0]
  known = ", ".join((*settings.classes, settings.background, UNKNOWN))
  raise ValueError(f"{where} has the label {text!r}: give one of {known}, or 1 and 0 for one class.")


def _place(where: str, line: dict, grid: Grid, settings: Settings) -> tuple[int, int]:
  """Returns the row and column of the tile that a line means: of those at a point the most central."""
  names = ("row", "col") if line.get("row") else ("x", "y")
  try:
    first, second = (float(line[name]) for name in names)
    place = (first, second) if names[0] == "row" else _around(first, second, grid, settings)
  except (KeyError, TypeError, ValueError, OverflowError) as error:
    raise ValueError(f"{where} needs numbers as row and col, or as x and y: {line}.") from error
  if not all(at in range(count) for at, count in zip(place, counts(grid, settings), strict=True)):
    raise ValueError(f"{where} names no tile here: {names[0]}={first:g}, {names[1]}={second:g}")
  return int(place[0]), int(place[1])


def _around(x: float, y: float, grid: Grid, settings: Settings) -> tuple[int, int]:
  """Returns row and column of the tile around a point whose centre is nearest, -1 outside of any."""
  side, step = settings.tile_size, settings.stride
  found = []
  for at, length, count in zip(
    (~grid.transform @ (x, y))[::-1], (grid.height, grid.width), counts(grid, settings), strict=True
  ):
    number = min(max(math.floor((at - side / 2) / step + 0.5), 0), count - 1)
    inside = 0 <= at < length and number * step <= at < number * step + side
    found.append(number if inside else -1)
  return tuple(found)

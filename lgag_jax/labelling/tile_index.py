"""The tiles of the scenes that hold enough data to be labelled."""

import dataclasses
import hashlib
import logging
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from rasterio.windows import Window

from lgag_jax.geo import pair
from lgag_jax.geo.companions import SceneFiles
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.pair import Pair
from lgag_jax.geo.scene import Scene
from lgag_jax.geo.scene_ground import SceneGround
from lgag_jax.options.tiling import Settings
from lgag_jax.runtime.progress import Progress
from lgag_jax.tiling import tile_grid
from lgag_jax.tiling.tile_grid import SceneTile

_LOG = logging.getLogger(__name__)

MAX_TILES = 100_000
_GROUND_SIDE = 128.0  # Metres. A tile should show a landslide and its surroundings.
_LEAST_TILES = 150  # Enough to choose the wanted answers from.
_SIDES = (64, 512)  # Pixels that a tile has by default.
_STEP = 32
_TOLERANCE = 1.01  # Map projections distort lengths a little.
_CELLS = 8  # A tile has so many cells per side, in which data is first looked for.


@dataclasses.dataclass(frozen=True)
class Overview:
  """A scene at a small scale, up to the border of its last tiles."""

  pixels: np.ndarray  # [h, w, channels]
  valid: np.ndarray  # bool[h, w]
  scale: float  # Pixels of the scene along a side of its pixels.


@dataclasses.dataclass(frozen=True)
class TileIndex:
  """All tiles to label, in the order of the scenes and of their rows."""

  scenes: tuple[SceneFiles, ...]
  grids: tuple[Grid, ...]
  tile_size: int
  tiles: tuple[tuple[int, SceneTile], ...]  # The scene's number, and the tile.
  overviews: tuple[Overview, ...]
  version: str  # Differs for other tiles: of another ground, size or cloud mask.
  files_version: str = ""  # Differs if a file has changed since, also by overviews only.

  @property
  def paths(self) -> list[pathlib.Path]:
    return [scene.path for scene in self.scenes]

  def key(self, number: int) -> tuple[str, int, int]:
    """Returns the scene's file name, the row and the column of a tile."""
    scene, tile = self.tiles[number]
    return self.scenes[scene].path.name, tile.row, tile.col


def default_side(grids: list[Grid]) -> int:
  """Returns a side in pixels that suits the ground resolution and gives enough tiles."""
  area = sum(grid.height * grid.width for grid in grids)
  wanted = math.sqrt(area / _LEAST_TILES)
  if gsd := grids[0].gsd():
    wanted = min(wanted, _GROUND_SIDE / gsd)
  return int(np.clip(int(_TOLERANCE * wanted) // _STEP * _STEP, *_SIDES))


def read_grids(
  scenes: Sequence[SceneFiles], channels: int, bands: tuple[int, ...], max_shift: float = 0.0
) -> list[Grid]:
  """Returns the grids of scenes; raises ImageError naming a scene that cannot be read.

  Finds the shift to the image before, unless `max_shift` is 0, and logs what to check in it.
  """
  grids = []
  for files in scenes:
    with files.open(channels, bands=bands, max_shift=max_shift) as scene:
      grids.append(scene.grid)
      for text in pair.warnings(scene, max_shift):
        _LOG.warning("%s: %s", files.path, text)
    if cover := files.cover(grids[-1]):
      _LOG.info("%s: %s.", files.path, cover)
  return grids


def build(
  scenes: Sequence[SceneFiles], grids: list[Grid], channels: int, settings: Settings
) -> TileIndex:
  """Lists the tiles that --mode=tile would cut; raises ValueError if there are too many, or none."""
  counts = [tile_grid.counts(grid, settings) for grid in grids]
  total = sum(rows * cols for rows, cols in counts)
  if total > MAX_TILES:
    raise ValueError(
      f"--input={settings.input} has {total} tiles of {settings.tile_size} pixels, more than "
      f"{MAX_TILES}: raise --tile_size, or label fewer scenes at a time."
    )
  tiles: list[tuple[int, SceneTile]] = []
  overviews = []
  progress = Progress("tiles", total, unit="tiles")
  for number, (files, grid) in enumerate(zip(scenes, grids, strict=True)):
    with files.open(channels, bands=settings.bands) as scene:
      every = tile_grid.tiles(grid, settings)
      (rows, cols), strips = counts[number], []
      for row in range(rows):
        members = every[row * cols : (row + 1) * cols]
        strips.append(_read_row(scene, members, settings))
        with_data = _with_data(scene, members, strips[-1][1], settings, bool(files.clouds))
        tiles += [(number, tile) for tile in with_data]
        progress.advance(cols)
      pixels, valid = (np.concatenate(parts) for parts in zip(*strips, strict=True))
      overviews.append(Overview(pixels, valid, settings.tile_size / (len(valid) // rows)))
  if not tiles:
    raise ValueError(
      f"--input={settings.input} has no tile with data: set a larger --max_nodata or "
      "another --tile_size."
    )
  grounds = [(f.path.name, SceneGround(f.path, g).text) for f, g in zip(scenes, grids, strict=True)]
  places = [(number, tile.row, tile.col) for number, tile in tiles]
  paths = [path for files in scenes for path in (files.path, files.before, files.clouds) if path]
  status = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
  return TileIndex(
    tuple(scenes), tuple(grids), settings.tile_size, tuple(tiles), tuple(overviews),
    _digest(grounds, settings.tile_size, places), _digest(status, settings.bands),
  )


def _digest(*parts: Any) -> str:
  return hashlib.sha256(repr(parts).encode(errors="backslashreplace")).hexdigest()[:16]


def _read_row(
  scene: Scene | Pair, row: list[SceneTile], settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
  """Reads a row of tiles in cells, and their valid mask: a cell is valid if any of its pixels is.

  With a cloud mask it also must not hold a pixel under a cloud.
  """
  side = settings.tile_size
  cells = min(_CELLS, side)
  return scene.read(Window(0, row[0].row * side, len(row) * side, side), (cells, cells * len(row)))


def _with_data(
  scene: Scene | Pair, row: list[SceneTile], cells: np.ndarray, settings: Settings, has_clouds: bool
) -> list[SceneTile]:
  """Returns the tiles of a row of tiles whose fraction of nodata pixels --mode=tile would accept."""
  least, kept = 1.0 - settings.max_nodata, []
  for tile, part in zip(row, np.split(cells, len(row), axis=1), strict=True):
    if not part.all():
      if not part.any() and not has_clouds:  # One pixel under a cloud hides its whole cell.
        continue
      valid = scene.valid(tile.window)
      if not valid.any() or valid.mean() < least:
        continue
    kept.append(tile)
  return kept

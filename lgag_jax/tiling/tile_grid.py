"""The regular grid of tiles of a scene."""

import dataclasses
import math

import numpy as np
from rasterio.windows import Window

from lgag_jax.geo.grid import Grid
from lgag_jax.options.tiling import Settings


@dataclasses.dataclass(frozen=True)
class SceneTile:
  """The position of a tile. Rows and columns count tiles from the scene's first pixel."""

  row: int
  col: int
  window: Window  # The pixels of the tile.


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


def corners(grid: Grid, tile: SceneTile) -> np.ndarray | None:
  """Returns the corners f64[4, 2] of a tile in the scene's coordinates, None if it has none."""
  if not grid.georeferenced:
    return None
  window = tile.window
  left, top, right, bottom = (
    window.col_off, window.row_off, window.col_off + window.width, window.row_off + window.height
  )
  pixels = (left, top), (right, top), (right, bottom), (left, bottom)
  return np.array([grid.transform @ corner for corner in pixels])

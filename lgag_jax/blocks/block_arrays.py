"""What a block is read as, and what the network makes of it."""

import dataclasses
from typing import Protocol

import numpy as np

from lgag_jax.geo.grid import Grid


@dataclasses.dataclass(frozen=True)
class Sides:
  """A truth value for each pixel along the sides of a block, bool[side] each."""

  top: np.ndarray
  bottom: np.ndarray
  left: np.ndarray
  right: np.ndarray


@dataclasses.dataclass(frozen=True)
class BlockPixels:
  """The imagery of a block and its halo."""

  grid: Grid
  values: np.ndarray  # [H, W, channels]
  valid: np.ndarray  # bool[H, W]
  missing_beyond: Sides  # Where data are known to be missing just outside the block.


@dataclasses.dataclass(frozen=True)
class BlockMap:
  """The map of a block, without its halo."""

  scores: np.ndarray  # [side, side, C], percent u8 (255 is nodata) or f32 (NaN).
  mask: np.ndarray  # u8[side, side]: background 0, classes from 1, nodata 255.
  image_scores: tuple[float, ...]  # The highest image score of the windows, per class.
  missing_beyond: Sides | None = None  # As in BlockPixels; `map_block.network_map` adds it.


class Network(Protocol):
  """What maps the pixels of a block."""

  def map_pixels(self, name: str, pixels: BlockPixels) -> BlockMap:
    """Returns the map of a block, which errors call `name`; raises ImageError for unsuitable values."""
    ...

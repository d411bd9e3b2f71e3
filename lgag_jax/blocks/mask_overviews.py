"""Reads the masks of blocks at a reduced size, in bounded memory."""

import math
import pathlib

import numpy as np

from lgag_jax.blocks.plan import Block
from lgag_jax.mapping import rasters
from lgag_jax.runtime import files

SIDE = 512  # Cells, those of a COG's smallest overview.


def path_of(output: pathlib.Path, block: Block) -> pathlib.Path:
  """Returns the mask of a block."""
  return output / "mask" / f"{block.name}.tif"


def read(output: pathlib.Path, block: Block, core: int, reduction: int) -> np.ndarray:
  """Returns the classes u8[n, n] of a block of `core` pixels on a side, `reduction` of them a cell.

  A cell has the class of one of its pixels. Raises ImageError naming a mask that cannot be read, and
  ValueError for a link: a page, which may be shared, would show a picture from elsewhere.
  """
  cells, path = math.ceil(core / reduction), path_of(output, block)
  files.require_plain(path)
  with rasters.open_map_raster(path, 1) as raster:
    return raster.read(1, shape=(cells, cells))

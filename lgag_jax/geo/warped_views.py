"""Bounds the memory of views of a raster on another grid, GDAL's WarpedVRT."""

import pathlib

import numpy as np

from lgag_jax.geo import crs_relation
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.windows import parts_below
from lgag_jax.imagery.orientation import Raster

_SIDE = 128  # Pixels of a view that GDAL computes at once, of 512 in a row.
_MOST_BYTES = 1 << 27  # Of the raster below as many pixels on a side.


def check_view(path: pathlib.Path, raster: Raster, *, mask: Grid, grid: Grid) -> None:
  """Raises ImageError naming a raster that is so much finer than a grid that a view takes any memory.

  `mask` is the raster's own grid.
  """
  to_mask = crs_relation.needed_transformer(grid.crs, mask.crs)
  most = _MOST_BYTES // np.dtype(raster.dtypes[0]).itemsize
  parts = parts_below(
    path, grid.transform, (grid.height, grid.width), to_mask, mask, most, least=_SIDE)
  for _ in parts:
    pass

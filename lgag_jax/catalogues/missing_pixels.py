"""Finds pixels that a file calls missing in a way that GDAL leaves out when it resamples.

GDAL's resampling follows one nodata value, or else a mask inside the file. A file may have both, and a
catalogue may add a nodata value of its own. Each of them counts, as in `imagery.reading.valid_pixels`.
"""

import math
from collections.abc import Sequence

import numpy as np
import rasterio
import rasterio.warp
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.windows import Window

from lgag_jax.geo.grid import Grid
from lgag_jax.imagery import reading

_LEAST_WEIGHT = 1e-6  # Of a missing pixel in a resampled one.


def has_other_ways(raster: rasterio.DatasetReader, bands: Sequence[int], nodata: float | None) -> bool:
  """Returns whether a file says of missing pixels more than GDAL follows with this nodata value."""
  flags = raster.mask_flag_enums[bands[0] - 1]
  has_mask = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
  if nodata is None:
    return has_mask and ColorInterp.alpha in raster.colorinterp
  own = {raster.nodatavals[band - 1] for band in bands} - {None}
  return has_mask or any(not _same(value, nodata) for value in own)


def resampled(
  raster: rasterio.DatasetReader, bands: list[int], nodata: float | None,
  below: Sequence[tuple[Window, Affine]], crs: CRS, grid: Grid, resampling: Resampling,
) -> np.ndarray:
  """Returns where a missing pixel would contribute to a pixel of a grid, bool[H, W].

  `below` are the windows of the file below the grid, with their transforms; `crs` is the file's. GDAL
  leaves pixels of `nodata` out itself.
  """
  missing = np.zeros((grid.height, grid.width), bool)
  for window, place in below:
    there = ~reading.valid_pixels(raster, bands, window)
    if nodata is not None and there.any():
      values = raster.read(bands, window=window)
      there &= ~(np.isnan(values) if math.isnan(nodata) else values == nodata).all(axis=0)
    if not there.any():
      continue
    weights = np.zeros(missing.shape, np.float32)
    rasterio.warp.reproject(
      there.astype(np.float32), weights, src_transform=place, src_crs=crs,
      dst_transform=grid.transform, dst_crs=grid.crs, resampling=resampling,
    )
    missing |= weights > _LEAST_WEIGHT
  return missing


def _same(one: float, other: float) -> bool:
  return one == other or (math.isnan(one) and math.isnan(other))

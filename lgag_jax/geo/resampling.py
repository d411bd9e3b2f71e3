"""Resamples values of one grid to the pixels of another."""

import numpy as np
import rasterio.warp
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling

_WHOLE = 1 - 1e-3  # Of the weights of known values: an interpolation may round.


def bilinear(
  values: np.ndarray, known: np.ndarray, place: tuple[Affine, CRS], target: tuple[Affine, CRS],
  shape: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
  """Returns floating-point values [h, w, n] on `shape` pixels, and where all that they use is known.

  `known` is bool[h, w]. `place` and `target` are the transforms of both grids, from pixels to
  coordinates, and their coordinate reference systems.
  """
  bands = np.concatenate([np.moveaxis(values, -1, 0), known[None].astype(values.dtype)])
  warped = np.zeros((len(bands), *shape), bands.dtype)
  rasterio.warp.reproject(
    bands, warped, src_transform=place[0], src_crs=place[1], dst_transform=target[0],
    dst_crs=target[1], resampling=Resampling.bilinear,
  )
  return np.moveaxis(warped[:-1], 0, -1), warped[-1] > _WHOLE

"""Arrays as scenes: their checks, and the files in memory that they are read from."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import rasterio
from rasterio.io import MemoryFile

from lgag_jax.config import DataConfig
from lgag_jax.geo import coregistration
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scene import Scene
from lgag_jax.imagery import arrays, scaling


@contextlib.contextmanager
def open_array(pixels: np.ma.MaskedArray, grid: Grid) -> Iterator[Scene]:
  """Opens an array as a scene: a file in memory, which is read as one on disk."""
  height, width, channels = pixels.shape
  profile = {"height": height, "width": width, "count": channels, "dtype": pixels.dtype}
  valid = ~np.ma.getmaskarray(pixels).any(axis=-1)
  with MemoryFile() as file:
    with (
      rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
      file.open(driver="GTiff", photometric="MINISBLACK", BIGTIFF="IF_SAFER", **profile) as raster,
    ):
      raster.write(np.moveaxis(pixels.data, -1, 0))
      if not valid.all():
        raster.write_mask(valid)
    with file.open() as raster:
      yield Scene(pathlib.Path("array"), raster, grid, list(range(1, channels + 1)), None)


def with_before(
  batch: np.ma.MaskedArray, before: Any, data: DataConfig, max_shift: float
) -> np.ma.MaskedArray:
  """Returns images [B, H, W, channels] with those before as further bands, moved onto them.

  Raises ValueError if `before` is missing, not wanted, or of another size or type.
  """
  if not data.paired:
    raise ValueError("`before`: this network maps images of one date. Omit it.")
  if before is None or isinstance(before, str | os.PathLike):
    raise ValueError(
      "`before` must be the array before the event: this network compares two dates."
    )
  other = as_batch(arrays.masked(before), data, "`before`")
  if other.shape != batch.shape or other.dtype != batch.dtype:
    raise ValueError(
      f"`before` is {other.dtype}{list(other.shape)}, the image after {batch.dtype}"
      f"{list(batch.shape)}: give both the same size and type."
    )
  both = np.ma.concatenate([batch, other], axis=-1)
  pixels, valid = both.data.copy(), np.array(~np.ma.getmaskarray(both).any(axis=-1))
  if np.issubdtype(pixels.dtype, np.inexact):
    valid &= np.isfinite(pixels).all(axis=-1)
  for i in range(len(pixels)):
    pixels[i], valid[i] = coregistration.aligned(pixels[i], valid[i], max_shift)
  return np.ma.array(pixels, mask=np.repeat(~valid[..., None], pixels.shape[-1], axis=-1))


def as_batch(array: np.ma.MaskedArray, data: DataConfig, name: str) -> np.ma.MaskedArray:
  """Returns an array as [B, H, W, channels]; raises ValueError naming its shape or type."""
  channels = data.channels
  if array.ndim not in (3, 4) or array.shape[-1] != channels or 0 in array.shape:
    raise ValueError(
      f"{name} is {list(array.shape)}: give [H, W, {channels}] or [B, H, W, {channels}]."
    )
  if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):  # 16 and 128 bits.
    array = np.ma.asarray(array.astype(np.float32))
  if array.dtype.kind not in "uif":
    raise ValueError(f"{name} holds {array.dtype}: give integers as read, or floats.")
  scaling.check_type(array.dtype, data, name)
  return array if array.ndim == 4 else array[None]

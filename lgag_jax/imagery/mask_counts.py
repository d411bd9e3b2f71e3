"""Counts the values in the first band of raster masks, and names what they cannot show."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Iterator

import numpy as np
from rasterio.enums import ColorInterp, Compression
from rasterio.windows import Window

from lgag_jax.imagery.opening import check_extent, error_context, open_raster
from lgag_jax.imagery.orientation import Raster
from lgag_jax.imagery.reading import labelled_pixels, mask_nodata

HALF = 127  # Of 0 to 255: larger values of a JPEG mask are landslide.
MAX_VALUES = 257  # Distinct values counted per file, one more than a byte has.
COLOURS = "its colours show"  # Of a problem that only concerns masks of one class.
_PIECE = 1 << 22  # Pixels read at once.


@dataclasses.dataclass(frozen=True)
class MaskCounts:
  """The values in the first band of a mask, without the nodata value, which is unknown anyway."""

  counts: tuple[tuple[float, int], ...]  # Values and their pixels; incomplete with too many values.
  lossy: bool  # Whether the file's compression changes values.
  nodata: float | None  # The declared value if pixels have it, unless it is 0.
  problem: str = ""  # Why values do not show what they mean.


@functools.lru_cache(maxsize=1 << 16)
def of_file(path: pathlib.Path, key: str) -> MaskCounts:
  """Counts the values of a mask in pieces; `key` changes with the file."""
  del key
  counts: collections.Counter = collections.Counter()
  with open_raster(path) as raster, error_context(path):
    check_extent(raster, path)
    nodata, problem = mask_nodata(raster), _colour_problem(raster)
    for window in _pieces(raster):
      array = raster.read(1, window=window)
      problem = problem or _band_problem(raster, array, window)
      labelled = labelled_pixels(raster, window)
      counts.update(_count(array if labelled is None else array[labelled]))
      if len(counts) >= MAX_VALUES:
        break
    declared = next((value for value in nodata if value in counts), None)
    for value in nodata:
      counts.pop(value, None)
    return MaskCounts(tuple(counts.most_common(MAX_VALUES)), _is_lossy(raster), declared, problem)


def _colour_problem(raster: Raster) -> str:
  """Returns why it is unclear which values a mask shows as black, "" if it is clear."""
  inverted = raster.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
  if not inverted and raster.colorinterp[0] == ColorInterp.palette:
    colours = raster.colormap(1)
    inverted = colours[0][:3] == (255, 255, 255) and (0, 0, 0) in [c[:3] for c in colours.values()]
  return f"{COLOURS} the value 0 as white and another one as black" if inverted else ""


def _band_problem(raster: Raster, first: np.ndarray, window: Window) -> str:
  """Returns what is unclear in a part of a mask with several bands, "" if all say the same."""
  for band in range(2, raster.count + 1):
    values = raster.read(band, window=window)
    if raster.colorinterp[band - 1] == ColorInterp.alpha:
      if not values.all():
        return "it has transparent pixels, which may mean background or unknown"
    elif np.any(np.abs(values.astype(np.float64) - first) > (HALF if _is_lossy(raster) else 0)):
      return f"its bands 1 and {band} differ, and colours do not say which of them is a landslide"
  return ""


def _pieces(raster: Raster) -> Iterator[Window]:
  """Yields windows of whole blocks that cover a raster, so that no block is decoded twice."""
  block_height, block_width = raster.block_shapes[0]
  height = block_height * max(1, _PIECE // (block_height * raster.width))
  width = raster.width
  if height * width > _PIECE:
    width = block_width * max(1, _PIECE // (height * block_width))
  for row in range(0, raster.height, height):
    for col in range(0, raster.width, width):
      yield Window(col, row, min(width, raster.width - col), min(height, raster.height - row))


def _count(array: np.ndarray) -> dict[float, int]:
  if array.dtype == np.uint8:  # Much faster than sorting.
    pixels = np.bincount(array.reshape(-1), minlength=256)
    return {float(value): int(pixels[value]) for value in np.flatnonzero(pixels)}
  array = array[np.isfinite(array)] if array.dtype.kind == "f" else array
  found, pixels = np.unique(array, return_counts=True)
  rows = zip(found[:MAX_VALUES].tolist(), pixels[:MAX_VALUES].tolist(), strict=True)
  return {float(value): count for value, count in rows}


def _is_lossy(raster: Raster) -> bool:
  return raster.driver == "JPEG" or raster.compression in (Compression.jpeg, Compression.webp)

"""Decides what the values of raster masks mean, for training, tiles, evaluation and the doctor alike.

Masks come as 0/1, as 0/255, with 255 for unknown pixels, and as JPEG. A single window or file does not
show which of these it is, so all masks of a folder decide together.
"""

import collections
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from rasterio.enums import ColorInterp, Compression
from rasterio.windows import Window

from lgag_jax.config import DataConfig
from lgag_jax.imagery import listing
from lgag_jax.imagery.opening import ImageError, check_extent, error_context, open_raster
from lgag_jax.imagery.orientation import Raster
from lgag_jax.imagery.reading import UNKNOWN, labelled_pixels, mask_nodata

_LOG = logging.getLogger(__name__)

BY_VALUES = DataConfig.mask_ignore  # As the value to ignore: the values of the masks decide.
_NONE = -1
_PIECE = 1 << 22  # Pixels read at once.
_MAX_VALUES = 257  # Distinct values counted per file, one more than a byte has.
_FEW = 16  # Distinct values. A mask with more looks like a picture, or numbers its objects.
_LARGEST = {2**16 - 1, 2**31 - 1, 2**32 - 1}  # Of integers; such a value often means unknown.
_COLOURS = "its colours show"  # Of a problem that only concerns masks of one class.
_HALF = 127  # Of 0 to 255: larger values of a JPEG mask are landslide.


@dataclasses.dataclass(frozen=True)
class MaskRule:
  """What the values of masks mean."""

  ignore: int  # The value that means unknown; -1 if there is none.
  threshold: int = 0  # With one class: larger values are the class.


@dataclasses.dataclass(frozen=True)
class _Values:
  """The values in the first band of a mask, without the nodata value, which is unknown anyway."""

  counts: tuple[tuple[float, int], ...]  # Values and their pixels; incomplete with too many values.
  lossy: bool  # Whether the file's compression changes values.
  nodata: float | None  # The declared value if pixels have it, unless it is 0.
  problem: str = ""  # Why values do not show what they mean.


def decide(
  paths: Iterable[pathlib.Path], *, classes: int, ignore: int, option: str = "data.mask_ignore"
) -> MaskRule:
  """Returns the meaning of the values of masks that belong together; `ignore` is the user's choice.

  With one class and `ignore` BY_VALUES, 255 is landslide in masks of 0 and 255 only, and unknown beside
  1. JPEG masks of 0 and 255 are split at half. With several classes 255 is unknown. Skips files that
  cannot be read. Raises ValueError that names the file, the values and the remedy if the values have no
  clear meaning.
  """
  values = {}
  for path in dict.fromkeys(paths):
    try:
      values[path] = _values(path, listing.file_key(path))
    except (ImageError, OSError):  # Reading the mask reports it.
      continue
  for path, found in values.items():
    if found.problem and (classes == 1 or not found.problem.startswith(_COLOURS)):
      raise ValueError(
        f"{path}: {found.problem}. Save the mask with one band of 0 for background, 1 for landslides "
        "and 255 for unknown."
      )
  lossy = [path for path, found in values.items() if found.lossy and any(v for v, _ in found.counts)]
  if classes > 1:
    if lossy:
      raise ValueError(
        f"{lossy[0]} is compressed with loss, which changes class numbers: save it as PNG or TIFF."
      )
    return MaskRule(UNKNOWN if ignore == BY_VALUES else ignore)
  counts: collections.Counter = collections.Counter()
  for found in values.values():
    counts.update(dict(found.counts))
  # In files without loss, a few values near 255 may be codes. More of them come from an earlier JPEG.
  many = len(counts) > _FEW or sum(224 <= value < 255 for value in counts) > 2
  if lossy or (many and _is_noisy(counts)):
    path = lossy[0] if lossy else max(values, key=lambda path: len(values[path].counts))
    return _noisy_rule(values, path, counts, ignore, option)
  if ignore != BY_VALUES or not counts:
    return MaskRule(_NONE if ignore == BY_VALUES else ignore)
  return _clean_rule(values, counts, option)


def _noisy_rule(
  values: dict[pathlib.Path, _Values], path: pathlib.Path, counts: collections.Counter, ignore: int,
  option: str,
) -> MaskRule:
  if not any(value <= _HALF for value in counts):
    raise ValueError(_question(path, counts, UNKNOWN, option))
  clean: collections.Counter = collections.Counter()
  for found in values.values():
    clean.update({} if found.lossy else dict(found.counts))
  mixed = any(0 < value <= _HALF for value in clean) and not _is_noisy(clean)
  if not _is_noisy(counts) or mixed:
    raise ValueError(
      f"{path} is compressed with loss, as JPEG is, and the masks' values ({_listed(counts)}) do not "
      "lie around 0 and 255: save masks as PNG or TIFF, with 0 for background and 1 for landslides."
    )
  if ignore not in (BY_VALUES, _NONE):
    raise ValueError(
      f"{path} has values around 0 and 255, as JPEG leaves them, so no single value means unknown "
      f"({option}={ignore}): save the original mask as PNG or TIFF, or leave {option} out."
    )
  _LOG.warning(
    "%s has values around 0 and 255, as JPEG leaves them. Values above %d count as landslide. Save "
    "masks as PNG or TIFF.", path, _HALF,
  )
  return MaskRule(_NONE, _HALF)


def _clean_rule(
  values: dict[pathlib.Path, _Values], counts: collections.Counter, option: str
) -> MaskRule:
  marked = {value for value in counts if value not in (0, _NONE)}  # -1 is unknown in any case.
  others = marked - {UNKNOWN}
  declared = next((item for item in values.items() if item[1].nodata in (1, UNKNOWN)), None)
  if declared and not marked:
    path, value = declared[0], int(declared[1].nodata or 0)
    unknown = f" If it means unknown, set {option}=255." if value == UNKNOWN else ""
    raise ValueError(
      f"{path} declares {value} as nodata, and no mask holds a landslide. If {value} means landslide, "
      f"remove the declaration: gdal_edit.py -unsetnodata {path}.{unknown}"
    )
  strange = {value for value in others if value < 0 or value != int(value)}
  if len(others) > 1:
    strange |= others & _LARGEST
  if UNKNOWN in marked:
    if counts.keys() == {UNKNOWN} or _NONE in counts or len(counts) >= _MAX_VALUES:
      strange.add(UNKNOWN)
    if others and not (1 in others and max(others) <= _FEW):
      strange.add(UNKNOWN)
  if len(others) > 1 and 0 not in counts:
    strange.add(max(others))  # 1 may well be the background.
  if strange or len(counts) >= _MAX_VALUES:
    value = max(strange, key=abs) if strange else UNKNOWN
    raise ValueError(_question(_holder(values, value), counts, value, option))
  if UNKNOWN in marked:
    _LOG.info("%s holds the values %s: 255 means %s.", _holder(values, UNKNOWN), _listed(counts),
              "unknown" if others else "landslide")
  elif len(others) > 1:
    _LOG.warning("%s holds the values %s: all but 0 mean landslide.", _holder(values, max(others)),
                 _listed(counts))
  return MaskRule(UNKNOWN if others and UNKNOWN in marked else _NONE)


def _is_noisy(counts: collections.Counter) -> bool:
  """Returns whether values lie around 0 and 255, as JPEG leaves them at the edges of objects."""
  high = sum(pixels for value, pixels in counts.items() if value >= 192)
  middle = sum(pixels for value, pixels in counts.items() if 64 <= value < 192)
  return 224 <= max(counts) <= 255 and min(counts) >= 0 and 4 * middle <= high


def _question(path: pathlib.Path, counts: collections.Counter, value: float, option: str) -> str:
  return (
    f"{path}: the masks' values ({_listed(counts)}) have no clear meaning. If every value but 0 means "
    f"landslide, set {option}=-1. If {value:g} means unknown, set {option}={value:g}. Otherwise save "
    "the masks with 0 for background and 1 for landslides."
  )


def _listed(counts: collections.Counter) -> str:
  values = sorted(counts)
  first, last = values[:4], values[-2:]
  shown = values if len(values) <= 7 else [*first, "...", *last]
  return ", ".join(f"{value:g}" if isinstance(value, float) else value for value in shown)


def _holder(values: dict[pathlib.Path, _Values], value: float) -> pathlib.Path:
  """Returns the first file that holds a value."""
  return next((p for p, found in values.items() if value in dict(found.counts)), next(iter(values)))


@functools.lru_cache(maxsize=1 << 16)
def _values(path: pathlib.Path, key: str) -> _Values:
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
      if len(counts) >= _MAX_VALUES:
        break
    declared = next((value for value in nodata if value in counts), None)
    for value in nodata:
      counts.pop(value, None)
    return _Values(tuple(counts.most_common(_MAX_VALUES)), _is_lossy(raster), declared, problem)


def _colour_problem(raster: Raster) -> str:
  """Returns why it is unclear which values a mask shows as black, "" if it is clear."""
  inverted = raster.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
  if not inverted and raster.colorinterp[0] == ColorInterp.palette:
    colours = raster.colormap(1)
    inverted = colours[0][:3] == (255, 255, 255) and (0, 0, 0) in [c[:3] for c in colours.values()]
  return f"{_COLOURS} the value 0 as white and another one as black" if inverted else ""


def _band_problem(raster: Raster, first: np.ndarray, window: Window) -> str:
  """Returns what is unclear in a part of a mask with several bands, "" if all say the same."""
  for band in range(2, raster.count + 1):
    values = raster.read(band, window=window)
    if raster.colorinterp[band - 1] == ColorInterp.alpha:
      if not values.all():
        return "it has transparent pixels, which may mean background or unknown"
    elif np.any(np.abs(values.astype(np.float64) - first) > (_HALF if _is_lossy(raster) else 0)):
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
  rows = zip(found[:_MAX_VALUES].tolist(), pixels[:_MAX_VALUES].tolist(), strict=True)
  return {float(value): count for value, count in rows}


def _is_lossy(raster: Raster) -> bool:
  return raster.driver == "JPEG" or raster.compression in (Compression.jpeg, Compression.webp)

"""Decides what the values of raster masks mean, for training, tiles, evaluation and the doctor alike.

Masks come as 0/1, as 0/255, with 255 for unknown pixels, and as JPEG. A single window or file does not
show which of these it is, so all masks of a folder decide together.
"""

import collections
import dataclasses
import logging
import pathlib
from collections.abc import Iterable

from lgag_jax.config import DataConfig
from lgag_jax.imagery import listing, mask_counts
from lgag_jax.imagery.mask_counts import MaskCounts
from lgag_jax.imagery.opening import ImageError
from lgag_jax.imagery.reading import UNKNOWN

_LOG = logging.getLogger(__name__)

BY_VALUES = DataConfig.mask_ignore  # As the value to ignore: the values of the masks decide.
_NONE = -1
_FEW = 16  # Distinct values. A mask with more looks like a picture, or numbers its objects.
_LARGEST = {2**16 - 1, 2**31 - 1, 2**32 - 1}  # Of integers; such a value often means unknown.


@dataclasses.dataclass(frozen=True)
class MaskRule:
  """What the values of masks mean."""

  ignore: int  # The value that means unknown; -1 if there is none.
  threshold: int = 0  # With one class: larger values are the class.


def decide(
  paths: Iterable[pathlib.Path], *, classes: int, ignore: int, option: str = "data.mask_ignore"
) -> MaskRule:
  """Returns the meaning of the values of masks that belong together; `ignore` is the user's choice.

  With one class and `ignore` BY_VALUES, 255 is landslide in masks of 0 and 255 only, and unknown if a
  mask holds 1, too. 1 in some masks and 255 in others has no clear meaning. JPEG masks of 0 and 255 are
  split at half. With several classes 255 is unknown. Skips files that cannot be read. Raises ValueError
  that names the file, the values and the remedy if the values have no clear meaning.
  """
  values = {}
  for path in dict.fromkeys(paths):
    try:
      values[path] = mask_counts.of_file(path, listing.file_key(path))
    except (ImageError, OSError):  # Reading the mask reports it.
      continue
  for path, found in values.items():
    if found.problem and (classes == 1 or not found.problem.startswith(mask_counts.COLOURS)):
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
  if _NONE in counts and counts.keys() <= {0, _NONE}:
    path = _holder(values, _NONE)
    raise ValueError(
      f"{path} holds -1, which usually means unknown, and no mask holds a landslide. If -1 means "
      f"landslide, save 1 there. If it does mean unknown, declare it: gdal_edit.py -a_nodata -1 {path}."
    )
  if ignore != BY_VALUES or not counts:
    return MaskRule(_NONE if ignore == BY_VALUES else ignore)
  return _clean_rule(values, counts, option)


def _noisy_rule(
  values: dict[pathlib.Path, MaskCounts], path: pathlib.Path, counts: collections.Counter, ignore: int,
  option: str,
) -> MaskRule:
  if not any(value <= mask_counts.HALF for value in counts):
    raise ValueError(_question(path, counts, UNKNOWN, option))
  clean: collections.Counter = collections.Counter()
  for found in values.values():
    clean.update({} if found.lossy else dict(found.counts))
  mixed = any(0 < value <= mask_counts.HALF for value in clean) and not _is_noisy(clean)
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
    "masks as PNG or TIFF.", path, mask_counts.HALF,
  )
  return MaskRule(_NONE, mask_counts.HALF)


def _clean_rule(
  values: dict[pathlib.Path, MaskCounts], counts: collections.Counter, option: str
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
  if UNKNOWN in marked and others and not any(_is_beside_others(found) for found in values.values()):
    first = _holder(values, max(others))
    raise ValueError(_question(_holder(values, UNKNOWN), counts, UNKNOWN, option, (
      f" {first} holds {max(others):g}, and no mask holds both, so two conventions may be mixed."
    )))
  if UNKNOWN in marked:
    if counts.keys() == {UNKNOWN} or _NONE in counts or len(counts) >= mask_counts.MAX_VALUES:
      strange.add(UNKNOWN)
    if others and not (1 in others and max(others) <= _FEW):
      strange.add(UNKNOWN)
  if len(others) > 1 and 0 not in counts:
    strange.add(max(others))  # 1 may well be the background.
  if strange or len(counts) >= mask_counts.MAX_VALUES:
    value = max(strange, key=abs) if strange else UNKNOWN
    raise ValueError(_question(_holder(values, value), counts, value, option))
  missing = next((item for item in values.items() if item[1].nodata is not None), None)
  if marked and missing and 0 not in counts:
    path, value = missing[0], f"{missing[1].nodata:.12g}"
    raise ValueError(
      f"{path} declares {value} as nodata, which means unknown, and no mask holds 0: no ground is "
      f"known to have no landslide. If {value} means that, save the mask with 0 there. If it does mean "
      f"unknown, set {option}=-1."
    )
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


def _is_beside_others(found: MaskCounts) -> bool:
  """Returns whether one mask holds 255 and values of landslides: then 255 is none of these."""
  held = {value for value, _ in found.counts} - {0, _NONE}
  return UNKNOWN in held and len(held) > 1


def _question(
  path: pathlib.Path, counts: collections.Counter, value: float, option: str, reason: str = ""
) -> str:
  return (
    f"{path}: the masks' values ({_listed(counts)}) have no clear meaning.{reason} If every value "
    f"but 0 means landslide, set {option}=-1. If {value:g} means unknown, set {option}={value:g}. "
    "Otherwise save the masks with 0 for background and 1 for landslides."
  )


def _listed(counts: collections.Counter) -> str:
  values = sorted(counts)
  first, last = values[:4], values[-2:]
  shown = values if len(values) <= 7 else [*first, "...", *last]
  return ", ".join(f"{value:g}" if isinstance(value, float) else value for value in shown)


def _holder(values: dict[pathlib.Path, MaskCounts], value: float) -> pathlib.Path:
  """Returns the first file that holds a value."""
  return next((p for p, found in values.items() if value in dict(found.counts)), next(iter(values)))

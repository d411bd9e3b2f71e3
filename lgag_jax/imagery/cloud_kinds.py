"""What the values of a cloud mask mean: Sentinel-2's SCL, Landsat's QA_PIXEL, or a mask of 0 and 1.

SCL is the scene classification of Sentinel-2 L2A, QA_PIXEL the quality band of Landsat Collection 2.
"""

import pathlib
import re

import numpy as np
from rasterio.enums import ColorInterp

from lgag_jax.imagery.opening import ImageError
from lgag_jax.imagery.orientation import Raster

UNKNOWN = -1  # Stands for a pixel without a value: nodata, or outside the file.
LARGEST = (1 << 16) - 1
NAMES = {
  "scl": "a scene classification of Sentinel-2 (SCL)", "qa_pixel": "a QA_PIXEL of Landsat",
  "mask": "a mask in which 1 is cloud",
}
_RANGES = {"mask": "0 and 1", "scl": "0 to 11", "qa_pixel": "0, 1 and from 256 on"}
SCL_NO_DATA = 0
SCL_CLOUDED = (1, 3, 8, 9, 10)  # Saturated, cloud shadow, medium and high clouds, cirrus.
_SCL_LARGEST = 11
# Classes from this one on tell that it is SCL. Other products number theirs 0..4 (clear, water, cloud).
_SCL_CERTAIN = 5
_QA_FILL = 0b1
_QA_CLOUDED = 0b11110  # Dilated cloud, cirrus, cloud, cloud shadow.
# First bits of the confidences of cloud, shadow and snow: two bits each, never 0 in measured pixels.
_QA_CONFIDENCES = (8, 10, 12)
_NAMED = {
  "scl": re.compile(r"(?<![a-z0-9])(scl|scene[ _-]?classification)(?![a-z0-9])"),
  "qa_pixel": re.compile(r"(?<![a-z0-9])qa[ _-]?pixel(?![a-z0-9])"),
}
_SHOWN = 8  # Values in a message.


def clouded(values: np.ndarray, kind: str) -> np.ndarray:
  """Returns where values, i32 of any shape, mean cloud, cloud shadow, cirrus or saturated."""
  if kind == "scl":
    return np.isin(values, SCL_CLOUDED)
  if kind == "qa_pixel":
    return ~unknown(values, kind) & (values & _QA_CLOUDED != 0)
  return values == 1


def unknown(values: np.ndarray, kind: str) -> np.ndarray:
  """Returns where values, i32 of any shape, do not tell whether there is a cloud."""
  missing = values == UNKNOWN
  if kind == "scl":
    return missing | (values == SCL_NO_DATA)
  if kind == "qa_pixel":  # No measured pixel has the value 0, with which some exports fill.
    return missing | (values & _QA_FILL != 0) | (values == 0)
  return missing


def hidden(values: np.ndarray, kind: str) -> np.ndarray:
  """Returns where values, i32 of any shape, mean clouds, or do not tell."""
  return clouded(values, kind) | unknown(values, kind)


def require_one_band(raster: Raster, path: pathlib.Path | str) -> None:
  """Raises ImageError naming a file of several bands, of which one is no alpha band."""
  bands = [kind for kind in raster.colorinterp if kind != ColorInterp.alpha]
  if len(bands) != 1:
    raise ImageError(
      f"{path} has {len(bands)} bands, but a cloud mask has one. If band 1 holds the "
      "classes: gdal_translate -b 1 in.tif clouds.tif"
    )


def whole_values(pixels: np.ndarray, valid: np.ndarray, path: pathlib.Path | str) -> np.ndarray:
  """Returns a file's pixels as i32 of their shape, `UNKNOWN` where they are not valid.

  Raises ImageError naming a file with values that no cloud mask has.
  """
  known = pixels[valid]
  invalid = known[~((known >= 0) & (known <= LARGEST) & (known == np.floor(known)))]
  if invalid.size:
    raise ImageError(
      f"{path} holds {invalid[0]:.10g}, but a cloud mask holds whole numbers "
      f"from 0 to {LARGEST}. Name the file of classes or bits, not one of probabilities."
    )
  values = np.full(pixels.shape, UNKNOWN, np.int32)
  values[valid] = known
  return values


def check_values(values: np.ndarray, kind: str, path: pathlib.Path | str) -> None:
  """Raises ImageError naming a file whose name says a kind, but not its values, i32 of any shape."""
  wrong = values[_are_foreign(values, kind)]
  if wrong.size:
    raise ImageError(
      f"{path} holds {wrong[0]}, so it is not {NAMES[kind]}, as its name says. Say which of "
      "its values count as nodata, such as --cloud_classes=2,4, or do without it (--cloud_mask=)."
    )


def named(text: str) -> list[str]:
  """Returns the kinds that a name or description of a file contains."""
  return [kind for kind, words in _NAMED.items() if words.search(text.lower())]


def kind_of(
  values: np.ndarray, path: pathlib.Path, description: str = "", asked: str = "auto",
  dtype: np.dtype = np.dtype(np.uint8),
) -> str:
  """Returns the kind of a file with these values i64[n], all different and known.

  `description` is that of its band, `asked` the flag --cloud_kind, `dtype` its data type. Raises
  ImageError if the values are not of the kind that was asked for, or could be of two kinds.
  """
  if asked != "auto":
    if _are_foreign(values, asked).any():
      raise ImageError(
        f"--clouds={path} holds {_shown(values)}, so it is not {NAMES[asked]}, whose values are "
        f"{_RANGES[asked]}: correct --cloud_kind={asked}. {_remedy(path)}"
      )
    return asked
  names = named(f"{path.stem} {description}")
  is_mask, is_scl = values.max() <= 1, values.max() <= _SCL_LARGEST
  # Nothing but zeros is a clear mask, but in the type of a QA_PIXEL it is one that was filled with 0.
  may_be_fill = dtype == np.uint16 and not values.any()
  if is_mask and not names and not may_be_fill:
    return "mask"
  if not is_mask and is_scl and (names == ["scl"] or (not names and values.max() >= _SCL_CERTAIN)):
    return "scl"
  if not is_scl and names in ([], ["qa_pixel"]) and _are_qa_pixel(values):
    return "qa_pixel"
  possible = [kind for kind in _RANGES if not _are_foreign(values, kind).any()]
  if is_mask and not may_be_fill and "qa_pixel" not in names:
    possible.remove("qa_pixel")
  choices = " or ".join(f"--cloud_kind={kind} ({NAMES[kind]})" for kind in possible)
  asks = f"Say what it is: {choices}. " if choices else ""
  raise ImageError(
    f"What is --clouds={path}? It holds {_shown(values)}, which does not tell. {asks}{_remedy(path)}"
  )


def _are_foreign(values: np.ndarray, kind: str) -> np.ndarray:
  """Returns bool of the shape of values: which ones a file of a kind cannot have.

  The confidence of cloud, from bit 8 on, is never 0 in a measured pixel of QA_PIXEL.
  """
  if kind == "qa_pixel":
    return (values > _QA_FILL) & (values < 1 << min(_QA_CONFIDENCES))
  return values > (_SCL_LARGEST if kind == "scl" else 1)


def _are_qa_pixel(values: np.ndarray) -> bool:
  """Returns whether all values have the bits of a QA_PIXEL, or are its fill."""
  measured = values[(values != _QA_FILL) & (values != 0)]
  set_bits = [(measured >> bit) & 0b11 != 0 for bit in _QA_CONFIDENCES]
  return bool(np.all(measured & _QA_FILL == 0) and np.all(set_bits))


def _shown(values: np.ndarray) -> str:
  listed = ", ".join(map(str, values[:_SHOWN].tolist()))
  word = "only the value" if len(values) == 1 else "the values"
  return f"{word} {listed}{f' and {len(values) - _SHOWN} more' if len(values) > _SHOWN else ''}"


def _remedy(path: pathlib.Path) -> str:
  return (
    "Of any other product, write a mask, 1 for cloud and 0 for clear, such as gdal_calc.py "
    f"-A {path.name} --calc='(A==2)|(A==4)' --type=Byte --hideNoData --outfile=mask.tif"
  )

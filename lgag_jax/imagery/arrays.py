"""Finds the missing pixels of arrays: NumPy's masked arrays, and arrays with attributes (xarray)."""

from typing import Any

import numpy as np

# Attributes that hold a nodata value: CF conventions, rioxarray, and xarray's former open_rasterio.
_NODATA = ("_FillValue", "missing_value", "nodata", "nodatavals")
_SCALES = (("scale_factor", 1), ("add_offset", 0), ("scales", 1), ("offsets", 0))


def masked(image: Any) -> np.ma.MaskedArray:
  """Returns an image as a masked array, in which missing values are masked; raises ValueError.

  Values are missing where a masked array, or one in lists, masks them, and where they equal the nodata
  value among an array's attributes. Values that are still to be scaled are refused, as those of files.
  """
  holds_arrays = _holds_arrays(image)
  parts = [masked(part) for part in image] if holds_arrays else []
  try:
    array = np.ma.stack(parts) if holds_arrays else np.ma.asarray(image)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f"The array is a {type(image).__name__} that NumPy does not read as one array: {error}. Give one "
      "array, or images of one size."
    ) from error
  if holds_arrays:
    return array
  if array.dtype == object:
    raise ValueError(
      "The array holds objects, such as pandas.NA or None: give numbers with NaN for no data, such as "
      "frame.to_numpy(np.float32, na_value=np.nan)."
    )
  attributes = getattr(image, "attrs", None) or {}
  for name, neutral in _SCALES:
    if np.any(_numbers(name, attributes.get(name), neutral) != neutral):
      raise ValueError(
        f"The array has the attribute {name}={attributes[name]}, which lgag does not apply: apply it "
        "(xarray's mask_and_scale=True), or remove it if the training images are not scaled either."
      )
  for name in _NODATA:
    if attributes.get(name) is not None:
      array = _mask_value(array, name, attributes[name])
  return array


def _holds_arrays(image: Any) -> bool:
  """Returns whether an image is a list of arrays, or of such lists; NumPy would drop their masks."""
  return isinstance(image, list | tuple) and any(
    isinstance(part, np.ndarray) or hasattr(part, "attrs") or _holds_arrays(part) for part in image
  )


def _numbers(name: str, value: Any, default: float) -> np.ndarray:
  """Returns the numbers of an attribute f64[n], `default` where it or a band's is None: not given."""
  try:
    return np.array([default if part is None else float(part) for part in np.ravel(value)])
  except (TypeError, ValueError) as error:
    raise ValueError(
      f"The array has the attribute {name}={value!r:.80}, which is not a number: correct or remove it."
    ) from error


def _mask_value(array: np.ma.MaskedArray, name: str, value: Any) -> np.ma.MaskedArray:
  values = _numbers(name, value, np.nan)
  if len(values) > 1 and len(values) != array.shape[-1]:
    raise ValueError(
      f"The array has {len(values)} values in its attribute {name}, but {array.shape[-1]} bands: give "
      "one, or one per band."
    )
  if np.issubdtype(array.dtype, np.floating):  # 1e20 differs between 32 and 64 bits.
    values = values.astype(array.dtype)
  return np.ma.masked_where(np.ma.getmaskarray(array) | (array.data == values), array, copy=False)

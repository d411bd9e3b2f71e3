"""Converts the values of image files to network inputs and to pictures."""

import functools
import logging
import math
from typing import Any

import numpy as np

from lgag_jax.config import DataConfig
from lgag_jax.imagery.opening import ImageError

_LOG = logging.getLogger(__name__)

_MAX_SHIFT = 5.0  # Of an image's mean from the expected one, in standard deviations or half ranges.
_MAX_TRAINING_SHIFT = 10.0  # The same, from the mean of the training images.
DARK_SHARE = 0.25  # Of full scale. Images with all values below it use hardly any of the range.
# The largest values of sensors: 8, 10, 12 and 14 bits, reflectance times 10,000, 16 bits.
_FULL_SCALES = (1.0, 255.0, 1023.0, 4095.0, 10000.0, 16383.0, 65535.0)
_STRETCH = (2, 98)  # Percentiles that become 0 and 255.


def full_scale(dtype: np.dtype, config: DataConfig) -> float:
  """Returns the value that normalise="trunk" maps to 1: max_value, or an integer type's maximum."""
  integer = np.issubdtype(dtype, np.integer)
  return config.max_value or (float(np.iinfo(dtype).max) if integer else 1.0)


def divisor(dtype: np.dtype, config: DataConfig) -> float:
  """Returns what `normalise` divides values of a type by; 1 if it does not look at the type."""
  return full_scale(dtype, config) if config.normalise == "trunk" else 1.0


def likely_full_scale(value: float) -> float:
  """Returns a full scale that suits a largest value.

  It is the smallest one of a sensor, or the value itself, rounded up, if it would fill too little of
  that.
  """
  if value <= 0:
    return _FULL_SCALES[0]
  full = next((full for full in _FULL_SCALES if full >= value), math.inf)
  if value >= DARK_SHARE * full:
    return full
  unit = 10.0 ** (math.floor(math.log10(value)) - 1)  # Two digits, since messages round numbers.
  return float(f"{math.ceil(value / unit) * unit:.3g}")


def scales_by_type(dtype: np.dtype, config: DataConfig) -> bool:
  """Returns whether `normalise` divides values of this type by the type's largest value."""
  return config.normalise == "trunk" and not config.max_value and np.issubdtype(dtype, np.integer)


def check_type(dtype: np.dtype, config: DataConfig, name: str) -> None:
  """Raises ImageError for integers that would be divided by a maximum which images do not have."""
  if not scales_by_type(dtype, config):
    return
  if dtype == np.int8:
    raise ImageError(
      f"{name} holds int8, whose values are from -128 to 127: most likely bytes from 0 to 255, read as "
      "signed. Give them as uint8 (gdal_calc.py -A in.tif --allBands=A --type=Byte "
      "--calc='A.astype(uint8)' --outfile=out.tif, or array.view(np.uint8))."
    )
  if dtype.itemsize > 2:
    raise ImageError(
      f"{name} holds {dtype}, of which images fill only a part of the range, and data.max_value is not "
      "set: give the type of the training images (gdal_translate -ot Byte in.tif out.tif, or "
      "array.astype(np.uint8)), or train with data.max_value set to the largest valid value."
    )


def dark_warning(brightest: float, dtype: np.dtype, config: DataConfig) -> str:
  """Returns what to check if the largest value of an image is far below full scale, else ""."""
  scale = full_scale(dtype, config)
  if config.normalise != "trunk" or brightest >= DARK_SHARE * scale:
    return ""
  other = f", or train with data.max_value={likely_full_scale(brightest):g}" if brightest > 0 else ""
  return (
    f"its values reach {brightest:g}, {brightest / scale:.2%} of the {scale:g} that they are divided "
    "by, so the network sees it almost black. Store its values in the type and the range of the "
    f"training images{other}."
  )


def normalise(image: Any, config: DataConfig) -> Any:
  """Returns pixels [..., channels] of any type as float32, scaled as `config.normalise` says.

  "trunk" scales to [0, 1], "given" to mean 0 and standard deviation 1 per band. Raises ValueError for
  "train", which inputs.normalisation replaces by "given" and measured statistics.
  """
  values = image.astype(np.float32)
  if config.normalise == "trunk":
    return values / np.float32(full_scale(image.dtype, config))
  if config.normalise != "given":
    raise ValueError("data.normalise='train': the training images have not been measured yet.")
  mean = np.array(config.mean, np.float32)
  values -= mean
  # The remainder that float32 cannot hold.
  values -= np.float32(np.array(config.mean) - mean.astype(np.float64))
  values /= np.array(config.std, np.float32)
  return values


def bands_out_of_range(mean: np.ndarray, config: DataConfig) -> np.ndarray:
  """Returns bool [channels]: which bands have a mean far outside the expected range.

  `mean` is f64[channels] over an image, in units of full scale. The expected range is [0, 1], or what
  data.mean and data.std imply for normalise="trunk".
  """
  centre, spread = (np.resize(x or 0.5, len(mean)) for x in (config.mean, config.std))
  return ~(np.abs(mean - centre) <= _MAX_SHIFT * spread)


def check_range(image: np.ndarray, valid: np.ndarray | None, config: DataConfig, name: str) -> None:
  """Raises ImageError naming an image whose type or values are clearly outside the expected range.

  `image` is [H, W, channels] in the file's values, `valid` bool [H, W] or None if all pixels are valid.
  If the expected range is that of the training images, warns once per band instead.
  """
  check_type(image.dtype, config, name)
  unsigned = np.issubdtype(image.dtype, np.unsignedinteger) and not config.max_value
  if (config.normalise == "trunk" and unsigned) or (valid is not None and not valid.any()):
    return
  whole = valid is None or valid.all()  # Choosing pixels copies them.
  values = image.reshape(-1, image.shape[-1]) if whole else image[valid]
  with np.errstate(over="ignore", invalid="ignore"):  # Undeclared nodata values may be anything.
    mean = values.mean(axis=0, dtype=np.float64)
    if config.normalise == "given":
      outside = np.abs(mean - config.mean) > _MAX_TRAINING_SHIFT * np.array(config.std)
      for band in np.flatnonzero(outside) + 1:
        _warn_once(name, int(band))
      return
  scale = full_scale(image.dtype, config)
  outside = bands_out_of_range(mean / scale, config)
  if outside.any():
    band = int(np.argmax(outside))
    low, high = values[:, band].min(), values[:, band].max()
    raise ImageError(
      f"{name} has values from {low:g} to {high:g} in band {band + 1}, but data.normalise='trunk' "
      f"expects values between 0 and {scale:g}: set data.max_value to the largest valid value, or set "
      "data.normalise='train', and declare the nodata value in the file."
    )


@functools.lru_cache(maxsize=4096)
def _warn_once(name: str, band: int) -> None:
  _LOG.warning(
    "%s: band %d has a mean more than %g standard deviations from that of the training images. Check "
    "that it is the same band, in the same unit.", name, band, _MAX_TRAINING_SHIFT,
  )


def display_limits(
  image: np.ndarray, rgb_bands: tuple[int, ...], valid: np.ndarray | None = None
) -> np.ndarray | None:
  """Returns the values [2, 3] that `picture` shows as 0 and 255; None for uint8 and without data."""
  values = _rgb(image, rgb_bands)
  values = (values if valid is None else values[valid]).reshape(-1, 3)
  if image.dtype == np.uint8 or not len(values):
    return None
  return np.percentile(values, _STRETCH, axis=0)


def picture(
  image: np.ndarray, rgb_bands: tuple[int, ...], valid: np.ndarray | None = None,
  limits: np.ndarray | None = None,
) -> np.ndarray:
  """Returns an image [H, W, channels] of any type as u8[H, W, 3] for display.

  `rgb_bands`, counted from 1, are its red, green and blue. With fewer than three channels, shows the
  first in grey. Stretches each band between `limits`, except for uint8; by default these are
  percentiles of its valid pixels.
  """
  if limits is None:
    limits = display_limits(image, rgb_bands, valid)
  image = _rgb(image, rgb_bands)
  if image.dtype == np.uint8:
    return image
  if limits is None:
    return np.zeros(image.shape, np.uint8)
  low, high = limits
  with np.errstate(over="ignore"):
    stretched = (image - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
  return (np.clip(stretched, 0.0, 1.0) * 255.0).astype(np.uint8)


def _rgb(image: np.ndarray, rgb_bands: tuple[int, ...]) -> np.ndarray:
  bands = rgb_bands if image.shape[-1] >= 3 else (1, 1, 1)
  return image[..., [band - 1 for band in bands]]

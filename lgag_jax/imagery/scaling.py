"""From the values of files to those that the network gets, and to pictures."""

import functools
import logging

import numpy as np

from lgag_jax.config import DataConfig
from lgag_jax.imagery.opening import ImageError

_LOG = logging.getLogger(__name__)

_FAR = 5.0  # Deviations, or half ranges, that the mean of an image lies off at most.
_VERY_FAR = 10.0  # The same, off the mean of the training images.
_STRETCH = (2, 98)  # Percentiles that become black and full brightness.


def full_scale(dtype: np.dtype, config: DataConfig) -> float:
  """Returns what normalise="trunk" takes as 1: max_value, or the largest value of an integer type."""
  integer = np.issubdtype(dtype, np.integer)
  return config.max_value or (float(np.iinfo(dtype).max) if integer else 1.0)


def scaled(image: np.ndarray, config: DataConfig) -> np.ndarray:
  """Returns pixels [..., channels] of any type as float32, scaled as `config.normalise` says.

  To [0, 1] for "trunk", for "given" to mean 0 and standard deviation 1 in each band. Raises ValueError
  for "train", which `normalisation` makes "given" by what it has measured.
  """
  values = image.astype(np.float32)
  if config.normalise == "trunk":
    return values / np.float32(full_scale(image.dtype, config))
  if config.normalise != "given":
    raise ValueError("data.normalise='train': the training images have not been measured yet.")
  mean = np.float32(config.mean)
  values -= mean
  values -= np.float32(config.mean - mean.astype(np.float64))  # What float32 cannot hold of it.
  values /= np.float32(config.std)
  return values


def off(mean: np.ndarray, config: DataConfig) -> np.ndarray:
  """Returns which bands' `mean` over an image, f64[channels] in units of full scale, fits no range.

  Not [0, 1], nor what data.mean and data.std say of normalise="trunk".
  """
  centre, spread = np.array(config.mean or 0.5), np.array(config.std or 0.5)
  return ~(np.abs(mean - centre) <= _FAR * spread)


def check(image: np.ndarray, valid: np.ndarray | None, config: DataConfig, name: str) -> None:
  """Raises ImageError naming an image whose values are clearly not in the range that is assumed.

  `image` is [H, W, channels] as the file has it, `valid` bool [H, W] or None for everywhere. Where the
  range is that of the training images, a scene far from it is told of, once a band.
  """
  unsigned = np.issubdtype(image.dtype, np.unsignedinteger) and not config.max_value
  if (config.normalise == "trunk" and unsigned) or (valid is not None and not valid.any()):
    return
  values = image.reshape(-1, image.shape[-1]) if valid is None else image[valid]
  with np.errstate(over="ignore", invalid="ignore"):  # Undeclared missing values may be any.
    mean = values.mean(axis=0, dtype=np.float64)
    if config.normalise == "given":
      strange = np.abs(mean - config.mean) > _VERY_FAR * np.array(config.std)
      for band in np.flatnonzero(strange) + 1:
        _tell_once(name, int(band))
      return
  scale = full_scale(image.dtype, config)
  strange = off(mean / scale, config)
  if strange.any():
    band = int(np.argmax(strange))
    low, high = values[:, band].min(), values[:, band].max()
    raise ImageError(
      f"{name} has values from {low:g} to {high:g} in band {band + 1}, which data.normalise="
      f"'trunk' takes to lie between 0 and {scale:g}: set data.max_value to the largest value meant, "
      "or data.normalise='train', and declare in the file which value means no data."
    )


@functools.lru_cache(maxsize=4096)
def _tell_once(name: str, band: int) -> None:
  _LOG.warning(
    "%s: band %d lies more than %g of training's standard deviations off its mean there. Is it the "
    "same band, in the same unit?", name, band, _VERY_FAR,
  )


def picture(
  image: np.ndarray, rgb_bands: tuple[int, ...], valid: np.ndarray | None = None
) -> np.ndarray:
  """Returns an image [H, W, channels] of any type as u8[H, W, 3] to be looked at.

  `rgb_bands`, from 1, are its red, green and blue; of fewer than three channels the first is its grey.
  Bytes stay as they are; of other types each band is stretched over its valid pixels' percentiles.
  """
  bands = rgb_bands if image.shape[-1] >= 3 else (1, 1, 1)
  image = image[..., [band - 1 for band in bands]]
  if image.dtype == np.uint8:
    return image
  values = (image if valid is None else image[valid]).reshape(-1, 3)
  if not len(values):
    return np.zeros(image.shape, np.uint8)
  low, high = np.percentile(values, _STRETCH, axis=0)
  with np.errstate(over="ignore"):
    stretched = (image - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
  return np.uint8(np.clip(stretched, 0.0, 1.0) * 255.0)

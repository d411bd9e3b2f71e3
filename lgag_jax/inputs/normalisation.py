"""Mean and standard deviation of each band over the training images, measured once per training.

Training writes them to <workdir>/normalisation.json when it starts. Resuming, evaluation and prediction
read them from there, so that they use the numbers that the network was trained with.
"""

import dataclasses
import logging
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from lgag_jax.config import Config, DataConfig
from lgag_jax.imagery.reading import ImageError
from lgag_jax.runtime import preemption, processes, sealed_json
from lgag_jax.runtime.progress import Progress

if TYPE_CHECKING:  # The import loads TensorFlow Datasets, which prediction does not need.
  from lgag_jax.inputs.sources import Source

_LOG = logging.getLogger(__name__)

FILE = "normalisation.json"
_PIECE = 1 << 20  # Pixels processed at once.
_QUEUE = 64  # Images requested at once.
_LARGEST, _SMALLEST = 1e30, 1e-30  # Magnitudes that float32 can work with.
_CONSTANT = 1e-7  # Times the mean: float32 does not resolve a smaller deviation.


class _Moments(NamedTuple):
  """Statistics of some images, pixels without data excluded."""

  images: int
  pixels: int
  mean: np.ndarray  # f64[channels]
  squares: np.ndarray  # f64[channels], the sum of squared differences from the mean.

  def merge(self, other: "_Moments") -> "_Moments":
    """Returns the statistics of both sets of pixels together (Chan, Golub and LeVeque 1979)."""
    pixels = int(self.pixels + other.pixels)
    fraction = other.pixels / max(pixels, 1)
    with np.errstate(over="ignore", invalid="ignore"):
      gap = other.mean - self.mean
      squares = self.squares + other.squares + np.square(gap) * (self.pixels * fraction)
      return _Moments(int(self.images + other.images), pixels, self.mean + gap * fraction, squares)


def _no_pixels(channels: int) -> _Moments:
  return _Moments(0, 0, np.zeros(channels), np.zeros(channels))


def measure_or_resolve(
  config: Config, source: "Source", workdir: pathlib.Path, *, started: bool
) -> Config:
  """Measures the images of a training that is not `started` yet; returns the config from `resolve`.

  Raises ValueError if the images hold no data, or values too large to be averaged.
  """
  if config.data.normalise == "train" and not started:
    content = measure(source, config.data)
    processes.run_on_first(lambda: sealed_json.write(workdir / FILE, content))
  return resolve(config, workdir)


def resolve(config: Config, workdir: pathlib.Path) -> Config:
  """Returns a config with normalise="given" and the workdir's statistics, if it has normalise="train".

  Returns any other config unchanged. Raises FileNotFoundError or ValueError that names the file.
  """
  if config.data.normalise != "train":
    return config
  statistics = processes.run_on_first(lambda: _load(workdir / FILE, config.data.input_channels))
  data = dataclasses.replace(
    config.data, normalise="given", mean=tuple(statistics["mean"]), std=tuple(statistics["std"])
  )
  return dataclasses.replace(config, data=data)


def _load(path: pathlib.Path, channels: int) -> dict[str, Any]:
  remedy = "restore it from a copy of the workdir, or train again in a new workdir"
  if not path.exists():
    raise FileNotFoundError(
      f"{path} is missing. Training with data.normalise='train' wrote it: {remedy}."
    )
  content = sealed_json.read(path, f"To go on, {remedy}.")
  if not isinstance(content, dict) or content.get("bands") != channels:
    raise ValueError(f"{path} is not of {channels} bands: {remedy}.")
  for name, low in (("mean", -_LARGEST), ("std", _SMALLEST)):
    values = content.get(name)
    if not isinstance(values, list) or len(values) != channels:
      raise ValueError(f"{path}: {name} is not a list of {channels} numbers: {remedy}.")
    for value in values:
      if not sealed_json.is_number(value, low, _LARGEST):
        raise ValueError(
          f"{path}: {name} contains {value!r}; it must contain numbers from {low:g} to {_LARGEST:g}: "
          f"{remedy}."
        )
  return {name: [float(value) for value in content[name]] for name in ("mean", "std")}


def measure(source: "Source", config: DataConfig) -> dict[str, Any]:
  """Returns the contents of normalisation.json: bands, images, pixels, and mean and std per band.

  Measures each image once, in float64, over all pixels with data. Several processes divide the images
  among them. Logs a warning for a constant band, and sets its std to 1.
  """
  own_images = range(jax.process_index(), len(source.ids), jax.process_count())
  total = _no_pixels(config.input_channels)
  progress = Progress("normalisation", len(own_images))
  with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
    for first in range(0, len(own_images), _QUEUE):
      preemption.check_if_single_process()
      part = own_images[first : first + _QUEUE]
      # Merged in the order of the images: another order would round differently.
      for moments in pool.map(lambda index: _measure_example(source, index, config), part):
        total = total.merge(moments)
      progress.advance(len(part))
  progress.close()
  gathered = processes.gather({name: np.array([x]) for name, x in total._asdict().items()})
  total = _no_pixels(config.input_channels)
  for row in zip(*(gathered[name] for name in _Moments._fields), strict=True):
    total = total.merge(_Moments(*row))
  count, pixels, mean, squares = total
  if not pixels:
    raise ValueError(
      "data.normalise='train': no pixel of the training images has data in all bands. Check the nodata "
      "values that the files declare."
    )
  std = np.sqrt(squares / pixels)
  if not np.isfinite(std).all():
    raise ValueError(
      f"data.normalise='train': band {int(np.argmin(np.isfinite(std))) + 1} of the training images has "
      "values too large to be averaged: declare the nodata value in the files."
    )
  constant = std <= _CONSTANT * np.abs(mean)
  for band in np.flatnonzero(constant):
    _LOG.warning("Band %d has the value %g in all training images.", band + 1, mean[band])
  return {
    "bands": config.input_channels, "images": int(count), "pixels": int(pixels), "mean": mean.tolist(),
    "std": np.where(constant, 1.0, std).tolist(),
  }


def _measure_example(source: "Source", index: int, config: DataConfig) -> _Moments:
  total = _no_pixels(config.input_channels)
  try:
    image, valid = source.read_valid_pixels(index)
  except ImageError:
    if config.on_bad_image == "error":
      raise
    return total
  rows = max(1, _PIECE // image.shape[1])
  for top in range(0, image.shape[0], rows):
    values = image[top : top + rows][valid[top : top + rows]].astype(np.float64)
    if len(values):
      with np.errstate(over="ignore", invalid="ignore"):
        mean = values.mean(axis=0)
        squares = np.square(values - mean).sum(axis=0)
        total = total.merge(_Moments(0, len(values), mean, squares))
  return total._replace(images=int(total.pixels > 0))

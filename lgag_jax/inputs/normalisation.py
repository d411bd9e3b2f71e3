"""Each band's mean and standard deviation over the training images, measured once and kept.

<workdir>/normalisation.json holds them from the start of a training on: going on, evaluation and
prediction read the same numbers, which are those that the network has learned with.
"""

import dataclasses
import logging
import math
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from lgag_jax.config import Config, DataConfig
from lgag_jax.imagery.reading import ImageError
from lgag_jax.runtime import files, preemption, processes
from lgag_jax.runtime.progress import Progress

if TYPE_CHECKING:  # It imports TensorFlow Datasets: prediction does without.
  from lgag_jax.inputs.sources import Source

_LOG = logging.getLogger(__name__)

FILE = "normalisation.json"
_PIECE = 1 << 20  # Pixels that are worked on at once.
_AT_ONCE = 64  # Images that are asked for at once.
_CONSTANT = 1e-7  # Of the mean: less spread than float32 resolves.

# Images, pixels, and a band's mean and sum of squares about it: (int, int, f64[channels] twice).
_Moments = tuple[int, int, np.ndarray, np.ndarray]


def of_training(config: Config, source: "Source", workdir: pathlib.Path, *, started: bool) -> Config:
  """Returns `resolved`; a training that is not `started` measures its images first, and keeps that.

  Raises ValueError when the images hold no data, or values that cannot be averaged.
  """
  if config.data.normalise == "train" and not started:
    content = measure(source, config.data)
    processes.from_first(lambda: files.write_json(workdir / FILE, content))
  return resolved(config, workdir)


def resolved(config: Config, workdir: pathlib.Path) -> Config:
  """Returns a config with normalise="train" as one that is given what `workdir` keeps.

  Any other is returned as it is. Raises FileNotFoundError or ValueError that names the file.
  """
  if config.data.normalise != "train":
    return config
  kept = processes.from_first(lambda: _load(workdir / FILE, config.data.channels))
  data = dataclasses.replace(
    config.data, normalise="given", mean=tuple(kept["mean"]), std=tuple(kept["std"])
  )
  return dataclasses.replace(config, data=data)


def _load(path: pathlib.Path, channels: int) -> dict[str, Any]:
  remedy = "restore it from a copy of the workdir, or train anew in another one"
  if not path.exists():
    raise FileNotFoundError(f"{path} is missing, which data.normalise='train' wrote: {remedy}.")
  content = files.read_json(path)
  try:
    mean, std = ([float(value) for value in content[name]] for name in ("mean", "std"))
    sound = content["bands"] == len(mean) == len(std) == channels
    if sound and all(map(math.isfinite, mean)) and all(0 < value < math.inf for value in std):
      return {"mean": mean, "std": std}
  except (LookupError, TypeError, ValueError):
    pass
  raise ValueError(f"{path} does not hold means and deviations of {channels} bands: {remedy}.")


def measure(source: "Source", config: DataConfig) -> dict[str, Any]:
  """Returns bands, images, pixels, and lists of each band's mean and standard deviation.

  Over all pixels with data, each image once, in float64; several processes share the images. A constant
  band has a deviation of 1, and is told of.
  """
  mine = range(jax.process_index(), len(source.ids), jax.process_count())
  total = _nothing(config.channels)
  progress = Progress("normalisation", len(mine))
  with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
    for first in range(0, len(mine), _AT_ONCE):
      preemption.check_if_single_process()
      part = mine[first : first + _AT_ONCE]
      # In their order: another order would round differently.
      for found in pool.map(lambda index: _of_example(source, index, config), part):
        total = _joined(total, found)
      progress.advance(len(part))
  progress.close()
  names = ("images", "pixels", "mean", "squares")
  gathered = processes.gather(
    {name: np.array([value]) for name, value in zip(names, total, strict=True)}
  )
  total = _nothing(config.channels)
  for row in zip(*(gathered[name] for name in names), strict=True):
    total = _joined(total, row)
  count, pixels, mean, squares = total
  if not pixels:
    raise ValueError("data.normalise='train': no pixel of the training images holds data in all bands.")
  std = np.sqrt(squares / pixels)
  if not np.isfinite(std).all():
    raise ValueError(
      f"data.normalise='train': band {int(np.argmin(np.isfinite(std))) + 1} of the training images has "
      "values too large to be averaged: declare in the files which value means no data."
    )
  constant = std <= _CONSTANT * np.abs(mean)
  for band in np.flatnonzero(constant):
    _LOG.warning("Band %d has the value %g in all training images.", band + 1, mean[band])
  return {
    "bands": config.channels, "images": int(count), "pixels": int(pixels), "mean": mean.tolist(),
    "std": np.where(constant, 1.0, std).tolist(),
  }


def _of_example(source: "Source", index: int, config: DataConfig) -> _Moments:
  total = _nothing(config.channels)
  try:
    image, valid = source.pixels(index)
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
        piece = (0, len(values), mean, np.square(values - mean).sum(axis=0))
        total = _joined(total, piece)
  return (int(total[1] > 0), *total[1:])


def _nothing(channels: int) -> _Moments:
  return 0, 0, np.zeros(channels), np.zeros(channels)


def _joined(a: _Moments, b: _Moments) -> _Moments:
  """Joins what was found of two sets of pixels (Chan, Golub and LeVeque 1979)."""
  pixels = int(a[1] + b[1])
  share = b[1] / max(pixels, 1)
  with np.errstate(over="ignore", invalid="ignore"):
    gap = b[2] - a[2]
    squares = a[3] + b[3] + np.square(gap) * (a[1] * share)
    return int(a[0] + b[0]), pixels, a[2] + gap * share, squares

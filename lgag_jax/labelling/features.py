"""Summaries of the trunk's outputs for all tiles, computed once in the background and kept on disk."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from lgag_jax.config import Config
from lgag_jax.method import network as networks
from lgag_jax.trunks import pretrained
from lgag_jax.trunks.layers import pooled

_TAPS = (1, 2, 3)  # Of the trunk's four outputs, those of strides 8 and 16.
_SIDES = (128, 256)  # Pixels of a tile as the trunk sees it.
BATCH = 8


class TileFeatures:
  """The features f16[tiles, D] of all tiles; rows that are not known yet are NaN."""

  def __init__(self, path: pathlib.Path, tiles: int):
    """Opens the features that an earlier session kept in `path`, or begins them anew."""
    width = feature_width()
    try:
      self.values = np.lib.format.open_memmap(path, "r+")
      if self.values.shape != (tiles, width) or self.values.dtype != np.float16:
        raise ValueError("features of other tiles")
    except (OSError, ValueError):
      path.unlink(missing_ok=True)
      self.values = np.lib.format.open_memmap(path, "w+", np.float16, (tiles, width))
      self.values[:] = np.nan

  def known(self) -> np.ndarray:
    """Returns bool[tiles]."""
    return ~np.isnan(self.values[:, 0])


def feature_width() -> int:
  """Returns D."""
  trunk = pretrained.TRUNKS[Config().model.trunk]
  return 2 * sum(trunk.WIDTHS[tap] for tap in _TAPS)


def make_summary(tile_size: int) -> Callable[[list[np.ndarray]], np.ndarray]:
  """Returns a function from pictures u8[h, w, 3] of up to a batch of tiles to their features f16[n, D].

  Pictures have the colours that the page shows, so that 16 bits and other bands look alike.
  """
  config = Config()
  network = networks.build(config, "cpu")
  initial = functools.partial(network.init_trunk, channels=3)
  shapes = jax.eval_shape(initial, jax.random.key(0))
  weights = pretrained.packaged_weights(config.model.trunk)
  variables = pretrained.load_trunk(config.model.trunk, weights, shapes)
  side = int(np.clip(tile_size // 32 * 32, *_SIDES))

  @jax.jit
  def summarise(images: jax.Array) -> jax.Array:
    taps = network.frozen({"trunk": variables["params"]}, variables["batch_stats"], images / 255.0)
    return jnp.concatenate([pooled(taps[tap]) for tap in _TAPS], axis=-1).astype(jnp.float16)

  def run(pictures: list[np.ndarray]) -> np.ndarray:
    images = np.zeros((BATCH, side, side, 3), np.float32)
    for image, picture in zip(images, pictures, strict=False):
      resized = Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR)
      image[:] = np.asarray(resized)
    return np.asarray(summarise(images))[: len(pictures)]

  return run


def lower_priority() -> None:
  """Lets the page come first: this thread, and those that it starts, yield the processor."""
  with contextlib.suppress(OSError):
    os.setpriority(os.PRIO_PROCESS, 0, 10)  # Of the calling thread, on Linux.

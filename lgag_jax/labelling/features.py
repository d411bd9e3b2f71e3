"""Summaries of the trunk's outputs for all tiles, computed once in the background and kept on disk."""

import contextlib
import functools
import io
import os
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from lgag_jax.config import Config
from lgag_jax.method import network as networks
from lgag_jax.runtime import files
from lgag_jax.trunks import pretrained
from lgag_jax.trunks.layers import pooled

_TAPS = (1, 2, 3)  # Of the trunk's four outputs, those of strides 8 and 16.
_SIDES = (128, 256)  # Pixels of a tile as the trunk sees it.
BATCH = 8
_TYPE = np.dtype(np.float16)
_ROWS = 8192  # That are read at once.


class TileFeatures:
  """The features f16[tiles, D] of all tiles, in a file; unknown rows are zeros or NaN."""

  def __init__(self, path: pathlib.Path, tiles: int):
    """Opens the features that an earlier session kept in `path`, or begins them anew."""
    self._shape = tiles, feature_width()
    self._row_bytes = self._shape[1] * _TYPE.itemsize
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
      header, {"descr": _TYPE.str, "fortran_order": False, "shape": self._shape}
    )
    self._first = len(header.getvalue())
    size = self._first + tiles * self._row_bytes
    if not path.is_file() or path.is_symlink() or not _begins(path, header.getvalue(), size):
      path.unlink(missing_ok=True)
      with path.open("xb") as file:
        file.write(header.getvalue())
        file.truncate(size)
    self._file = path.open("r+b", buffering=0)

  def known(self) -> np.ndarray:
    """Returns bool[tiles]."""
    tiles, known = np.arange(self._shape[0]), np.zeros(self._shape[0], bool)
    for start in range(0, len(tiles), _ROWS):
      rows = self.read(tiles[start : start + _ROWS])
      known[start : start + _ROWS] = rows.any(axis=1) & ~np.isnan(rows[:, 0])
    return known

  def read(self, numbers: np.ndarray) -> np.ndarray:
    """Returns the features of tiles, f16[n, D]."""
    at = (self._first + int(number) * self._row_bytes for number in numbers)
    content = b"".join(os.pread(self._file.fileno(), self._row_bytes, offset) for offset in at)
    return np.frombuffer(content, _TYPE).reshape(-1, self._shape[1])

  def write(self, numbers: np.ndarray, values: np.ndarray) -> None:
    """Keeps the features f16[n, D] of tiles; raises OSError naming the file, such as on a full disk."""
    for number, row in zip(numbers, values.astype(_TYPE), strict=True):
      files.write_at(self._file, row.tobytes(), self._first + int(number) * self._row_bytes)


def _begins(path: pathlib.Path, header: bytes, size: int) -> bool:
  """Whether a file has a size and begins with `header`."""
  with path.open("rb") as file:
    return path.stat().st_size == size and file.read(len(header)) == header


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

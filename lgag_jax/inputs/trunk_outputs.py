"""What a frozen trunk made of each example, read from where `features` keeps it."""

import copy
import logging
import pathlib

import numpy as np

from lgag_jax.inputs.pipeline import Reader
from lgag_jax.runtime import files

_LOG = logging.getLogger(__name__)


class FeatureCache:
  """The frozen outputs of a source's examples, memory-mapped; masks are read as they are now.

  Each process that filled it left a part; any number of processes reads them all.
  """

  def __init__(self, directory: pathlib.Path, reader: Reader, side: int, channels: int):
    try:
      index = files.read_json(directory / "index.json")
      names, parts, self._run = index["arrays"], index["parts"], index["run"]
      self._bad = frozenset(index["bad"])
      self._parts = [
        [np.load(array_file(directory, name, part, parts), mmap_mode="r") for name in names]
        for part in range(parts)
      ]
    except (OSError, ValueError, LookupError, TypeError) as error:
      raise ValueError(f"{directory} is damaged ({error}): remove it, it is made anew.") from error
    if self._bad:
      _LOG.warning(
        "%d images were bad when their trunk outputs were kept, and are still left out. Once they are "
        "mended, remove %s.", len(self._bad), directory,
      )
    self._reader = reader
    self._image_field = ("image", "float32", (side, side, channels))
    shapes = [array.shape[1:] for array in self._parts[0]]
    self.fields = (
      *((name, "float16", shape) for name, shape in zip(names, shapes, strict=True)),
      ("mask", "uint8", (side, side)),
    )

  def with_images(self) -> "FeatureCache":
    """Returns the same with each example's image, f32[S, S, channels], scaled, beside its taps."""
    other = copy.copy(self)
    *taps, mask = self.fields
    other.fields = (*taps, self._image_field, mask)
    return other

  @property
  def failure(self):
    """What stopped the pipeline: the reader's."""
    return self._reader.failure

  def __call__(self, index: int) -> tuple[np.ndarray, ...]:
    """Returns an example's taps f16[h, w, E], perhaps its image, mask u8[H, W] and weight."""
    part, row = place(index, len(self._parts), self._run)
    read = self._reader if self._image_field in self.fields else self._reader.mask
    *rest, weight = read(index)
    weight = np.float32(0.0) if index in self._bad else weight
    return (*(array[row] for array in self._parts[part]), *rest, weight)


def place(example: int, parts: int, run: int) -> tuple[int, int]:
  """Returns an example's part and its row there: parts took turns, `run` examples at a time."""
  turn, within = divmod(example, parts * run)
  part, offset = divmod(within, run)
  return part, turn * run + offset


def array_file(directory: pathlib.Path, name: str, part: int, parts: int) -> pathlib.Path:
  """Returns the file of a tap's rows that a part holds."""
  return directory / (f"{name}.npy" if parts == 1 else f"{name}.{part}.npy")

"""Reads the cached outputs of a frozen trunk; `training.fill_trunk_outputs` writes them."""

import copy
import logging
import pathlib

import numpy as np

from lgag_jax.inputs.pipeline import Reader
from lgag_jax.runtime import sealed_json

_LOG = logging.getLogger(__name__)


class FeatureCache:
  """The cached trunk outputs of a source's examples, memory-mapped; masks are read from the source.

  Each process that filled the cache wrote one part. Any number of processes can read all parts.
  """

  def __init__(
    self, directory: pathlib.Path, reader: Reader, side: int, channels: int, examples: int
  ):
    try:
      index = sealed_json.read(directory / "index.json", "")
      names, self._run = index["arrays"], _positive(index, "run")
      if names != [f"tap{i}" for i in range(len(names))] or not names:
        raise ValueError(f"index.json: arrays is {names!r}")
      self._bad = frozenset(index["bad"])
      parts = _positive(index, "parts")
      self._parts = [
        [_open(array_file(directory, name, part, parts)) for name in names] for part in range(parts)
      ]
      _check_rows(self._parts, examples, self._run)
    except (OSError, ValueError, LookupError, TypeError) as error:
      raise ValueError(
        f"{directory} is damaged ({error}): remove it. The next run fills the cache again."
      ) from error
    if self._bad:
      _LOG.warning(
        "%d images were bad when their trunk outputs were cached, and are still skipped. After you "
        "repair them, remove %s.", len(self._bad), directory,
      )
    self._reader = reader
    self._image_field = ("image", "float32", (side, side, channels))
    shapes = [array.shape[1:] for array in self._parts[0]]
    self.fields = (
      *((name, "float16", shape) for name, shape in zip(names, shapes, strict=True)),
      ("mask", "uint8", (side, side)),
    )

  def with_images(self) -> "FeatureCache":
    """Returns a copy that also reads each example's image f32[S, S, channels], scaled."""
    other = copy.copy(self)
    *taps, mask = self.fields
    other.fields = (*taps, self._image_field, mask)
    return other

  @property
  def failure(self):
    """The reader's error that stopped the pipeline, None if there is none."""
    return self._reader.failure

  def __call__(self, index: int) -> tuple[np.ndarray | np.float32, ...]:
    """Returns taps f16[h, w, E], after `with_images` the image, mask u8[H, W] and weight."""
    part, row = place(index, len(self._parts), self._run)
    read = self._reader if self._image_field in self.fields else self._reader.mask
    *rest, weight = read(index)
    weight = np.float32(0.0) if index in self._bad else weight
    return (*(array[row] for array in self._parts[part]), *rest, weight)


def _positive(index: dict, name: str) -> int:
  value = index[name]
  if not isinstance(value, int) or not sealed_json.is_number(value, 1, 1 << 40):
    raise ValueError(f"index.json: {name} is {value!r}, not a positive integer")
  return value


def _open(path: pathlib.Path) -> np.ndarray:
  """Opens an array of half floats [n, h, w, E]; np.load would open an archive, too."""
  array = np.lib.format.open_memmap(path, mode="r")
  if array.dtype != np.float16 or array.ndim != 4:
    raise ValueError(f"{path.name} contains {array.dtype}{list(array.shape)}")
  return array


def _check_rows(parts: list[list[np.ndarray]], examples: int, run: int) -> None:
  """Raises ValueError unless every part holds the rows of its examples."""
  for part, arrays in enumerate(parts):
    turns, rest = divmod(examples, len(parts) * run)
    rows = turns * run + min(max(rest - part * run, 0), run)
    for array in arrays:
      if len(array) != rows:
        raise ValueError(f"an array of part {part} has {len(array)} rows, not {rows}")


def place(example: int, parts: int, run: int) -> tuple[int, int]:
  """Returns the part that holds an example, and its row there: parts take turns of `run` examples."""
  turn, within = divmod(example, parts * run)
  part, offset = divmod(within, run)
  return part, turn * run + offset


def array_file(directory: pathlib.Path, name: str, part: int, parts: int) -> pathlib.Path:
  """Returns the file with a part's rows of a tap."""
  return directory / (f"{name}.npy" if parts == 1 else f"{name}.{part}.npy")

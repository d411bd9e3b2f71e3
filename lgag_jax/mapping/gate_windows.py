"""What each window of a map adds to it, so that a preview can open and close windows as a gate does.

The cells of a preview are pixels of the scene, or for a large scene one of several.
"""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from lgag_jax.geo.windows import Axis
from lgag_jax.runtime import array_files, files

_SIDE = 1500  # Cells on the scene's longer side.
_MOST_VALUES = 4 * _SIDE**2  # Of all classes. With more than 4, the side is smaller.
_LEVELS = 255
NAMES = ("image_scores", "places", "values")


def file_name(stem: str) -> str:
  """Returns the file of a map below its output."""
  return f"gate/{stem}.npz"


def cell_shape(height: int, width: int, classes: int) -> tuple[int, int]:
  """Returns the number of rows and columns of cells of a scene of this size in pixels."""
  side = min(_SIDE, math.sqrt(_MOST_VALUES / classes))
  step = max(1, math.ceil(max(height, width) / side))
  return math.ceil(height / step), math.ceil(width / step)


@dataclasses.dataclass(frozen=True)
class GateWindows:
  """The windows of a map before the gate: their image scores, and what they add to each cell."""

  image_scores: np.ndarray  # f32[N, C]
  places: np.ndarray  # i32[N, 4]: the first and the end of the window's rows and columns of cells.
  values: np.ndarray  # u8[total]: of each window [rows, columns, C], its weighted scores times 255.

  def at(
    self, gate: float, mapped_gate: float, shape: tuple[int, int]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores f32[*shape, C] at a gate, and where windows differ from the map's.

    The map was made with `mapped_gate`; its cells have the `shape`.
    """
    classes = self.image_scores.shape[1]
    scores = np.zeros((*shape, classes), np.float32)
    changed = np.zeros((*shape, classes), bool)
    is_open = self.image_scores > gate
    turned = is_open != (self.image_scores > mapped_gate)
    start = 0
    # One at a time: as lists, millions of windows would take gigabytes.
    for number, (top, bottom, left, right) in enumerate(map(np.ndarray.tolist, self.places)):
      part = bottom - top, right - left, classes
      values = self.values[start : start + math.prod(part)].reshape(part)
      scores[top:bottom, left:right] += values * (is_open[number] / np.float32(_LEVELS))
      changed[top:bottom, left:right] |= turned[number]
      start += math.prod(part)
    return scores, changed

  def count_open(self, gate: float) -> int:
    """Returns the number of windows in which a class passes a gate."""
    return int((self.image_scores > gate).any(axis=1).sum())

  def arrays(self) -> dict[str, np.ndarray]:
    """Returns the arrays as a file holds them."""
    return {name: getattr(self, name) for name in NAMES}


def joined(parts: Sequence[GateWindows]) -> GateWindows:
  """Returns the windows of several parts of a scene."""
  return GateWindows(*(np.concatenate([getattr(part, name) for part in parts]) for name in NAMES))


def write(path: pathlib.Path, windows: GateWindows) -> None:
  """Writes the file of a map; raises OSError if it cannot be written."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic_path(path) as partial, partial.open("wb") as file:
    np.savez_compressed(file, allow_pickle=False, **windows.arrays())


def read(path: pathlib.Path, shape: tuple[int, int], classes: int) -> GateWindows:
  """Reads what `write` wrote for cells of a shape; raises ValueError naming a file that is damaged."""
  with contextlib.suppress(ValueError):
    return _checked(array_files.read_arrays(path, NAMES), shape, classes)
  raise ValueError(f"{path} is damaged. Delete it, and make the map again (--mode=predict).")


def _checked(arrays: dict[str, np.ndarray], shape: tuple[int, int], classes: int) -> GateWindows:
  types = {"image_scores": (np.float32, 2), "places": (np.int32, 2), "values": (np.uint8, 1)}
  if {name: (array.dtype, array.ndim) for name, array in arrays.items()} == types:
    found = GateWindows(**arrays)
    count = len(found.places)
    if found.places.shape[1] == 4 and found.image_scores.shape == (count, classes):
      tops, bottoms, lefts, rights = found.places.T.astype(np.int64)
      inside = (tops >= 0) & (tops <= bottoms) & (bottoms <= shape[0])
      inside &= (lefts >= 0) & (lefts <= rights) & (rights <= shape[1])
      sizes = (bottoms - tops) * (rights - lefts) * classes
      if inside.all() and sizes.sum() == len(found.values):
        return found
  raise ValueError("The arrays do not fit together.")


class GateRecorder:
  """Takes the windows of a scene, or of a range `span` of its rows, as they are scored.

  `rows`, `cols` and `span` are in pixels of the scene of `shape` after its `reduction`.
  """

  def __init__(
    self, shape: tuple[int, int], rows: Axis, cols: Axis, span: tuple[int, int], reduction: int,
    classes: int,
  ):
    counts = cell_shape(*shape, classes)
    self._axes = (rows, cols)
    self._pixels = [  # Of the cells' middles, along each axis.
      np.minimum(((np.arange(count) + 0.5) * length / count).astype(int) // reduction, axis.length - 1)
      for count, length, axis in zip(counts, shape, self._axes, strict=True)
    ]
    self._limits = span, (0, cols.length)
    empty = GateWindows(
      np.zeros((0, classes), np.float32), np.zeros((0, 4), np.int32), np.zeros(0, np.uint8))
    self._parts = [empty]

  def add(self, row: int, col: int, scores: np.ndarray, image_scores: np.ndarray) -> None:
    """Takes a window's scores f32[side, side, C] before the gate, and its image scores f32[C]."""
    bounds, weights = [], []
    for axis, pixels, limits, number in zip(
      self._axes, self._pixels, self._limits, (row, col), strict=True
    ):
      span = axis.span(number)
      begin, stop = max(span.start, limits[0]), min(span.stop, limits[1])
      first, end = np.searchsorted(pixels, (begin, stop))
      inside = pixels[first:end] - span.start
      bounds += [first, end]
      weights.append((inside, axis.weights[number, inside]))
    (rows, down), (cols, across) = weights
    part = scores[rows[:, None], cols] * (_LEVELS * down[:, None] * across)[..., None]
    self._parts.append(GateWindows(
      np.asarray(image_scores, np.float32)[None], np.array([bounds], np.int32),
      np.rint(part).astype(np.uint8).ravel(),
    ))

  def windows(self) -> GateWindows:
    """Returns the windows so far."""
    self._parts = [joined(self._parts)]
    return self._parts[0]

  def resume(self, windows: GateWindows) -> None:
    """Continues with the windows of an earlier run."""
    self._parts = [windows]

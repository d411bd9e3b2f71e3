"""Windows that cover a scene or lie below those of another, and the weights that blend their values."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from rasterio.windows import Window

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scale import WindowPlan

_NODES = 21  # On each edge of a window, where it is projected into another file.
_MARGIN = 2  # Pixels of the other file around a window, for interpolation.


@dataclasses.dataclass(frozen=True)
class Axis:
  """Windows of `side` pixels along an axis, with weights that add up to one at each pixel."""

  length: int
  side: int
  starts: tuple[int, ...]
  weights: np.ndarray  # f32[windows, side], zero past the end of an axis shorter than a window.

  def span(self, number: int) -> slice:
    """Returns the pixels of a window, up to the end of the axis."""
    start = self.starts[number]
    return slice(start, min(start + self.side, self.length))

  def complete_until(self, number: int) -> int:
    """Returns the first pixel that a later window may still change."""
    return self.starts[number + 1] if number + 1 < len(self.starts) else self.length

  def overlapping(self, start: int, stop: int) -> list[int]:
    """Returns the numbers of the windows with pixels in [start, stop)."""
    return [i for i, first in enumerate(self.starts) if first < stop and first + self.side > start]


def cover(length: int, side: int, overlap: float, stride: float = 1.0) -> Axis:
  """Returns windows along an axis; neighbours overlap by at least the fraction `overlap` of a window.

  They start at multiples of the network's `stride`, so that a pixel lies in the same cell of the
  network's grid in all of its windows, whatever their side. Only the last window may differ: it ends
  with the axis. Weights are squared sines over the window, divided by their sum at each pixel, so that
  a window only ends abruptly at the scene's border.
  """
  step = max(1.0, side - round(side * overlap))
  step = step // stride * stride or step
  last = max(length - side, 0)
  return axis_at((*(round(start) for start in np.arange(0, last, step)), last), length, side)


def axis_at(starts: Sequence[int], length: int, side: int) -> Axis:
  """Returns windows that begin at `starts`, which must cover the axis, with their weights."""
  profile = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
  total = np.zeros(max(length, side))
  for start in starts:
    total[start : start + side] += profile
  weights = np.stack([profile / total[start : start + side] for start in starts])
  if length < side:
    weights[:, length:] = 0.0
  return Axis(length, side, tuple(starts), weights.astype(np.float32))


def cover_scene(grid: Grid, windows: WindowPlan, overlap: float) -> tuple[Axis, Axis]:
  """Returns the windows along rows and columns of a scene, in pixels after the reduction."""
  lengths = (max(1, size // windows.reduction) for size in (grid.height, grid.width))
  rows, cols = (cover(length, windows.side, overlap, windows.stride) for length in lengths)
  return rows, cols


def window_below(
  transform: Affine, shape: tuple[int, int], to_file: pyproj.Transformer | None, file: Grid
) -> Window | None:
  """Returns the window of a file that holds the pixels of another grid, None if it holds none.

  The pixels, `shape` of them, lie where `transform` says; `to_file` leads from their coordinates to the
  file's, None where these are the same.
  """
  height, width = shape
  along = np.linspace(0, 1, _NODES)
  edge = np.concatenate([
    np.stack([along * width, np.full(_NODES, side * height)], -1) for side in (0, 1)
  ] + [
    np.stack([np.full(_NODES, side * width), along * height], -1) for side in (0, 1)
  ])
  places: Any = transform @ (*edge.T,)
  x, y = places
  if to_file is not None:
    x, y = to_file.transform(x, y)
  points: Any = np.asarray(x), np.asarray(y)
  cols, rows = map(np.asarray, ~file.transform @ points)
  known = np.isfinite(cols) & np.isfinite(rows)
  if not known.any():
    return None
  left, right = cols[known].min(), cols[known].max()
  top, bottom = rows[known].min(), rows[known].max()
  if right <= 0 or bottom <= 0 or left >= file.width or top >= file.height:
    return None
  left, top = max(0, math.floor(left) - _MARGIN), max(0, math.floor(top) - _MARGIN)
  right = min(file.width, math.ceil(right) + _MARGIN)
  bottom = min(file.height, math.ceil(bottom) + _MARGIN)
  return Window(left, top, right - left, bottom - top)

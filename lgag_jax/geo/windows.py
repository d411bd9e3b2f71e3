"""Windows that cover a scene, and the weights that blend their values at a pixel."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scale import WindowPlan


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

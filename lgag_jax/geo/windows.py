"""Windows that cover a scene, and the weights by which what they say of a pixel is blended."""

import dataclasses

import numpy as np

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scale import View


@dataclasses.dataclass(frozen=True)
class Axis:
  """Windows of `side` pixels along an axis; a weight each of their pixels, which add up to one."""

  length: int
  side: int
  starts: tuple[int, ...]
  weights: np.ndarray  # f32[windows, side], zero past the end of an axis shorter than a window.

  def span(self, number: int) -> slice:
    """Returns the pixels of a window that there are."""
    start = self.starts[number]
    return slice(start, min(start + self.side, self.length))

  def settled(self, number: int) -> int:
    """Returns the pixel before which no window after this one reaches."""
    return self.starts[number + 1] if number + 1 < len(self.starts) else self.length

  def touching(self, start: int, stop: int) -> list[int]:
    """Returns the windows that have pixels of [start, stop)."""
    return [i for i, first in enumerate(self.starts) if first < stop and first + self.side > start]


def cover(length: int, side: int, overlap: float, stride: float = 1.0) -> Axis:
  """Lays windows along an axis, neighbours sharing at least the part `overlap` of a window.

  They start at multiples of the network's `stride`, so that wherever windows overlap, whatever their
  side, it sees the same pixels in the same cells of its grid; only the last ends where the axis does.
  Weights are squared sines over the window, divided by their sum at each pixel: no window ends
  abruptly but at the scene's own border.
  """
  step = max(1.0, side - round(side * overlap))
  step = step // stride * stride or step
  last = max(length - side, 0)
  starts = (*(round(start) for start in np.arange(0, last, step)), last)
  profile = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
  total = np.zeros(max(length, side))
  for start in starts:
    total[start : start + side] += profile
  weights = np.stack([profile / total[start : start + side] for start in starts])
  if length < side:
    weights[:, length:] = 0.0
  return Axis(length, side, starts, weights.astype(np.float32))


def cover_scene(grid: Grid, view: View, overlap: float) -> tuple[Axis, Axis]:
  """Returns the windows down and across a scene, in pixels after the view's reduction."""
  lengths = (max(1, size // view.reduction) for size in (grid.height, grid.width))
  return tuple(cover(length, view.side, overlap, view.stride) for length in lengths)

"""Windows that cover a scene or lie below those of another, and the weights that blend their values."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from rasterio.windows import Window

from lgag_jax.geo import antimeridian
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scale import WindowPlan
from lgag_jax.imagery.opening import ImageError

_NODES = 21  # On each edge of a window, where it is projected into another file.
_SHARE_NODES = 100  # Along each side of a scene.
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


def windows_below(
  transform: Affine, shape: tuple[float, float], to_file: pyproj.Transformer | None, file: Grid
) -> list[tuple[Window, Affine]]:
  """Returns the windows of a file that hold the pixels of another grid, [] if none does.

  The pixels, `shape` of them, lie where `transform` says; `to_file` leads from their coordinates to the
  file's, None where these are the same. There are several windows where the pixels reach the file from
  both sides of the 180th meridian. Each comes with its transform from its own pixels to coordinates, as
  resampling needs it.
  """
  height, width = shape
  along = np.linspace(0, 1, _NODES)
  edge = np.concatenate([
    np.stack([along * width, np.full(_NODES, side * height)], -1) for side in (0, 1)
  ] + [
    np.stack([np.full(_NODES, side * width), along * height], -1) for side in (0, 1)
  ])
  x, y = _in_file(edge, transform, to_file, file)
  found = []
  for turned in antimeridian.turned(file):
    cols, rows = _pixels_of(x, y, turned)
    if window := _window(cols, rows, file):
      corner = Affine.translation(window.col_off, window.row_off)
      places = [turned] if to_file is None else antimeridian.in_first_turn(file, window)
      found += [(window, place @ corner) for place in places]
  return found


def parts_below(
  path: pathlib.Path | str, transform: Affine, shape: tuple[int, int],
  to_file: pyproj.Transformer | None, file: Grid, most: int, *, least: int = 1,
  largest: int | None = None, centres: bool = False,
) -> Iterator[tuple[slice, slice, list[tuple[Window, Affine]]]]:
  """Yields the rows and columns of parts of another grid that lie on at most `most` pixels of a file.

  A part has at most `largest` pixels itself. With each part come the windows of the file, as from
  `windows_below`, whose arguments the others are. With `centres` only the centres of the other grid's
  pixels must lie in them: that is enough for the nearest pixel. Raises ImageError naming `path`, the
  file, if a part of `least` pixels on a side lies on more.
  """
  margin = 0.5 if centres else 0.0
  waiting = [(0, 0, *shape)]
  while waiting:
    top, left, bottom, right = waiting.pop()
    height, width = bottom - top, right - left
    corner = transform @ Affine.translation(left + margin, top + margin)
    windows = windows_below(corner, (height - 2 * margin, width - 2 * margin), to_file, file)
    pixels = sum(window.height * window.width for window, _ in windows)
    fits = pixels <= most
    if fits and (largest is None or height * width <= largest):
      yield slice(top, bottom), slice(left, right), windows
    elif not fits and max(height, width) <= least:
      raise ImageError(
        f"{path} has {pixels} pixels in {height} x {width} of the grid that it is read on, more than "
        f"{most}: reduce it first, such as with gdalwarp -tr."
      )
    elif height >= width:
      middle = (top + bottom) // 2
      waiting += [(top, left, middle, right), (middle, left, bottom, right)]
    else:
      middle = (left + right) // 2
      waiting += [(top, left, bottom, middle), (top, middle, bottom, right)]


def share_below(
  transform: Affine, shape: tuple[int, int], to_file: pyproj.Transformer | None, file: Grid
) -> float:
  """Returns the fraction of another grid's pixels that lie in a file, to about a hundredth.

  The arguments are those of `windows_below`.
  """
  centres = (np.arange(_SHARE_NODES) + 0.5) / _SHARE_NODES
  cols, rows = np.meshgrid(centres * shape[1], centres * shape[0])
  x, y = _in_file(np.stack([cols.ravel(), rows.ravel()], -1), transform, to_file, file)
  inside = np.zeros(len(x), bool)
  for turned in antimeridian.turned(file):
    cols, rows = _pixels_of(x, y, turned)
    inside |= (cols >= 0) & (rows >= 0) & (cols <= file.width) & (rows <= file.height)
  return float(inside.sum() / centres.size**2)


def _in_file(
  points: np.ndarray, transform: Affine, to_file: pyproj.Transformer | None, file: Grid
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the known coordinates in a file's system of pixels [n, 2] of another grid."""
  places: Any = transform @ (*points.T,)
  x, y = places
  if to_file is not None:
    x, y = to_file.transform(x, y)
  x, y = np.asarray(x), np.asarray(y)
  known = np.isfinite(x) & np.isfinite(y)
  x, y = x[known], y[known]
  if to_file is not None:  # PROJ returns longitudes from -180 to 180 degrees.
    x = antimeridian.unwrapped(x, np.zeros(len(x), int), antimeridian.period(file))
  return x, y


def _pixels_of(x: np.ndarray, y: np.ndarray, transform: Affine) -> tuple[np.ndarray, np.ndarray]:
  points: Any = x, y
  cols, rows = map(np.asarray, ~transform @ points)
  return cols, rows


def _window(cols: np.ndarray, rows: np.ndarray, file: Grid) -> Window | None:
  """Returns the window of a file around points in its pixels, None if they lie beside it."""
  if not len(cols):
    return None
  left, right, top, bottom = cols.min(), cols.max(), rows.min(), rows.max()
  if right <= 0 or bottom <= 0 or left >= file.width or top >= file.height:
    return None
  left, top = max(0, math.floor(left) - _MARGIN), max(0, math.floor(top) - _MARGIN)
  right = min(file.width, math.ceil(right) + _MARGIN)
  bottom = min(file.height, math.ceil(bottom) + _MARGIN)
  return Window(left, top, right - left, bottom - top)

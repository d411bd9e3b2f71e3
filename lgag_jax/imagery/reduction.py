"""Reduces masks of valid pixels to the fewer pixels of an image that is read at a lower resolution."""

from collections.abc import Callable

import numpy as np
from rasterio.windows import Window

_PIECE = 1 << 22  # Pixels read at once.


def all_valid(
  read: Callable[[Window], np.ndarray], window: Window, shape: tuple[int, int]
) -> np.ndarray:
  """Returns which pixels of a reduced window only have valid contributions, bool [h, w].

  `read` returns the valid mask of a window, bool [H, W]; it is called with strips of `window`.
  """
  if shape == (window.height, window.width):
    return read(window)
  row_starts, row_stops = _contributions(int(window.height), shape[0])
  columns = _contributions(int(window.width), shape[1])
  result = np.empty(shape, bool)
  step = max(1, _PIECE * shape[0] // int(window.height * window.width))
  for first in range(0, shape[0], step):
    rows = slice(first, first + step)
    top, bottom = row_starts[rows][0], row_stops[rows][-1]
    strip = read(Window(window.col_off, window.row_off + int(top), window.width, int(bottom - top)))
    strip = _all_in(strip, row_starts[rows] - top, row_stops[rows] - top)
    result[rows] = _all_in(strip.T, *columns).T
  return result


def _contributions(length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the first pixel, and the one after the last, that contribute to each reduced pixel."""
  edges = np.arange(count + 1) * length
  return edges[:-1] // count, -(-edges[1:] // count)


def _all_in(valid: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
  """Returns whether all rows from starts to stops are valid; neighbours share at most one row."""
  return np.logical_and.reduceat(valid, starts, axis=0) & valid[stops - 1]

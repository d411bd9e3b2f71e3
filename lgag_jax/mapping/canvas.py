"""A scene's scores while its windows come in: a band of rows as high as a window, not the scene."""

import numpy as np

from lgag_jax.geo.windows import Axis


class Canvas:
  """Blends windows, row of windows by row of windows; hands on the rows of pixels that are settled.

  `start` and `stop` bound the rows of pixels that are asked for: the others are not handed on.
  """

  def __init__(self, rows: Axis, cols: Axis, classes: int, start: int, stop: int):
    self._rows, self._cols, self._bounds = rows, cols, (start, stop)
    self._top = rows.starts[rows.overlapping(start, stop)[0]]
    self.band = np.zeros((rows.side, cols.length, classes), np.float32)  # From the row `_top` on.

  def restore(self, row: int, band: np.ndarray) -> None:
    """Goes on before the row of windows `row` with the band that there was then."""
    self._top = self._rows.starts[row]
    self.band[:] = band

  def add(self, row: int, col: int, scores: np.ndarray) -> None:
    """Adds the scores f32[side, side, C] of a window in the row of windows that is under way."""
    down, across = self._rows.span(row), self._cols.span(col)
    height, width = down.stop - down.start, across.stop - across.start
    weights = self._rows.weights[row, :height, None] * self._cols.weights[col, None, :width]
    self.band[:height, across] += scores[:height, :width] * weights[..., None]

  def finish(self, row: int) -> tuple[int, np.ndarray]:
    """Ends a row of windows; returns the first of the rows of pixels that it settles, and them."""
    count = self._rows.complete_until(row) - self._top
    first, (start, stop) = self._top, self._bounds
    settled = self.band[max(start - first, 0) : max(min(stop - first, count), 0)].copy()
    self.band[:-count] = self.band[count:].copy()
    self.band[-count:] = 0.0
    self._top += count
    return max(first, start), settled

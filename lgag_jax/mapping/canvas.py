"""Blends the scores of overlapping windows in a band of rows as high as one window."""

import numpy as np

from lgag_jax.geo.windows import Axis


class Canvas:
  """Blends windows row by row; returns the pixel rows in [start, stop) that no later window changes."""

  def __init__(self, rows: Axis, cols: Axis, classes: int, start: int, stop: int):
    self._rows, self._cols, self._start, self._stop = rows, cols, start, stop
    self._top = rows.starts[rows.overlapping(start, stop)[0]]  # The scene's row that is `band[0]`.
    self.band = np.zeros((rows.side, cols.length, classes), np.float32)

  def restore(self, row: int, band: np.ndarray) -> None:
    """Resumes at the row of windows `row`, with the band as it was before that row."""
    self._top = self._rows.starts[row]
    self.band[:] = band

  def add(self, row: int, col: int, scores: np.ndarray) -> None:
    """Adds a window's scores f32[side, side, C]; `row` must be the current row of windows."""
    down, across = self._rows.span(row), self._cols.span(col)
    height, width = down.stop - down.start, across.stop - across.start
    weights = self._rows.weights[row, :height, None] * self._cols.weights[col, None, :width]
    self.band[:height, across] += scores[:height, :width] * weights[..., None]

  def finish_row(self, row: int) -> tuple[int, np.ndarray]:
    """Ends a row of windows; returns the first pixel row that is now final, and all final scores."""
    count = self._rows.complete_until(row) - self._top
    first = self._top
    final = self.band[max(self._start - first, 0) : max(min(self._stop - first, count), 0)].copy()
    self.band[:-count] = self.band[count:].copy()
    self.band[-count:] = 0.0
    self._top += count
    return max(first, self._start), final

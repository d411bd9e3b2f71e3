"""Windows cover every pixel, weights add up to one, and a block of rows blends like the whole scene."""

import itertools

import numpy as np
import pytest

from lgag_jax.geo.windows import cover
from lgag_jax.mapping.canvas import Canvas


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 15, 16, 17, 64, 101])
def test_windows_cover_and_weights_add_up(length, overlap):
  axis = cover(length, 8, overlap)
  total = np.zeros(length)
  for i, start in enumerate(axis.starts):
    assert 0 <= start <= max(length - 8, 0)
    total[axis.span(i)] += axis.weights[i, : axis.span(i).stop - start]
  np.testing.assert_allclose(total, 1.0, atol=1e-6)
  assert (len(axis.starts) == 1) == (length <= 8)
  assert np.all(8 - np.diff(axis.starts) >= round(8 * overlap))
  assert axis.complete_until(len(axis.starts) - 1) == length


@pytest.mark.parametrize("side", [32, 64, 96])
def test_windows_of_any_side_align_with_the_networks_grid(side):
  for length, overlap, stride in ((500, 0.25, 8), (500, 0.5, 8), (333, 0.25, 5.5)):
    axis = cover(length, side, overlap, stride)
    cells = np.array(axis.starts[:-1]) / stride
    assert len(axis.starts) > 3 and axis.starts[-1] == length - side
    assert np.abs(cells - cells.round()).max() <= 0.5 / stride + 1e-9
    assert (side - np.diff(axis.starts)).min() >= round(side * overlap) - 1
  wide = cover(500, side, 0.25, side)  # A step of a whole window would leave no overlap.
  assert (side - np.diff(wide.starts)).min() >= round(side * 0.25)


def test_weights_decrease_towards_a_neighbour():
  axis = cover(64, 16, 0.5)
  np.testing.assert_array_less(axis.weights[1, 0], 0.05)
  assert axis.weights[0, 0] == 1.0  # Only one window reaches the scene's border.
  assert np.abs(np.diff(axis.weights[1])).max() < 0.2


@pytest.mark.parametrize("shape", [(40, 33), (16, 20), (5, 50), (33, 7)])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_block_of_rows_blends_like_the_whole_scene(shape, parts):
  rng = np.random.default_rng(3)
  rows, cols = cover(shape[0], 16, 0.3), cover(shape[1], 16, 0.3)
  windows = rng.random((len(rows.starts), len(cols.starts), 16, 16, 2), np.float32)
  expected = np.zeros((*shape, 2))
  for i in range(len(rows.starts)):
    for j in range(len(cols.starts)):
      for y in range(rows.starts[i], rows.span(i).stop):
        for x in range(cols.starts[j], cols.span(j).stop):
          weight = rows.weights[i, y - rows.starts[i]] * cols.weights[j, x - cols.starts[j]]
          expected[y, x] += weight * windows[i, j, y - rows.starts[i], x - cols.starts[j]]
  blended = np.full((*shape, 2), np.nan)
  bounds = np.linspace(0, shape[0], parts + 1).astype(int)
  for start, stop in itertools.pairwise(bounds):
    canvas = Canvas(rows, cols, 2, start, stop)
    for i in rows.overlapping(start, stop):
      for j in range(len(cols.starts)):
        canvas.add(i, j, windows[i, j])
      if parts == 2:  # Stopped after each row of windows, and resumed.
        first, rows_done = canvas.finish_row(i)
        band, canvas = canvas.band, Canvas(rows, cols, 2, start, stop)
        if i + 1 < len(rows.starts):
          canvas.restore(i + 1, band)
      else:
        first, rows_done = canvas.finish_row(i)
      blended[first : first + len(rows_done)] = rows_done
  np.testing.assert_allclose(blended, expected, atol=1e-6)

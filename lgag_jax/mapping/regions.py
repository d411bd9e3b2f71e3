"""Finds the connected regions of a mask and measures them, in one pass over blocks of rows."""

import dataclasses
from collections.abc import Iterator
from typing import cast

import numpy as np
import rasterio.features
import scipy.ndimage
import scipy.sparse.csgraph
import shapely
from affine import Affine
from rasterio.windows import Window

from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.mapping import rasters
from lgag_jax.mapping.rasters import MapRaster

_MISSING = -2  # Instead of a piece, where a pixel has no data.


@dataclasses.dataclass(frozen=True)
class Regions:
  """Whole regions, ordered by their last pixels, row by row from the top."""

  class_index: np.ndarray  # i64[N], 1..C.
  pixels: np.ndarray  # i64[N]
  known: np.ndarray  # i64[N], pixels with a probability.
  mean: np.ndarray  # f64[N], probability 0..1; NaN if no pixel has one.
  maximum: np.ndarray  # f64[N], likewise.
  touches_missing: np.ndarray  # bool[N], whether a pixel without data lies beside one of its pixels.
  outlines: np.ndarray  # object[N], shapely.Polygon in whole pixels (column, row).
  at_border: np.ndarray | None = None  # bool[N], whether it reaches the border; None: by the grid.
  wholes: np.ndarray | None = None  # object[N], the outline that each is a part of, or None.


@dataclasses.dataclass
class _Pieces:
  """Parts of regions in the rows read so far."""

  figures: np.ndarray  # f64[n, 7], see `_figures`.
  outlines: list[list[shapely.Polygon]]  # Of each piece, one per block of rows.
  last_row: np.ndarray  # i64[W], the piece of each pixel of the last row; -1 for none, or _MISSING.

  def select(self, mask: np.ndarray) -> "_Pieces":
    """Returns the pieces where `mask`, bool[n], is True."""
    numbers = np.flatnonzero(mask)
    new_numbers = np.full(len(mask) + 2, -1)  # The last entries keep -1 and _MISSING as they are.
    new_numbers[_MISSING] = _MISSING
    new_numbers[numbers] = np.arange(len(numbers))
    return _Pieces(
      self.figures[numbers], [self.outlines[i] for i in numbers], new_numbers[self.last_row]
    )


def find_regions(mask: MapRaster, probability: MapRaster, classes: int) -> Iterator[Regions]:
  """Yields the regions of classes 1..C as they end, each measured on its own class's band.

  Pixels connect across edges, not corners, as in the evaluation: a landslide cannot pass through a
  corner, which has no width. Memory follows the size of a block and the number of regions that reach
  its last row. Raises ValueError naming the mask if it holds another class.
  """
  # Sums are divided by it at the end, so that sums of percent are exact.
  scale = 100.0 if probability.dataset.dtypes[0] == "uint8" else 1.0
  width = mask.dataset.width
  pieces = _Pieces(np.zeros((0, 7)), [], np.full(width, -1))
  step = max(1, rasters.PIXELS_AT_ONCE // width)
  for window in mask.row_blocks():
    values = mask.read(1, window)
    present = np.unique(values).tolist()
    if unknown_classes := [c for c in present if classes < c != UNKNOWN]:
      raise ValueError(
        f"{mask.path} holds class {unknown_classes[0]}, but only {classes} are named: make the map "
        "again."
      )
    scores = {c: probability.read(c, window) for c in present if 0 < c != UNKNOWN}
    for row in range(0, len(values), step):
      part = slice(row, row + step)
      block, first_row = _block_pieces(
        values[part], {c: scores[c][part] for c in scores}, window.row_off + row
      )
      pieces = _join(pieces, block, first_row)
      is_open = np.zeros(len(pieces.figures), bool)
      is_open[pieces.last_row[pieces.last_row >= 0]] = True
      yield _whole_regions(pieces.select(~is_open), scale)
      pieces = pieces.select(is_open)
  yield _whole_regions(pieces, scale)


def parts_of(
  labels: np.ndarray, class_index: int, mask: MapRaster, probability: MapRaster, corner: tuple[int, int]
) -> Regions:
  """Returns the parts of a region of one class, whose pixels i32[h, w] have the numbers 1..N, else 0.

  `corner` is the row and column of the first pixel. Each part must be connected across edges.
  """
  top, left = corner
  height, width = labels.shape
  above, beside = min(top, 1), min(left, 1)  # Missing data beside the box count, too.
  around = mask.read(1, Window(
    left - beside, top - above, min(width + beside + 1, mask.dataset.width - left + beside),
    min(height + above + 1, mask.dataset.height - top + above),
  ))
  beside_missing = scipy.ndimage.binary_dilation(around == UNKNOWN)[above:, beside:][:height, :width]
  scores = probability.read(class_index, Window(left, top, width, height))
  rows, cols = np.nonzero(labels)
  figures = _figures(
    class_index, (rows + top) * mask.dataset.width + cols + left, labels[rows, cols] - 1,
    scores[rows, cols], beside_missing[rows, cols], int(labels.max()),
  )
  pieces = _Pieces(figures, outlines_of(labels, len(figures), corner), np.zeros(0, np.int64))
  return _whole_regions(pieces, 100.0 if scores.dtype == np.uint8 else 1.0)


def _block_pieces(
  values: np.ndarray, scores: dict[int, np.ndarray], top: int
) -> tuple[_Pieces, np.ndarray]:
  """Returns a block's pieces, and the piece of each pixel of its first row, as `last_row` has it."""
  labels, figures, count = np.zeros(values.shape, np.int32), [np.zeros((0, 7))], 0
  missing = values == UNKNOWN
  beside_missing = scipy.ndimage.binary_dilation(missing).ravel()
  for c in scores:
    inside = values == c
    class_labels, class_count = cast(tuple[np.ndarray, int], scipy.ndimage.label(inside))
    positions = np.flatnonzero(inside)
    piece = class_labels.ravel()[positions] - 1
    labels.ravel()[positions] = piece + (count + 1)
    scene_positions = positions + top * values.shape[1]
    figures.append(_figures(
      c, scene_positions, piece, scores[c].ravel()[positions], beside_missing[positions], class_count
    ))
    count += class_count
  first_row, last_row = (
    np.where(missing[row], _MISSING, labels[row].astype(np.int64) - 1) for row in (0, -1)
  )
  return _Pieces(np.concatenate(figures), outlines_of(labels, count, (top, 0)), last_row), first_row


def outlines_of(
  labels: np.ndarray, count: int, corner: tuple[int, int]
) -> list[list[shapely.Polygon]]:
  """Returns the outline of each number 1..count of labels i32[h, w], which begin at row and column."""
  outlines = [[]] * count
  shift = Affine.translation(*corner[::-1])
  # The second argument skips the background, labelled zero.
  for shape, label in rasterio.features.shapes(labels, labels > 0, connectivity=4, transform=shift):
    outline, *holes = shape["coordinates"]
    outlines[int(label) - 1] = [shapely.Polygon(outline, holes)]
  return outlines


def _figures(class_index, positions, piece, scores, beside_missing, count) -> np.ndarray:
  """Measures pieces from their pixels, given as positions, pieces, scores and `beside_missing`.

  Returns class, last position, pixels, pixels with a probability, its sum and its maximum, and whether
  missing data lie beside it (0 or 1), f64[count, 7].
  """
  last = np.empty(count)
  last[piece] = positions  # If several values go to one place, the last one stays.
  pixels = np.bincount(piece, minlength=count)
  touching = np.bincount(piece[beside_missing], minlength=count) > 0
  known = scores <= 100 if scores.dtype == np.uint8 else np.isfinite(scores)
  piece, scores = piece[known], scores[known].astype(np.float64)  # `maximum.at` is fast on float64.
  maximum = np.full(count, -np.inf)
  np.maximum.at(maximum, piece, scores)
  counted, total = np.bincount(piece, minlength=count), np.bincount(piece, scores, minlength=count)
  class_column = np.full(count, class_index)
  return np.stack([class_column, last, pixels, counted, total, maximum, touching], axis=1)


def _join(above: _Pieces, below: _Pieces, first_row: np.ndarray) -> _Pieces:
  """Joins pieces that touch across the border between the rows so far and a new block.

  `first_row`, i64[W], is the piece of each pixel of the block's first row, as `last_row` has it.
  """
  figures = np.concatenate([above.figures, below.figures])
  figures[above.last_row[(above.last_row >= 0) & (first_row == _MISSING)], 6] = 1
  figures[len(above.figures) + first_row[(first_row >= 0) & (above.last_row == _MISSING)], 6] = 1
  touching = (above.last_row >= 0) & (first_row >= 0)
  pairs = np.unique(above.last_row[touching] * len(figures) + len(above.figures) + first_row[touching])
  upper, lower = np.divmod(pairs, len(figures))
  same_class = figures[upper, 0] == figures[lower, 0]
  edges = (upper[same_class], lower[same_class])
  graph = scipy.sparse.coo_array((np.ones(same_class.sum(), bool), edges), (len(figures),) * 2)
  count, region = scipy.sparse.csgraph.connected_components(graph, directed=False)
  class_index, last, maximum, touches_missing = np.full((4, count), -np.inf)
  for column, values in ((0, class_index), (1, last), (5, maximum), (6, touches_missing)):
    np.maximum.at(values, region, figures[:, column])
  sums = [np.bincount(region, figures[:, column], count) for column in (2, 3, 4)]
  outlines = [[] for _ in range(count)]
  for i, outline in zip(region.tolist(), above.outlines + below.outlines, strict=True):
    outlines[i] += outline
  last_row = below.last_row.copy()
  last_row[last_row >= 0] = region[last_row[last_row >= 0] + len(above.figures)]
  columns = [class_index, last, *sums, maximum, touches_missing]
  return _Pieces(np.stack(columns, axis=1), outlines, last_row)


def _whole_regions(pieces: _Pieces, scale: float) -> Regions:
  """Returns pieces that no later row touches as regions; `scale` is the score of probability one."""
  order = np.argsort(pieces.figures[:, 1])
  class_index, _, pixels, known, total, maximum, touches_missing = pieces.figures[order].T
  outlines = np.empty(len(order), object)
  outlines[:] = [merge_outlines(pieces.outlines[i]) for i in order]
  with np.errstate(invalid="ignore"):
    mean = total / known / scale
  return Regions(
    class_index.astype(np.int64), pixels.astype(np.int64), known.astype(np.int64), mean,
    np.where(known > 0, maximum / scale, np.nan), touches_missing > 0, outlines,
  )


def merge_outlines(outlines: list[shapely.Polygon]) -> shapely.Polygon:
  """Returns the union of a region's outlines, without the points that only block borders cause.

  Holes inside a block are already closed, so they stay unchanged. At block borders there are only
  bays, which the union closes to new holes.
  """
  if len(outlines) == 1:
    return outlines[0]
  holes = [hole for outline in outlines for hole in outline.interiors]
  shells = [shapely.Polygon(outline.exterior) for outline in outlines]
  union = cast(shapely.Polygon, shapely.union_all(shells))
  outer, *closed_bays = (_corners(ring) for ring in (union.exterior, *union.interiors))
  return shapely.Polygon(outer, closed_bays + holes)


def _corners(ring: shapely.LinearRing) -> np.ndarray:
  """Returns the points f64[n, 2] at which a ring along pixel edges turns."""
  points = shapely.get_coordinates(ring)[:-1]
  ahead = np.roll(points, -1, axis=0) - points
  behind = points - np.roll(points, 1, axis=0)
  return points[(ahead != 0).argmax(axis=1) != (behind != 0).argmax(axis=1)]

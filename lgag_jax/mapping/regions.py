"""A mask's connected regions, each with its outline and figures, in one pass over blocks of rows."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import rasterio
import rasterio.features
import scipy.ndimage
import scipy.sparse.csgraph
import shapely
from affine import Affine
from rasterio.windows import Window

from lgag_jax.imagery.reading import UNKNOWN

_PIXELS = 1 << 21  # Labelled at once; read at once, likewise or a row of the file's own tiles.


@dataclasses.dataclass(frozen=True)
class Regions:
  """Whole regions, by last pixel, row by row from the top."""

  value: np.ndarray  # i64[N], their class, 1..C.
  pixels: np.ndarray  # i64[N]
  mean: np.ndarray  # f64[N], probability 0..1; NaN where no pixel has one.
  maximum: np.ndarray  # f64[N], likewise.
  outlines: np.ndarray  # object[N], shapely.Polygon in whole pixels (column, row).


@dataclasses.dataclass
class _Pieces:
  """What is known of regions so far: figures as of `_figures`, and outlines a block each."""

  figures: np.ndarray  # f64[n, 6]
  outlines: list[list[shapely.Polygon]]
  row: np.ndarray  # i64[W], of the last row the piece each pixel belongs to, -1 for none.

  def take(self, wanted: np.ndarray) -> "_Pieces":
    numbers = np.flatnonzero(wanted)
    place = np.full(len(wanted) + 1, -1)  # One more: what is -1 stays so.
    place[numbers] = np.arange(len(numbers))
    return _Pieces(self.figures[numbers], [self.outlines[i] for i in numbers], place[self.row])


def row_blocks(raster: rasterio.DatasetReader) -> Iterator[Window]:
  """Yields windows of whole rows from top to bottom, of the file's own tiles as many as fit."""
  tile = raster.block_shapes[0][0]
  rows = tile * max(1, _PIXELS // (tile * raster.width))
  for top in range(0, raster.height, rows):
    yield Window(0, top, raster.width, min(rows, raster.height - top))


def closed(
  mask: rasterio.DatasetReader, probability: rasterio.DatasetReader, classes: int
) -> Iterator[Regions]:
  """Yields the regions of each class 1..C, measured by the class's own band, as they come to an end.

  Pixels are connected by their edges, as the evaluation has it: a corner has no width that a landslide
  could pass. Memory follows the block and the regions that are open at its last row. Raises ValueError
  naming the mask when it holds another class.
  """
  # Divided last, so that sums of percent are exact.
  scale = 100.0 if probability.dtypes[0] == "uint8" else 1.0
  pieces = _Pieces(np.zeros((0, 6)), [], np.full(mask.width, -1))
  step = max(1, _PIXELS // mask.width)
  for window in row_blocks(mask):
    values = mask.read(1, window=window)
    present = np.unique(values).tolist()
    if strange := [c for c in present if classes < c != UNKNOWN]:
      raise ValueError(
        f"{mask.name} holds class {strange[0]}, but only {classes} are named: make the map again."
      )
    scores = {c: probability.read(c, window=window) for c in present if 0 < c != UNKNOWN}
    for row in range(0, len(values), step):
      part = slice(row, row + step)
      block = _pieces(values[part], {c: scores[c][part] for c in scores}, window.row_off + row)
      pieces = _joined(pieces, block)
      is_open = np.zeros(len(pieces.figures), bool)
      is_open[pieces.row[pieces.row >= 0]] = True
      yield _whole(pieces.take(~is_open), scale)
      pieces = pieces.take(is_open)
  yield _whole(pieces, scale)


def _pieces(values: np.ndarray, scores: dict[int, np.ndarray], top: int) -> tuple[_Pieces, np.ndarray]:
  """Returns what a block holds of regions, and the piece of each pixel of its first row."""
  labels, figures, count = np.zeros(values.shape, np.int32), [np.zeros((0, 6))], 0
  for c in scores:
    inside = values == c
    of_class, found = scipy.ndimage.label(inside)
    where = np.flatnonzero(inside)
    piece = of_class.ravel()[where] - 1
    labels.ravel()[where] = piece + (count + 1)
    last = where + top * values.shape[1]
    figures.append(_figures(c, last, piece, scores[c].ravel()[where], found))
    count += found
  outlines = [[]] * count
  # As its own mask: of zeros, what is no region, no outline is made.
  place = Affine.translation(0, top)
  for shape, label in rasterio.features.shapes(labels, labels > 0, connectivity=4, transform=place):
    outline, *holes = shape["coordinates"]
    outlines[int(label) - 1] = [shapely.Polygon(outline, holes)]
  return _Pieces(np.concatenate(figures), outlines, labels[-1].astype(np.int64) - 1), labels[0] - 1


def _figures(value, where, piece, scores, count) -> np.ndarray:
  """Returns class, last pixel, pixels, those with a probability, its sum and maximum, f64[count, 6]."""
  last = np.empty(count)
  last[piece] = where  # Of several values written to one place the last stays.
  pixels = np.bincount(piece, minlength=count)
  known = scores <= 100 if scores.dtype == np.uint8 else np.isfinite(scores)
  piece, scores = piece[known], scores[known].astype(np.float64)  # The type that `at` is fast with.
  maximum = np.full(count, -np.inf)
  np.maximum.at(maximum, piece, scores)
  counted, total = np.bincount(piece, minlength=count), np.bincount(piece, scores, minlength=count)
  return np.stack([np.full(count, value), last, pixels, counted, total, maximum], axis=1)


def _joined(above: _Pieces, block: tuple[_Pieces, np.ndarray]) -> _Pieces:
  """Adds up the pieces of each region that meet where a block follows on what is above it."""
  below, first_row = block
  figures = np.concatenate([above.figures, below.figures])
  met = (above.row >= 0) & (first_row >= 0)
  pairs = np.unique(above.row[met] * len(figures) + len(above.figures) + first_row[met])
  upper, lower = np.divmod(pairs, len(figures))
  same = figures[upper, 0] == figures[lower, 0]  # In their class.
  edges = (upper[same], lower[same])
  graph = scipy.sparse.coo_array((np.ones(same.sum(), bool), edges), (len(figures),) * 2)
  count, region = scipy.sparse.csgraph.connected_components(graph, directed=False)
  value, last, maximum = np.full((3, count), -np.inf)
  for column, values in ((0, value), (1, last), (5, maximum)):
    np.maximum.at(values, region, figures[:, column])
  sums = [np.bincount(region, figures[:, column], count) for column in (2, 3, 4)]
  outlines = [[] for _ in range(count)]
  for i, outline in zip(region.tolist(), above.outlines + below.outlines, strict=True):
    outlines[i] += outline
  row = np.where(below.row < 0, -1, np.r_[region, -1][below.row + len(above.figures)])
  return _Pieces(np.stack([value, last, *sums, maximum], axis=1), outlines, row)


def _whole(pieces: _Pieces, scale: float) -> Regions:
  """Returns regions that have come to an end; `scale` stands for a probability of one."""
  order = np.argsort(pieces.figures[:, 1])
  value, _, pixels, known, total, maximum = pieces.figures[order].T
  outlines = np.empty(len(order), object)
  outlines[:] = [_merged(pieces.outlines[i]) for i in order]
  with np.errstate(invalid="ignore"):
    mean = total / known / scale
  return Regions(
    value.astype(np.int64), pixels.astype(np.int64), mean,
    np.where(known > 0, maximum / scale, np.nan), outlines,
  )


def _merged(outlines: list[shapely.Polygon]) -> shapely.Polygon:
  """Returns the union of a region's outlines, without the points that only blocks have put there.

  A hole inside a block has a row of the region below it: it stays as it is. At blocks' edges there are
  bays alone, that close to new holes.
  """
  if len(outlines) == 1:
    return outlines[0]
  holes = [hole for outline in outlines for hole in outline.interiors]
  whole = shapely.union_all([shapely.Polygon(outline.exterior) for outline in outlines])
  outer, *closed_bays = (_corners(ring) for ring in (whole.exterior, *whole.interiors))
  return shapely.Polygon(outer, closed_bays + holes)


def _corners(ring: shapely.LinearRing) -> np.ndarray:
  """Returns the points f64[n, 2] of a ring along pixels at which it turns."""
  points = shapely.get_coordinates(ring)[:-1]
  ahead = np.roll(points, -1, axis=0) - points
  behind = points - np.roll(points, 1, axis=0)
  return points[(ahead != 0).argmax(axis=1) != (behind != 0).argmax(axis=1)]

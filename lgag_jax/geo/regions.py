"""Statistics of a mask's connected regions, in one pass over blocks of rows."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import rasterio
import scipy.ndimage
import scipy.sparse.csgraph
from rasterio.windows import Window

from lgag_jax.images import UNKNOWN

_PIXELS = 1 << 21  # Labelled at once; read at once, likewise or a row of the file's own tiles.


@dataclasses.dataclass(frozen=True)
class Regions:
  """Figures a region, ordered by first pixel, row by row from the top."""

  first: np.ndarray  # i64[N], row * width + column.
  pixels: np.ndarray  # i64[N]
  mean: np.ndarray  # f64[N], probability 0..1; NaN where no pixel has one.
  maximum: np.ndarray  # f64[N], likewise.


@dataclasses.dataclass
class _Pieces:
  """What blocks have of regions; a piece's number is its place in the columns joined."""

  columns: list[np.ndarray] = dataclasses.field(default_factory=list)  # f64[n, 5], see `_figures`.
  pairs: list[np.ndarray] = dataclasses.field(default_factory=list)  # i64[n, 2], pieces that touch.
  count: int = 0


def row_blocks(raster: rasterio.DatasetReader) -> Iterator[Window]:
  """Yields windows of whole rows from top to bottom, of the file's own tiles as many as fit."""
  tile = raster.block_shapes[0][0]
  rows = tile * max(1, _PIXELS // (tile * raster.width))
  for top in range(0, raster.height, rows):
    yield Window(0, top, raster.width, min(rows, raster.height - top))


def measure(
  mask: rasterio.DatasetReader, probability: rasterio.DatasetReader, classes: int
) -> Regions:
  """Measures the regions, connected by edges, of each class 1..C by the class's own band.

  Raises ValueError naming the mask when it holds another class.
  """
  pieces = _Pieces()
  above: dict[int, np.ndarray] = {}  # Of each class the pieces in the row above, -1 for none.
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
      part, offset = slice(row, row + step), (window.row_off + row) * mask.width
      above = {
        c: _add(pieces, values[part] == c, scores[c][part], offset, above.get(c)) for c in scores
      }
  # Divided last, so that sums of percent are exact.
  return _joined(pieces, 100.0 if probability.dtypes[0] == "uint8" else 1.0)


def _add(pieces: _Pieces, inside: np.ndarray, scores: np.ndarray, offset: int, above) -> np.ndarray:
  """Adds a class's pieces in a block; returns those of its last row."""
  labels, count = scipy.ndimage.label(inside)
  if above is not None:
    touching = (above >= 0) & inside[0]
    pairs = np.stack([above[touching], labels[0][touching] - 1 + pieces.count], axis=1)
    pieces.pairs.append(np.unique(pairs, axis=0))
  last = np.where(inside[-1], labels[-1] - 1 + pieces.count, -1)
  where = np.flatnonzero(inside)
  piece = labels.ravel()[where] - 1
  pieces.columns.append(_figures(where + offset, piece, scores.ravel()[where], count))
  pieces.count += count
  return last


def _figures(where, piece, scores, count) -> np.ndarray:
  """Returns first pixel, pixels, pixels with a probability, their sum and maximum, f64[count, 5]."""
  first = np.empty(count)
  first[piece[::-1]] = where[::-1]  # Of several values written to one place the last stays.
  pixels = np.bincount(piece, minlength=count)
  known = scores <= 100 if scores.dtype == np.uint8 else np.isfinite(scores)
  piece, scores = piece[known], scores[known].astype(np.float64)  # The type that `at` is fast with.
  maximum = np.full(count, -np.inf)
  np.maximum.at(maximum, piece, scores)
  counted, total = np.bincount(piece, minlength=count), np.bincount(piece, scores, minlength=count)
  return np.stack([first, pixels, counted, total, maximum], axis=1)


def _joined(pieces: _Pieces, scale: float) -> Regions:
  """Adds up the pieces of each region; `scale` is what stands for a probability of one."""
  count = pieces.count
  first, pixels, known, total, maximum = np.concatenate([np.zeros((0, 5)), *pieces.columns]).T
  pairs = np.concatenate([np.zeros((0, 2), np.int64), *pieces.pairs])
  graph = scipy.sparse.coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), (count, count))
  regions, region = scipy.sparse.csgraph.connected_components(graph, directed=False)
  starts, highest = np.full(regions, np.inf), np.full(regions, -np.inf)
  np.minimum.at(starts, region, first)
  np.maximum.at(highest, region, maximum)
  pixels, known, total = (np.bincount(region, x, regions) for x in (pixels, known, total))
  order = np.argsort(starts)
  with np.errstate(invalid="ignore"):
    mean = total / known / scale
  return Regions(
    *(x[order].astype(np.int64) for x in (starts, pixels)), mean[order],
    np.where(known > 0, highest / scale, np.nan)[order],
  )

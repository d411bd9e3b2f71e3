"""Joins the regions of blocks across their borders: a landslide over several blocks is one region.

Works down a zone row by row of blocks. Memory follows the number of regions in a row of blocks.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
import shapely

from lgag_jax.blocks.region_files import SIDES, BlockRegions
from lgag_jax.mapping.regions import Regions, merge_outlines

_NONE = -1
# The axis across a side, and whether the side is at its end.
_PLACES = {"top": (1, 0), "bottom": (1, 1), "left": (0, 0), "right": (0, 1)}


@dataclasses.dataclass
class _Pieces:
  """Parts of regions in a row of blocks, and what reaches it from above."""

  figures: np.ndarray  # f64[n, 7]: class, pixels, known, sum, maximum, touches missing, touches border.
  outlines: list[list[shapely.Polygon]]  # In pixels of the zone's grid.


def join(
  blocks: Iterable[tuple[int, int]], side: int, read: Callable[[int, int], BlockRegions | None]
) -> Iterator[Regions]:
  """Yields the regions of a zone's blocks, (row, column) each of `side` pixels, as they end.

  `read` returns the regions of a block, or None if it has no data. Outlines are in pixels of the zone's
  grid. Two regions of a class are one if pixels of theirs share an edge. A region touches the border if
  it reaches a side beyond which there are data, but no block.
  """
  rows: dict[int, list[int]] = {}
  for row, col in sorted(blocks):
    rows.setdefault(row, []).append(col)
  above, hanging = _Pieces(np.zeros((0, 7)), []), {}  # Pieces at the lower side, by column of blocks.
  missing_above: dict[int, np.ndarray | None] = {}
  for row, cols in rows.items():
    if row - 1 not in rows:
      hanging, missing_above = {}, {}
    content = {col: read(row, col) for col in cols}
    pieces, sides = _gather(row, content, side, above)
    pairs = _across_columns(pieces, sides, content)
    pairs += _across_rows(pieces, sides, content, hanging, missing_above)
    below = set(rows.get(row + 1, ()))
    _mark_borders(pieces, sides, content, hanging.keys() | missing_above.keys(), below)
    merged, region = _merge(pieces, pairs)
    hanging = {col: _renumber(sides[col]["bottom"], region) for col in sides}
    is_open = np.zeros(len(merged.figures), bool)
    for col in below & hanging.keys():
      is_open[hanging[col][hanging[col] != _NONE]] = True
    yield _regions(merged, np.flatnonzero(~is_open))
    numbers = np.flatnonzero(is_open)
    above = _Pieces(merged.figures[numbers], [merged.outlines[i] for i in numbers])
    new = np.full(len(is_open) + 1, _NONE)
    new[numbers] = np.arange(len(numbers))
    hanging = {col: _renumber(labels, new) for col, labels in hanging.items()}
    missing_above = {col: one.missing.bottom if one else None for col, one in content.items()}


def _gather(
  row: int, content: Mapping[int, BlockRegions | None], side: int, above: _Pieces
) -> tuple[_Pieces, dict[int, dict[str, np.ndarray]]]:
  """Returns the pieces above and of a row's blocks, and the piece at each pixel of their sides."""
  figures, outlines, sides = [above.figures], list(above.outlines), {}
  for col, block in content.items():
    if block is None:
      continue
    sides[col] = {
      name: _side_labels(block.regions.outlines, name, side, len(outlines)) for name in SIDES
    }
    figures.append(_figures(block.regions))
    shift = np.array([col * side, row * side])
    moved = shapely.transform(block.regions.outlines, lambda points, shift=shift: points + shift)
    outlines += [[outline] for outline in moved]
  return _Pieces(np.concatenate(figures), outlines), sides


def _figures(regions: Regions) -> np.ndarray:
  total = np.where(regions.known > 0, regions.mean * regions.known, 0.0)
  # Sums of percent are whole, so that the order of additions does not matter.
  total = np.where(np.abs(100 * total - np.rint(100 * total)) < 1e-6, np.rint(100 * total) / 100, total)
  maximum = np.where(regions.known > 0, regions.maximum, -np.inf)
  columns = [regions.class_index, regions.pixels, regions.known, total, maximum]
  return np.stack([*columns, regions.touches_missing, np.zeros(len(total))], axis=1).astype(float)


def _side_labels(outlines: np.ndarray, name: str, side: int, first: int) -> np.ndarray:
  """Returns the piece at each pixel along a side of a block, i64[side], counted from `first`."""
  labels = np.full(side, _NONE)
  if not len(outlines):
    return labels
  across, is_end = _PLACES[name]
  along, end = 1 - across, is_end * side
  points, owners = shapely.get_coordinates(shapely.get_exterior_ring(outlines), return_index=True)
  on_side = (points[:-1, across] == end) & (points[1:, across] == end) & (owners[:-1] == owners[1:])
  for i in np.flatnonzero(on_side):
    low, high = sorted((int(points[i, along]), int(points[i + 1, along])))
    labels[low:high] = first + owners[i]
  return labels


def _across_columns(pieces: _Pieces, sides: Mapping, content: Mapping) -> list[np.ndarray]:
  """Returns pairs of pieces that touch between blocks of a row; marks those beside missing data."""
  pairs = []
  for col in content:
    if col + 1 not in content:
      continue
    left, right = content[col], content[col + 1]
    pairs += _touching(
      pieces, sides[col]["right"] if left else None, sides[col + 1]["left"] if right else None,
      left.missing.right if left else None, right.missing.left if right else None,
    )
  return pairs


def _across_rows(
  pieces: _Pieces, sides: Mapping, content: Mapping, hanging: Mapping, missing_above: Mapping
) -> list[np.ndarray]:
  """Returns pairs of pieces that touch between a row of blocks and the one above."""
  pairs = []
  for col, block in content.items():
    if col in missing_above:
      pairs += _touching(
        pieces, hanging.get(col), sides[col]["top"] if block else None, missing_above[col],
        block.missing.top if block else None,
      )
  return pairs


def _touching(pieces, first, second, first_missing, second_missing) -> list[np.ndarray]:
  """Returns the pairs i64[n, 2] of pieces of a class at two facing sides; None is a block without data.

  Marks pieces that lie beside missing data of the other block.
  """
  for labels, missing in ((first, second_missing), (second, first_missing)):
    if labels is not None:
      beside = labels if missing is None else labels[missing]
      pieces.figures[beside[beside != _NONE], 5] = 1.0
  if first is None or second is None:
    return []
  both = (first != _NONE) & (second != _NONE)
  pairs = np.unique(np.stack([first[both], second[both]], axis=1), axis=0)
  return [pairs[pieces.figures[pairs[:, 0], 0] == pieces.figures[pairs[:, 1], 0]]]


def _mark_borders(pieces: _Pieces, sides: Mapping, content: Mapping, above: set, below: set) -> None:
  """Marks pieces at a side of a block beyond which there is no block: data or the map end there."""
  for col, labels in sides.items():
    neighbours = {
      "top": col in above, "bottom": col in below, "left": col - 1 in content,
      "right": col + 1 in content,
    }
    for name, exists in neighbours.items():
      if not exists:
        missing, own = getattr(content[col].missing_beyond, name), labels[name] != _NONE
        pieces.figures[labels[name][own & missing], 5] = 1.0
        pieces.figures[labels[name][own & ~missing], 6] = 1.0


def _merge(pieces: _Pieces, pairs: list[np.ndarray]) -> tuple[_Pieces, np.ndarray]:
  """Returns the pieces with those that touch as one, and the new number of each."""
  count = len(pieces.figures)
  edges = np.concatenate([np.zeros((0, 2), np.int64), *pairs])
  graph = scipy.sparse.coo_array((np.ones(len(edges), bool), edges.T), (count, count))
  new_count, region = scipy.sparse.csgraph.connected_components(graph, directed=False)
  figures = np.zeros((new_count, 7))
  figures[:, [0, 4, 5, 6]] = -np.inf
  for column in (0, 4, 5, 6):
    np.maximum.at(figures[:, column], region, pieces.figures[:, column])
  for column in (1, 2, 3):
    figures[:, column] = np.bincount(region, pieces.figures[:, column], new_count)
  outlines: list[list[shapely.Polygon]] = [[] for _ in range(new_count)]
  for number, parts in zip(region.tolist(), pieces.outlines, strict=True):
    outlines[number] += parts
  return _Pieces(figures, outlines), np.append(region, _NONE)


def _renumber(labels: np.ndarray, new: np.ndarray) -> np.ndarray:
  return new[labels]  # _NONE is the last entry, which stays _NONE.


def _regions(pieces: _Pieces, numbers: np.ndarray) -> Regions:
  class_index, pixels, known, total, maximum, missing, border = pieces.figures[numbers].T
  outlines = np.empty(len(numbers), object)
  outlines[:] = [merge_outlines(pieces.outlines[i]) for i in numbers]
  with np.errstate(invalid="ignore", divide="ignore"):
    mean = total / known
  return Regions(
    class_index.astype(np.int64), pixels.astype(np.int64), known.astype(np.int64), mean,
    np.where(known > 0, maximum, np.nan), missing > 0, outlines, at_border=border > 0,
  )

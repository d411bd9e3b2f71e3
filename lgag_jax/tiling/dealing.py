"""Deals few labelled tiles to training and validation, so that both get tiles of every label.

Blocks chosen without the labels would leave out half of them at borders, and one split might get none.
"""

import collections
import hashlib
import logging
import math
from collections.abc import Mapping

_LOG = logging.getLogger(__name__)

FEW = 400  # Labelled tiles, below which none is left out.
_BLOCK_SIDES = (4, 3, 2, 1)  # In tiles.
_MOST = 0.3  # The largest share of a label's tiles that validation may get.

Tile = tuple[str, int, int]  # The scene's file name, row and column.


def held_out(labels: Mapping[Tile, str], fraction: float) -> set[Tile]:
  """Returns the tiles for validation: whole blocks of neighbours with about `fraction` of every label.

  The blocks are as large as possible. Which ones are taken depends on the tiles alone. A label with a
  single tile stays in training.
  """
  totals = collections.Counter(labels.values())
  wanted = {
    label: min(max(round(fraction * n), 2 if n >= 8 else 1), n // 2) for label, n in totals.items()
  }
  for side in _BLOCK_SIDES:
    blocks: dict[Tile, list[Tile]] = collections.defaultdict(list)
    for scene, row, col in sorted(labels):
      blocks[scene, row // side, col // side].append((scene, row, col))
    counts: collections.Counter[str] = collections.Counter()
    chosen: set[Tile] = set()
    for block in sorted(blocks, key=_sort_key):
      here = collections.Counter(labels[tile] for tile in blocks[block])
      needed = any(counts[label] < wanted[label] for label in here)
      fits = all(
        counts[label] + n <= max(wanted[label], _MOST * totals[label]) for label, n in here.items()
      )
      if needed and fits:
        counts += here
        chosen.update(blocks[block])
    if all(counts[label] >= math.ceil(wanted[label] / 2) for label in totals):
      break
  _LOG.info(
    "Only %d tiles are labelled, so none is left out between training and validation. Blocks of %d x "
    "%d tiles go to one of them as a whole. Where they touch, tiles look alike, and the validation "
    "figures are somewhat too good. To leave tiles out, set --block_buffer.", len(labels), side, side,
  )
  return chosen


def _sort_key(block: Tile) -> bytes:
  return hashlib.blake2b(repr(block).encode(errors="surrogateescape")).digest()

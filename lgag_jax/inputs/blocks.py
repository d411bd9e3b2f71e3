"""Splits scenes by blocks: a whole block goes to one split, with a buffer between the splits.

Neighbouring tiles look alike. If single tiles were split at random, validation tiles would look nearly
the same as training tiles.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence

import numpy as np

from lgag_jax.config import DataConfig
from lgag_jax.inputs import splits

Region = tuple[int, int, int, int]  # Top, bottom, left and right of a part of an image, in pixels.
Block = tuple[str, int, int]  # Name of the image; row and column in its grid of blocks.

# Powers -1 and -2 of the plastic number, times 2^64. Their multiples fill a square evenly.
_ROW_STEP, _COL_STEP = 0xC13FA9A902A6328F, 0x91E10DA5C79E7B1C


@dataclasses.dataclass(frozen=True)
class Axis:
  """Blocks of `side` pixels along [start, stop).

  If the rest at the end is shorter than `tile`, it joins the last block, so that a tile fits into every
  block (unless the whole axis is too short).
  """

  start: int
  stop: int
  side: int
  tile: int

  @property
  def count(self) -> int:
    whole, rest = divmod(self.stop - self.start, self.side)
    return max(1, whole + (rest >= self.tile))

  def span(self, number: int) -> tuple[int, int]:
    """Returns the first pixel of a block, and the first pixel after it."""
    begin = self.start + number * self.side
    return begin, self.stop if number == self.count - 1 else begin + self.side

  def blocks_at(self, start: int, stop: int) -> range:
    """Returns the numbers of the blocks that contain some of the pixels [start, stop)."""
    first, last = max(start, self.start), min(stop, self.stop) - 1
    if first > last:
      return range(0)
    return range(self._number(first), self._number(last) + 1)

  def _number(self, pixel: int) -> int:
    return min((pixel - self.start) // self.side, self.count - 1)


def assign_splits(blocks: Sequence[Block], fraction: float) -> list[str]:
  """Returns "train" or "validation" for each of several distinct blocks.

  round(fraction * number of blocks) become validation. They depend on the images' names, rows and
  columns only, not on the order of `blocks`, and are spread evenly over each image. Raises ValueError
  if a split gets no block.
  """
  count = round(len(blocks) * fraction)
  if not 0 < count < len(blocks):
    split, change = ("validation", "Raise") if count == 0 else ("training", "Lower")
    raise ValueError(
      f"data.validation_fraction={fraction} of {len(blocks)} blocks leaves none for {split}. {change} "
      "it, or make data.block_size smaller to get more blocks."
    )
  order = sorted(blocks, key=lambda block: (_sort_key(*block), block))
  held_out = set(order[:count])
  return ["validation" if block in held_out else "train" for block in blocks]


def _sort_key(image: str, row: int, col: int) -> int:
  """Returns a number below 2^64 to sort blocks by; Python's own hash differs between runs."""
  digest = hashlib.blake2b(image.encode(errors="surrogateescape"), digest_size=8).digest()
  return (int.from_bytes(digest, "big") + row * _ROW_STEP + col * _COL_STEP) % (1 << 64)


class SplitPlan:
  """The parts of each image that belong to one split, and the buffer around validation.

  `regions` lists the parts of all images by name, whatever their split. The parts of one image share a
  grid of blocks, so that overlapping parts are split alike. A slice such as "train[:80%]" counts
  blocks, in the order of `regions` and row by row.

  The held-out blocks are those of data.validation_split. If it is a slice of another split, blocks
  assigned to validation are held out too, unless data.train_split contains them. Raises ValueError if a
  split gets no block, or if the two splits share one.
  """

  def __init__(self, regions: Sequence[tuple[str, Region]], spec: str, config: DataConfig):
    self._buffer = config.block_buffer
    self._grids = _grids(regions, config)
    blocks = list(dict.fromkeys(
      (name, row, col) for name, region in regions
      for row, col in itertools.product(*self._blocks_at(name, region))
    ))
    names = assign_splits(blocks, config.validation_fraction)

    def blocks_of(spec: str) -> set[Block]:
      return {blocks[i] for i in splits.select(spec, names, config)}

    self._own_blocks = blocks_of(spec)
    train, validation = blocks_of(config.train_split), blocks_of(config.validation_split)
    if shared := train & validation:
      raise ValueError(
        f"data.train_split={config.train_split!r} and data.validation_split="
        f"{config.validation_split!r} share {len(shared)} of {len(blocks)} blocks: choose splits "
        "without common blocks, such as 'train[:80%]' and 'train[80%:]'."
      )
    assigned = {b for b, name in zip(blocks, names, strict=True) if name == "validation"}
    self._held_out = {
      name: np.zeros((rows.count, cols.count), bool) for name, (rows, cols) in self._grids.items()
    }
    for name, row, col in validation | (assigned - train):
      self._held_out[name][row, col] = True

  def parts(self, name: str, region: Region) -> list[Region]:
    """Returns the parts of a region that belong to the split, one per block."""
    rows, cols = self._grids[name]
    parts = []
    for row, col in itertools.product(*self._blocks_at(name, region)):
      if (name, row, col) in self._own_blocks:
        (top, bottom), (left, right) = rows.span(row), cols.span(col)
        parts.append((
          max(top, region[0]), min(bottom, region[1]), max(left, region[2]), min(right, region[3]),
        ))
    return parts

  def in_buffer(self, name: str, tile: Region) -> bool:
    """Returns whether a training tile has pixels within the buffer around a held-out block."""
    if self._meets_held_out(name, tile):  # A tile lies in one block, so this one is held out itself.
      return False
    top, bottom, left, right = tile
    reach = self._buffer
    return self._meets_held_out(name, (top - reach, bottom + reach, left - reach, right + reach))

  def _meets_held_out(self, name: str, region: Region) -> bool:
    rows, cols = self._blocks_at(name, region)
    return bool(self._held_out[name][rows.start : rows.stop, cols.start : cols.stop].any())

  def _blocks_at(self, name: str, region: Region) -> tuple[range, range]:
    rows, cols = self._grids[name]
    return rows.blocks_at(*region[:2]), cols.blocks_at(*region[2:])


def _grids(regions: Sequence[tuple[str, Region]], config: DataConfig) -> dict[str, tuple[Axis, Axis]]:
  """Returns for each image the rows and columns of the grid of blocks that covers all its regions."""
  bounds: dict[str, Region] = {}
  for name, (top, bottom, left, right) in regions:
    old = bounds.get(name, (top, bottom, left, right))
    bounds[name] = min(old[0], top), max(old[1], bottom), min(old[2], left), max(old[3], right)
  sides = config.block_size, config.tile_size
  return {
    name: (Axis(top, bottom, *sides), Axis(left, right, *sides))
    for name, (top, bottom, left, right) in bounds.items()
  }

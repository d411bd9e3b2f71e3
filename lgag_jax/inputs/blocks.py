"""Blocks: neighbouring parts of a scene go to one split together, with a distance to the other split.

Neighbouring tiles look alike, so tiles dealt one by one would test a model on what it has all but seen.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence

import numpy as np

from lgag_jax.config import DataConfig
from lgag_jax.inputs import splits

Region = tuple[int, int, int, int]  # Of an image, in pixels: top, bottom, left, right.
Block = tuple[str, int, int]  # Image, row and column of its grid.

# Fractions of 2^64 that come closest to filling the square evenly (the plastic number's powers -1, -2).
_ROW_STEP, _COL_STEP = 0xC13FA9A902A6328F, 0x91E10DA5C79E7B1C


@dataclasses.dataclass(frozen=True)
class Axis:
  """Blocks of `side` pixels along [start, stop); the last also takes a rest shorter than `tile`.

  So no block is too small for a tile unless the whole is.
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
    """Returns the first pixel of a block and the one after its last."""
    begin = self.start + number * self.side
    return begin, self.stop if number == self.count - 1 else begin + self.side

  def touched(self, start: int, stop: int) -> range:
    """Returns the numbers of the blocks that the pixels [start, stop) lie in, those outside aside."""
    first, last = max(start, self.start), min(stop, self.stop) - 1
    if first > last:
      return range(0)
    return range(self._number(first), self._number(last) + 1)

  def _number(self, pixel: int) -> int:
    return min((pixel - self.start) // self.side, self.count - 1)


def deal(blocks: Sequence[Block], fraction: float) -> list[str]:
  """Returns "train" or "validation" for each of distinct blocks, whose order does not matter.

  round(fraction * number of blocks) are validation. A block's turn follows from its image's name, row
  and column alone, and spreads validation evenly over each image. Raises ValueError when a split gets
  no block.
  """
  count = round(len(blocks) * fraction)
  if not 0 < count < len(blocks):
    split, change = ("validation", "Raise") if count == 0 else ("training", "Lower")
    raise ValueError(
      f"data.validation_fraction={fraction} of {len(blocks)} blocks leaves none for {split}. {change} "
      "it, or make data.block_size smaller, for more blocks."
    )
  order = sorted(blocks, key=lambda block: (_place(*block), block))
  held_out = set(order[:count])
  return ["validation" if block in held_out else "train" for block in blocks]


def _place(image: str, row: int, col: int) -> int:
  """Returns a number below 2^64 that tells when a block's turn is; Python's own hash changes by run."""
  digest = hashlib.blake2b(image.encode(errors="surrogateescape"), digest_size=8).digest()
  return (int.from_bytes(digest, "big") + row * _ROW_STEP + col * _COL_STEP) % (1 << 64)


class Plan:
  """Which part of each image a split has, and what of it lies too near to validation.

  `regions` are all parts that there are of images by name, whatever their split; the parts of one
  image share a grid over all of them, so that overlapping ones are split alike. A slice such as
  "train[:80%]" counts blocks, in the order of `regions` and row by row.

  Held out are the blocks of data.validation_split and, when it is a slice of another split, those
  dealt to validation as well, unless data.train_split asks for them. Raises ValueError when a split
  gets no block, or when the two splits share one.
  """

  def __init__(self, regions: Sequence[tuple[str, Region]], spec: str, config: DataConfig):
    self._buffer = config.block_buffer
    self._grids = _grids(regions, config)
    blocks = list(dict.fromkeys(
      (name, row, col) for name, region in regions
      for row, col in itertools.product(*self._touched(name, region))
    ))
    names = deal(blocks, config.validation_fraction)

    def chosen(spec: str) -> set[Block]:
      return {blocks[i] for i in splits.select(spec, names, config)}

    self._chosen = chosen(spec)
    train, validation = chosen(config.train_split), chosen(config.validation_split)
    if shared := train & validation:
      raise ValueError(
        f"data.train_split={config.train_split!r} and data.validation_split="
        f"{config.validation_split!r} share {len(shared)} of {len(blocks)} blocks: choose splits with "
        "none in common, such as 'train[:80%]' and 'train[80%:]'."
      )
    dealt = {b for b, name in zip(blocks, names, strict=True) if name == "validation"}
    self._held_out = {
      name: np.zeros((rows.count, cols.count), bool) for name, (rows, cols) in self._grids.items()
    }
    for name, row, col in validation | (dealt - train):
      self._held_out[name][row, col] = True

  def parts(self, name: str, region: Region) -> list[Region]:
    """Returns what the split has of a region: its pixels of each chosen block."""
    rows, cols = self._grids[name]
    found = []
    for row, col in itertools.product(*self._touched(name, region)):
      if (name, row, col) in self._chosen:
        (top, bottom), (left, right) = rows.span(row), cols.span(col)
        found.append((
          max(top, region[0]), min(bottom, region[1]), max(left, region[2]), min(right, region[3]),
        ))
    return found

  def too_near(self, name: str, tile: Region) -> bool:
    """Tells whether a tile that is not held out has pixels within the buffer of a held-out block."""
    if self._meets_held_out(name, tile):  # It lies within one block: it is held out itself.
      return False
    top, bottom, left, right = tile
    reach = self._buffer
    return self._meets_held_out(name, (top - reach, bottom + reach, left - reach, right + reach))

  def _meets_held_out(self, name: str, region: Region) -> bool:
    rows, cols = self._touched(name, region)
    return bool(self._held_out[name][rows.start : rows.stop, cols.start : cols.stop].any())

  def _touched(self, name: str, region: Region) -> tuple[range, range]:
    rows, cols = self._grids[name]
    return rows.touched(*region[:2]), cols.touched(*region[2:])


def _grids(
  regions: Sequence[tuple[str, Region]], config: DataConfig
) -> dict[str, tuple[Axis, Axis]]:
  """Returns the rows and columns of blocks over all of each image's regions."""
  ends: dict[str, Region] = {}
  for name, (top, bottom, left, right) in regions:
    old = ends.get(name, (top, bottom, left, right))
    ends[name] = min(old[0], top), max(old[1], bottom), min(old[2], left), max(old[3], right)
  sides = config.block_size, config.tile_size
  return {
    name: (Axis(top, bottom, *sides), Axis(left, right, *sides))
    for name, (top, bottom, left, right) in ends.items()
  }

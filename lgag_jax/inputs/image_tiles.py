"""Tiles: windows of fixed size that cover an image, or a part of it."""

import dataclasses

from rasterio.windows import Window

from lgag_jax.inputs.blocks import Region


@dataclasses.dataclass(frozen=True)
class Tile:
  """A window of an image. Its first `overlap_rows` and `overlap_cols` belong to the tile before it."""

  row: int
  col: int
  height: int
  width: int
  overlap_rows: int = 0
  overlap_cols: int = 0

  def window(self) -> Window:
    return Window(self.col, self.row, self.width, self.height)

  def key(self) -> str:
    """Returns the text that identifies the tile in caches on disk; it must never change."""
    return (
      f"Tile(row={self.row}, col={self.col}, height={self.height}, width={self.width}, "
      f"seen_rows={self.overlap_rows}, seen_cols={self.overlap_cols})"
    )


def tiles(height: int, width: int, side: int) -> list[Tile]:
  """Returns square tiles of `side` pixels that cover an image; the last ones are moved inwards to fit.

  An image smaller than a tile is one tile of its own size. So is any image if `side` is 0.
  """
  if side == 0:
    return [Tile(0, 0, height, width)]
  rows, cols = _starts(height, side), _starts(width, side)
  return [
    Tile(row, col, min(side, height), min(side, width), overlap_rows, overlap_cols)
    for row, overlap_rows in rows for col, overlap_cols in cols
  ]


def _starts(length: int, side: int) -> list[tuple[int, int]]:
  """Returns the start and the overlap with the previous tile, in pixels, of each tile along an axis."""
  regular = list(range(0, max(length - side, 0) + 1, side))
  starts = [(start, 0) for start in regular]
  covered = regular[-1] + side
  if covered < length:
    starts.append((length - side, covered - (length - side)))
  return starts


def cut(region: Region, side: int) -> list[Tile]:
  """Returns the tiles of a part of an image."""
  top, bottom, left, right = region
  return [
    dataclasses.replace(tile, row=tile.row + top, col=tile.col + left)
    for tile in tiles(bottom - top, right - left, side)
  ]

"""Patches and scenes with masks, whole or cut into tiles whose image labels come from the masks."""

import dataclasses
import logging
import pathlib

import numpy as np
from rasterio.windows import Window

from lgag_jax.config import DataConfig
from lgag_jax.imagery import listing, reading
from lgag_jax.inputs import blocks, splits
from lgag_jax.runtime import preemption

_LOG = logging.getLogger(__name__)

_MAX_TILES = 1 << 20  # Of an image: a header may claim any size, and each tile takes memory.


@dataclasses.dataclass(frozen=True)
class Tile:
  """A window of an image; its first `seen_rows` and `seen_cols` belong to a tile before it."""

  row: int
  col: int
  height: int
  width: int
  seen_rows: int = 0
  seen_cols: int = 0

  def window(self) -> Window:
    return Window(self.col, self.row, self.width, self.height)


def tiles(height: int, width: int, side: int) -> list[Tile]:
  """Covers an image with windows of `side`; the last ones are moved inwards to fit.

  An image smaller than a tile, and any image with side 0, is one tile of its own size.
  """
  if side == 0:
    return [Tile(0, 0, height, width)]
  rows, cols = _starts(height, side), _starts(width, side)
  return [
    Tile(row, col, min(side, height), min(side, width), seen_rows, seen_cols)
    for row, seen_rows in rows
    for col, seen_cols in cols
  ]


def _starts(length: int, side: int) -> list[tuple[int, int]]:
  """Returns (start, pixels already covered) of each window along one axis."""
  regular = list(range(0, max(length - side, 0) + 1, side))
  starts = [(start, 0) for start in regular]
  covered = regular[-1] + side
  if covered < length:
    starts.append((length - side, covered - (length - side)))
  return starts


class PatchSource:
  """Images with masks: `images/` and `masks/` of the same names, or what a manifest lists.

  The manifest is a CSV with the column `file` (a name in both folders) or `image` and `mask` (paths
  from the data's root), optionally `split`, and `row_start`, `row_stop`, `col_start`, `col_stop` to
  use a part of an image only. A tile is positive for a class when its mask has enough of it
  (`data.min_mask_pixels` and `data.min_mask_fraction`); tiles without any data are left out.

  Without a `split` anywhere, images are dealt to the splits whole, by order, or with data.block_size
  in blocks: then no tile crosses a block's border, and training tiles within data.block_buffer pixels
  of a validation block are left out. Raises ValueError when that leaves a split empty.

  With `faults`, pairs that cannot be used are left out and named there, path and reason. Without, the
  first raises, or with data.on_bad_image="skip" the first beyond data.max_bad_images.
  """

  has_masks = True

  def __init__(self, config: DataConfig, spec: str, faults: dict[str, str] | None = None):
    self._config = config
    self._faults = faults
    self.bad: dict[str, str] = {}  # Images left out since data.on_bad_image="skip", with the reason.
    self._plan: blocks.Plan | None = None
    self._cut_tiles = self._left_out = 0  # Of the split's blocks, and those of them not used.
    self.ids, self.keys, self._tiles, labels = [], [], [], []
    for image, mask, region in self._rows(spec):
      preemption.check_if_single_process()
      try:
        found = self._labelled_tiles(image, mask, region)
      except (ValueError, OSError) as error:
        self._leave_out(image, error)
        continue
      for tile, label in found:
        whole = not (config.tile_size or region)
        name = image.name if whole else f"{image.name}[{tile.row}:{tile.col}]"
        self.ids.append(name)
        self._tiles.append((image, mask, tile))
        self.keys.append(f"{listing.file_key(image)} {tile}")
        labels.append(label)
    self.labels = np.array(labels, np.float32).reshape(-1, len(config.classes))
    self._tell_left_out(spec)

  def files(self, index: int) -> tuple[pathlib.Path, pathlib.Path]:
    return self._tiles[index][:2]

  def _rows(self, spec: str) -> list[splits.Row]:
    config, root = self._config, splits.require_directory(self._config)
    rows, names = splits.listed(config, root)
    if not config.block_size or any(names):
      if config.block_size:
        _LOG.warning("The manifest names splits: data.block_size=%d is not used.", config.block_size)
      return [rows[i] for i in splits.select(spec, names, config)]
    usable = []
    for image, mask, region in rows:
      preemption.check_if_single_process()
      try:
        usable.append((image, mask, _extent(image, region, config.tile_size)))
      except (ValueError, OSError) as error:
        self._leave_out(image, error)
    if usable:
      # Below the root: the deal must not depend on where a machine keeps its data.
      self._names = {image: image.relative_to(root).as_posix() for image, _, _ in usable}
      parts = [(self._names[image], region) for image, _, region in usable]
      self._plan = blocks.Plan(parts, spec, config)
    return usable

  def _tiles_of(self, image: pathlib.Path, region: tuple) -> list[Tile]:
    extent, side = _extent(image, region, self._config.tile_size), self._config.tile_size
    if self._plan is None:
      return _cut(extent, side)
    name, (top, bottom, left, right) = self._names[image], extent
    found = [tile for part in self._plan.parts(name, extent) for tile in _cut(part, side)]
    # Where a block's border cuts a part of an image, what is left may be a strip, which shows little.
    whole = (min(side, bottom - top), min(side, right - left))
    kept = [
      t for t in found if (t.height, t.width) == whole
      and not self._plan.too_near(name, (t.row, t.row + t.height, t.col, t.col + t.width))
    ]
    self._cut_tiles += len(found)
    self._left_out += len(found) - len(kept)
    return kept

  def _tell_left_out(self, spec: str) -> None:
    if not self._left_out:
      return
    reason = (
      f"within data.block_buffer={self._config.block_buffer} pixels of validation, or strips that a "
      "block's border cuts from a part of an image"
    )
    if self._left_out == self._cut_tiles:
      raise ValueError(
        f"Split {spec!r} has no tile left: all {self._cut_tiles} are {reason}. Lower the buffer or "
        f"data.validation_fraction, or raise data.block_size={self._config.block_size}."
      )
    _LOG.info("%s: left out %d of %d tiles, %s.", spec, self._left_out, self._cut_tiles, reason)

  def _labelled_tiles(self, image, mask, region) -> list[tuple[Tile, list[float]]]:
    if mask is None:
      folder = image.parent.parent / "masks"
      raise FileNotFoundError(f"{folder} holds no mask named {image.stem} for {image}.")
    reading.check_same_size(mask, reading.image_size(mask), reading.image_size(image))
    with reading.open_raster(image) as raster, reading.open_raster(mask) as mask_raster:
      labels = (
        (tile, self._label(self._mask(raster, mask_raster, tile)))
        for tile in self._tiles_of(image, region)
      )
      return [(tile, label) for tile, label in labels if label is not None]

  def _leave_out(self, image: pathlib.Path, error: Exception) -> None:
    if self._faults is not None:
      self._faults[str(image)] = str(error)
      return
    if self._config.on_bad_image == "error" or not isinstance(error, reading.ImageError):
      raise error
    if str(image) not in self.bad:  # A manifest may use several parts of it.
      _LOG.warning("Left out %s: %s", image, error)
    self.bad[str(image)] = str(error)
    if len(self.bad) > self._config.max_bad_images:
      raise reading.ImageError(
        f"More than data.max_bad_images={self._config.max_bad_images} images are bad, the last: {error}"
      ) from error

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    image, mask, tile = self._tiles[index]
    pixels = reading.read_image(image, self._config.channels, tile.window())
    with reading.open_raster(image) as raster, reading.open_raster(mask) as mask_raster:
      values = self._mask(raster, mask_raster, tile)
    values[: tile.seen_rows] = reading.UNKNOWN
    values[:, : tile.seen_cols] = reading.UNKNOWN
    return pixels, values

  def pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    image, _, tile = self._tiles[index]
    pixels, valid = reading.read_pixels(image, self._config.channels, tile.window())
    valid[: tile.seen_rows] = False
    valid[:, : tile.seen_cols] = False
    return pixels, valid

  def _mask(self, image, mask, tile):
    values = reading.read_mask(
      mask, classes=len(self._config.classes), ignore=self._config.mask_ignore,
      window=tile.window(),
    )
    return np.where(reading.read_valid_mask(image, tile.window()), values, np.uint8(reading.UNKNOWN))

  def _label(self, values: np.ndarray) -> list[float] | None:
    if np.all(values == reading.UNKNOWN):
      return None
    least = max(self._config.min_mask_pixels, self._config.min_mask_fraction * values.size)
    counts = [np.sum(values == k) for k in range(1, len(self._config.classes) + 1)]
    return [float(count >= least and count > 0) for count in counts]


def _extent(image: pathlib.Path, region: tuple, side: int) -> blocks.Region:
  """Returns the part of an image that a row asks for; raises ValueError when that cannot be cut."""
  height, width = reading.image_size(image)
  top, bottom, left, right = region or (0, height, 0, width)
  if not (0 <= top < bottom <= height and 0 <= left < right <= width):
    raise ValueError(f"{image} is {height} x {width}: the manifest's part {region} is outside it.")
  if side and -(-(bottom - top) // side) * -(-(right - left) // side) > _MAX_TILES:
    raise reading.ImageError(
      f"{image} is {height} x {width}: more than {_MAX_TILES} tiles of data.tile_size={side}. Use "
      "larger tiles, or cut the image."
    )
  return top, bottom, left, right


def _cut(region: blocks.Region, side: int) -> list[Tile]:
  top, bottom, left, right = region
  return [
    dataclasses.replace(tile, row=tile.row + top, col=tile.col + left)
    for tile in tiles(bottom - top, right - left, side)
  ]

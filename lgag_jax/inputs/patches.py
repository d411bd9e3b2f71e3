"""Images and scenes with masks, whole or cut into tiles; the masks give the image labels."""

import logging
import pathlib

import numpy as np

from lgag_jax.config import DataConfig
from lgag_jax.geo import mask_place
from lgag_jax.imagery import mask_values, reading
from lgag_jax.inputs import blocks, image_tiles, splits
from lgag_jax.inputs.dates import DatedImages
from lgag_jax.inputs.image_tiles import Tile
from lgag_jax.runtime import preemption

_LOG = logging.getLogger(__name__)

_MAX_TILES = 1 << 20  # Per image: a header may state any size, and each tile takes memory.


class PatchSource:
  """Images with masks: `images/` and `masks/` with the same file names, or a manifest.

  The manifest is a CSV with the column `file` (a name in both folders), or the columns `image` and
  `mask` (paths below data.directory). Optional columns are `split`, and `row_start`, `row_stop`,
  `col_start`, `col_stop` to use only a part of an image. A tile is positive for a class if its mask
  has enough pixels of it (`data.min_mask_pixels` and `data.min_mask_fraction`). Tiles without data are
  skipped.

  If no row names a split, whole images are split by order. With data.block_size, blocks of images are
  split instead: no tile crosses the border of a block, and training tiles within data.block_buffer
  pixels of a validation block are skipped. Raises ValueError if that leaves a split empty.

  With `skipped`, unusable pairs are skipped, and their paths and reasons are written there. Without
  it, the first unusable pair raises, or with data.on_bad_image="skip" the first one beyond
  data.max_bad_images.
  """

  has_masks = True

  def __init__(self, config: DataConfig, spec: str, skipped: dict[str, str] | None = None):
    self._config = config
    self._skips_all = skipped is not None
    self.skipped: dict[str, str] = {} if skipped is None else skipped  # Images and reasons.
    self._plan: blocks.SplitPlan | None = None
    self._block_tiles = self._skipped_tiles = 0  # Tiles in the split's blocks, and those not used.
    self.ids, self.keys, self._tiles, labels = [], [], [], []
    rows = self._rows(spec, root := splits.require_directory(config))
    self._images = DatedImages(config, root, [image for image, _, _ in rows])
    for image, mask, region in rows:
      preemption.check_if_single_process()
      try:
        labelled_tiles = self._labelled_tiles(image, mask, region)
      except (ValueError, OSError) as error:
        self._skip(image, error)
        labelled_tiles = []
      for tile, label in labelled_tiles:
        whole = not (config.tile_size or region)
        self.ids.append(image.name if whole else f"{image.name}[{tile.row}:{tile.col}]")
        self._tiles.append((image, mask, tile))
        self.keys.append(f"{self._images.key(image)} {tile.key()}")
        labels.append(label)
    self.labels = np.array(labels, np.float32).reshape(-1, len(config.classes))
    self._report_skipped_tiles(spec)

  def files(self, index: int) -> tuple[pathlib.Path, pathlib.Path]:
    return self._tiles[index][:2]

  def before(self, index: int) -> pathlib.Path | None:
    return self._images.before(self._tiles[index][0])

  def tile(self, index: int) -> tuple[pathlib.Path, pathlib.Path, Tile]:
    """Returns the image, the mask and the part of them that an example is."""
    return self._tiles[index]

  def _rows(self, spec: str, root: pathlib.Path) -> list[splits.Row]:
    config = self._config
    rows, names = splits.listed(config, root)
    self._rule = mask_values.decide(  # Of both splits together.
      (mask for _, mask, _ in rows if mask), classes=len(config.classes), ignore=config.mask_ignore
    )
    if not config.block_size or any(names):
      if config.block_size:
        _LOG.warning("The manifest names splits, so data.block_size=%d is ignored.", config.block_size)
      return [rows[i] for i in splits.select(spec, names, config)]
    usable = []
    for image, mask, region in rows:
      preemption.check_if_single_process()
      try:
        usable.append((image, mask, _extent(image, region, config.tile_size)))
      except (ValueError, OSError) as error:
        self._skip(image, error)
    if usable:
      # Paths below the root: the split must not depend on where the data lie.
      self._names = {image: image.relative_to(root).as_posix() for image, _, _ in usable}
      parts = [(self._names[image], region) for image, _, region in usable]
      self._plan = blocks.SplitPlan(parts, spec, config)
    return usable

  def _tiles_of(self, image: pathlib.Path, region: tuple) -> list[Tile]:
    extent, side = _extent(image, region, self._config.tile_size), self._config.tile_size
    if self._plan is None:
      return image_tiles.cut(extent, side)
    name, (top, bottom, left, right) = self._names[image], extent
    block_tiles = [t for part in self._plan.parts(name, extent) for t in image_tiles.cut(part, side)]
    # The border of a block may cut a narrow strip from a part of an image; a strip shows too little.
    full_size = (min(side, bottom - top), min(side, right - left))
    usable = [
      t for t in block_tiles if (t.height, t.width) == full_size
      and not self._plan.in_buffer(name, (t.row, t.row + t.height, t.col, t.col + t.width))
    ]
    self._block_tiles += len(block_tiles)
    self._skipped_tiles += len(block_tiles) - len(usable)
    return usable

  def _report_skipped_tiles(self, spec: str) -> None:
    skipped, count = self._skipped_tiles, self._block_tiles
    if not skipped:
      return
    reason = (
      f"within data.block_buffer={self._config.block_buffer} pixels of a validation block, or too "
      "narrow at the border of a block"
    )
    if skipped == count:
      raise ValueError(
        f"Split {spec!r} has no tile left: all {count} are {reason}. Lower the buffer or "
        f"data.validation_fraction, or raise data.block_size={self._config.block_size}."
      )
    _LOG.info("%s: skipped %d of %d tiles: %s.", spec, skipped, count, reason)

  def _labelled_tiles(self, image, mask, region) -> list[tuple[Tile, list[float]]]:
    if mask is None:
      folder = image.parent.parent / "masks"
      raise FileNotFoundError(f"{folder} has no mask named {image.stem} for {image}: add it.")
    with mask_place.open_with_mask(image, mask) as (raster, mask_raster):
      labels = (
        (tile, self._label(self._mask(raster, mask_raster, tile)))
        for tile in self._tiles_of(image, region)
      )
      return [(tile, label) for tile, label in labels if label is not None]

  def _skip(self, image: pathlib.Path, error: Exception) -> None:
    if self._skips_all:
      self.skipped[str(image)] = str(error)
      return
    if self._config.on_bad_image == "error" or not isinstance(error, reading.ImageError):
      raise error
    if str(image) not in self.skipped:  # A manifest may list several parts of one image.
      _LOG.warning("Skipped %s: %s", image, error)
    self.skipped[str(image)] = str(error)
    if len(self.skipped) > self._config.max_bad_images:
      raise reading.ImageError(
        f"More than data.max_bad_images={self._config.max_bad_images} images are bad. The last: {error}"
      ) from error

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    image, mask, tile = self._tiles[index]
    pixels, valid = self.read_valid_pixels(index)
    with mask_place.open_with_mask(image, mask) as (raster, mask_raster):
      values = self._mask(raster, mask_raster, tile)
    return pixels, np.where(valid, values, np.uint8(reading.UNKNOWN))

  def read_valid_pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    image, _, tile = self._tiles[index]
    pixels, valid = self._images.read(image, tile.window())
    valid[: tile.overlap_rows] = False
    valid[:, : tile.overlap_cols] = False
    return pixels, valid

  def _mask(self, image, mask, tile):
    values = reading.read_mask(
      mask, classes=len(self._config.classes), ignore=self._rule.ignore, threshold=self._rule.threshold,
      window=tile.window(),
    )
    return np.where(reading.read_valid_mask(image, tile.window()), values, np.uint8(reading.UNKNOWN))

  def _label(self, values: np.ndarray) -> list[float] | None:
    if np.all(values == reading.UNKNOWN):
      return None
    minimum = max(self._config.min_mask_pixels, self._config.min_mask_fraction * values.size)
    counts = [np.sum(values == k) for k in range(1, len(self._config.classes) + 1)]
    return [float(count >= minimum and count > 0) for count in counts]


def _extent(image: pathlib.Path, region: tuple, side: int) -> blocks.Region:
  """Returns the part of an image that a manifest row selects; raises ValueError if it is invalid."""
  height, width = reading.image_size(image)
  top, bottom, left, right = region or (0, height, 0, width)
  if not (0 <= top < bottom <= height and 0 <= left < right <= width):
    raise ValueError(
      f"{image} is {height} x {width}: the part {region} in the manifest lies outside it."
    )
  if side and -(-(bottom - top) // side) * -(-(right - left) // side) > _MAX_TILES:
    raise reading.ImageError(
      f"{image} is {height} x {width}, which makes more than {_MAX_TILES} tiles of "
      f"data.tile_size={side}. Use larger tiles, or divide the image."
    )
  return top, bottom, left, right

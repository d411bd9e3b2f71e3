"""Patches and scenes with masks, whole or cut into tiles whose image labels come from the masks."""

import dataclasses
import logging
import pathlib

import numpy as np
from rasterio.windows import Window

from lgag_jax import images, preemption, splits
from lgag_jax.config import DataConfig

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

  With `faults`, pairs that cannot be used are left out and named there, path and reason. Without, the
  first raises, or with data.on_bad_image="skip" the first beyond data.max_bad_images.
  """

  has_masks = True

  def __init__(self, config: DataConfig, spec: str, faults: dict[str, str] | None = None):
    self._config = config
    self._faults = faults
    self.bad: dict[str, str] = {}  # Images left out since data.on_bad_image="skip", with the reason.
    self.ids, self.keys, self._tiles, labels = [], [], [], []
    for image, mask, region in _rows(config, spec):
      preemption.check_alone()
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
        self.keys.append(f"{images.file_key(image)} {tile}")
        labels.append(label)
    self.labels = np.array(labels, np.float32).reshape(-1, len(config.classes))

  def files(self, index: int) -> tuple[pathlib.Path, pathlib.Path]:
    return self._tiles[index][:2]

  def _labelled_tiles(self, image, mask, region) -> list[tuple[Tile, list[float]]]:
    if mask is None:
      folder = image.parent.parent / "masks"
      raise FileNotFoundError(f"{folder} holds no mask named {image.stem} for {image}.")
    images.check_same_size(mask, images.size(mask), images.size(image))
    with images.open_raster(image) as raster, images.open_raster(mask) as mask_raster:
      labels = (
        (tile, self._label(self._mask(raster, mask_raster, tile)))
        for tile in _tiles_of(image, region, self._config.tile_size)
      )
      return [(tile, label) for tile, label in labels if label is not None]

  def _leave_out(self, image: pathlib.Path, error: Exception) -> None:
    if self._faults is not None:
      self._faults[str(image)] = str(error)
      return
    if self._config.on_bad_image == "error" or not isinstance(error, images.ImageError):
      raise error
    if str(image) not in self.bad:  # A manifest may use several parts of it.
      _LOG.warning("Left out %s: %s", image, error)
    self.bad[str(image)] = str(error)
    if len(self.bad) > self._config.max_bad_images:
      raise images.ImageError(
        f"More than data.max_bad_images={self._config.max_bad_images} images are bad, the last: {error}"
      ) from error

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    image, mask, tile = self._tiles[index]
    pixels = images.read_image(image, self._config.channels, tile.window())
    with images.open_raster(image) as raster, images.open_raster(mask) as mask_raster:
      values = self._mask(raster, mask_raster, tile)
    values[: tile.seen_rows] = images.UNKNOWN
    values[:, : tile.seen_cols] = images.UNKNOWN
    return pixels, values

  def _mask(self, image, mask, tile):
    values = images.read_mask(
      mask, classes=len(self._config.classes), ignore=self._config.mask_ignore,
      window=tile.window(),
    )
    return np.where(images.read_valid(image, tile.window()), values, np.uint8(images.UNKNOWN))

  def _label(self, values: np.ndarray) -> list[float] | None:
    if np.all(values == images.UNKNOWN):
      return None
    least = max(self._config.min_mask_pixels, self._config.min_mask_fraction * values.size)
    counts = [np.sum(values == k) for k in range(1, len(self._config.classes) + 1)]
    return [float(count >= least and count > 0) for count in counts]


def _rows(config: DataConfig, spec: str) -> list[tuple[pathlib.Path, pathlib.Path | None, tuple]]:
  """Returns (image, mask, (row_start, row_stop, col_start, col_stop) or ()) of a split."""
  root = splits.require_directory(config)
  manifest = pathlib.Path(config.manifest) if config.manifest else root / "manifest.csv"
  if manifest.exists():
    table = images.read_table(manifest, ())
    rows = [_manifest_row(root, manifest, number, line) for number, line in enumerate(table, 2)]
    names = [line.get("split") or "" for line in table]
  elif config.manifest:
    raise FileNotFoundError(f"data.manifest={config.manifest}: there is no such file.")
  else:
    masks = images.by_stem(root / "masks")
    rows = [(p, masks.get(p.stem), ()) for p in images.image_files(root / "images")]
    if not rows:
      raise ValueError(f"{root / 'images'} holds no image ({', '.join(images.SUFFIXES)}).")
    names = [""] * len(rows)
  return [rows[i] for i in splits.select(spec, names, config)]


def _manifest_row(root, manifest, number, line):
  where = f"{manifest}, row {number}"
  if line.get("file"):
    folders, names = ("images", "masks"), (line["file"],) * 2
  elif line.get("image") and line.get("mask"):
    folders, names = ("", ""), (line["image"], line["mask"])
  else:
    raise ValueError(f"{where} names neither 'file' nor 'image' and 'mask': {line}.")
  for name in names:
    _check_inside(where, root, name)
  image, mask = (root / folder / name for folder, name in zip(folders, names, strict=True))
  region = ("row_start", "row_stop", "col_start", "col_stop")
  if not line.get("row_start"):
    return image, mask, ()
  try:
    return image, mask, tuple(int(line[name]) for name in region)
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(f"{where}: {', '.join(region)} must all be whole numbers: {line}.") from error


def _check_inside(where: str, root: pathlib.Path, name: str) -> None:
  """Keeps a manifest, which may come with the data from anywhere, to the data."""
  path = pathlib.PurePath(name)
  if path.is_absolute() or ".." in path.parts or "\0" in name:
    raise ValueError(
      f"{where} names {name!r}, which is outside {root}: give a path below data.directory, without "
      "'..', or set data.directory to a folder that holds all of the data."
    )


def _tiles_of(image: pathlib.Path, region: tuple, side: int) -> list[Tile]:
  height, width = images.size(image)
  top, bottom, left, right = region or (0, height, 0, width)
  if not (0 <= top < bottom <= height and 0 <= left < right <= width):
    raise ValueError(f"{image} is {height} x {width}: the manifest's part {region} is outside it.")
  if side and -(-(bottom - top) // side) * -(-(right - left) // side) > _MAX_TILES:
    raise images.ImageError(
      f"{image} is {height} x {width}: more than {_MAX_TILES} tiles of data.tile_size={side}. Use "
      "larger tiles, or cut the image."
    )
  return [
    dataclasses.replace(tile, row=tile.row + top, col=tile.col + left)
    for tile in tiles(bottom - top, right - left, side)
  ]

"""Reads images of one date, or of two: after an event and before (data.before)."""

import functools
import pathlib
from collections.abc import Sequence

import numpy as np
from rasterio.windows import Window

from lgag_jax.config import DataConfig
from lgag_jax.geo import coregistration, scene_files
from lgag_jax.geo.pair import open_pair
from lgag_jax.imagery import listing, reading
from lgag_jax.inputs import splits

_KIND = "image before the event"  # In messages.
STACKED, MANIFEST = "stacked", "manifest"  # Values of data.before that are no folder.


class DatedImages:
  """Reads the images of a data set of files, each with that of the other date if there is one."""

  def __init__(self, config: DataConfig, root: pathlib.Path, images: Sequence[pathlib.Path]):
    """Finds the image before of each image; raises FileNotFoundError or ValueError that names it."""
    self._config = config
    self._before: dict[pathlib.Path, pathlib.Path] = {}
    if config.before == MANIFEST:
      self._before = _of_manifest(config, root, images)
    elif config.before not in ("", STACKED):
      self._before = _of_folder(config, root, images)

  def before(self, image: pathlib.Path) -> pathlib.Path | None:
    """Returns the file of the image before; None if there is none."""
    return self._before.get(image)

  def read(
    self, image: pathlib.Path, window: Window | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels [H, W, bands of all dates] and bool[H, W]: has data on each; raises ImageError."""
    config = self._config
    if not config.paired:
      return reading.read_pixels(image, config.channels, window)
    if image not in self._before:
      return coregistration.aligned(
        *reading.read_pixels(image, config.input_channels, window), config.max_shift
      )
    before = self._before[image]
    with open_pair(image, before, config.channels, max_shift=config.max_shift) as pair:
      return pair.read(window or Window(0, 0, pair.grid.width, pair.grid.height))

  def key(self, image: pathlib.Path) -> str:
    """Returns a string that identifies the files, and what is done with them."""
    if not self._config.paired:
      return listing.file_key(image)
    # The places of both dates decide which pixels belong together.
    before = scene_files.key(self._before[image]) if image in self._before else ""
    return f"{scene_files.key(image)} before {before} moved within {self._config.max_shift:g}"


def require_data(name: str, valid: np.ndarray) -> None:
  """Raises ImageError for an image without data, `valid` being bool[H, W]: its label says nothing."""
  if not valid.any():
    raise reading.ImageError(
      f"{name} has no data: every pixel is nodata, transparent or no number. Remove it, or skip it "
      "(data.on_bad_image='skip')."
    )


def files(config: DataConfig, root: pathlib.Path) -> set[pathlib.Path]:
  """Returns the files below the root that may be images before."""
  if config.before == MANIFEST:
    _, table = splits.read_manifest(config, root)
    return {
      listing.as_stored(root / line["before"]) for _, line in table or [] if line.get("before")}
  if config.before in ("", STACKED):
    return set()
  folders = [part / config.before for part in (root, *splits.split_folders(root))]
  return {path for folder in folders for path in folder.rglob("*")}


def _of_folder(
  config: DataConfig, root: pathlib.Path, images: Sequence[pathlib.Path]
) -> dict[pathlib.Path, pathlib.Path]:
  """Finds files of the same name in data.before, or in a folder there that is named as the image's."""
  by_stem = functools.cache(listing.files_by_stem)

  def find(image: pathlib.Path) -> pathlib.Path | None:
    folder = _folder_before(config, root, image)
    parts = (folder / image.parent.name, folder)
    stem = listing.stem_key(image)
    return next((by_stem(part)[stem] for part in parts if stem in by_stem(part)), None)

  found = {}
  for image in images:
    folder = _folder_before(config, root, image)
    if not folder.is_dir():
      raise FileNotFoundError(
        f"data.before={config.before}: {folder} is missing. Name the folder of the images before, as a "
        "path below data.directory or an absolute one."
      )
    if not (before := find(image)):
      raise FileNotFoundError(
        f"{folder} has no image named {image.stem} for {image}: add the image before the event, or "
        "remove the image after."
      )
    found[image] = before
  listing.check_own_files(((i, find(i)) for i in _of_both_splits(config, root)), _KIND)
  return found


def _folder_before(config: DataConfig, root: pathlib.Path, image: pathlib.Path) -> pathlib.Path:
  """Returns the folder of the images before: that of the image's split, else that of the root."""
  folder = image.parent.parent / config.before
  return folder if folder.is_dir() else root / config.before


def _of_manifest(
  config: DataConfig, root: pathlib.Path, images: Sequence[pathlib.Path]
) -> dict[pathlib.Path, pathlib.Path]:
  """Finds files in the column `before` of the manifest, by the name of the image after."""
  manifest, table = splits.read_manifest(config, root)
  by_name: dict[str, pathlib.Path] = {}
  for number, line in table or []:
    name = pathlib.PurePath(line.get("image") or line.get("file") or "").name
    if name and line.get("before"):
      splits.check_inside(f"{manifest}, row {number}", root, line["before"])
      before = listing.as_stored(root / line["before"])
      if by_name.setdefault(listing.name_key(name), before) != before:
        raise ValueError(
          f"{manifest}, row {number} gives {name} a second image before: give images different names."
        )
  find = lambda image: by_name.get(listing.name_key(image.name))
  for image in images:
    if not find(image):
      raise ValueError(
        f"data.before='manifest', but {manifest} has no path in the column before for {image.name}: "
        "add it. Paths are below data.directory."
      )
  listing.check_own_files(((i, find(i)) for i in _of_both_splits(config, root)), _KIND)
  return {image: by_name[listing.name_key(image.name)] for image in images}


def _of_both_splits(config: DataConfig, root: pathlib.Path) -> list[pathlib.Path]:
  """Returns the images of both splits: an image before of two of them shows the ground of one."""
  if config.source == "patches":
    return [image for image, _, _ in splits.listed(config, root)[0]]
  folders = [
    part / name for part in splits.split_folders(root) for name in splits.class_folders(config, part)
  ]
  return [path for folder in folders if folder.is_dir() for path in listing.image_files(folder)]

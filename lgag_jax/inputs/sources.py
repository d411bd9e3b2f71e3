"""Sources of examples: TFDS builders, one folder per class, or patches and scenes with masks.

A source gives random access to raw examples and knows all image labels in advance. The input pipeline
does the rest. Masks are for evaluation, unless the method learns from them (`Method.learns_masks`).
"""

import dataclasses
import logging
import pathlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from lgag_jax.config import DataConfig
from lgag_jax.geo import mask_place
from lgag_jax.imagery import listing, mask_values, opening, reading
from lgag_jax.inputs import file_splits, splits, tfds_source, unused_files
from lgag_jax.inputs.dates import DatedImages, require_data
from lgag_jax.inputs.patches import PatchSource
from lgag_jax.inputs.pseudo import PseudoSource

_LOG = logging.getLogger(__name__)


class Source(Protocol):
  """Random access to examples.

  `ids` are names for messages and output files. `keys` identify an example and the state of its file:
  a changed file has a new key. `labels` are f32[n, C] of zeros and ones. `has_masks` says whether the
  masks show more than the labels. A source that skips images when it is opened lists them in `bad`,
  with the reason.
  """

  ids: list[str]
  keys: list[str]
  labels: np.ndarray
  has_masks: bool

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns image [H, W, channels] in the file's data type and mask u8[H, W]; raises ImageError."""
    ...

  def read_valid_pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the image of `read`, and bool[H, W]: has data, and is in no earlier example."""
    ...

  def files(self, index: int) -> tuple[pathlib.Path | None, pathlib.Path | None]:
    """Returns the files of an example's image and mask, None for a file that does not exist."""
    ...

  def before(self, index: int) -> pathlib.Path | None:
    """Returns the file of an example's image before, None if there is no file of its own."""
    ...


def open_source(config: DataConfig, split: str, *, from_workdir: bool = False) -> Source:
  """Opens the examples of `split` ("train" or "validation") of `config.source`.

  A builder is code. With `from_workdir` the config comes from a workdir, which may be anyone's, so only
  the builders of this package run. Raises FileNotFoundError or ValueError that names the folder or
  file, and the remedy.
  """
  if from_workdir:
    tfds_source.refuse_foreign_builder(config)
    if "://" in config.original:  # Uses the prepared data set; downloads nothing for a foreign config.
      config = dataclasses.replace(config, original="")
  source = make_source(config, split)
  if config.pseudo_masks and split == "train":
    source = PseudoSource(source, config)
  if not len(source.ids):
    raise ValueError(f"{config.directory or config.builder}: the {split} split has no examples.")
  positives = int(np.sum(source.labels.max(axis=1) > 0))
  _LOG.info("%s: %d examples, %d positive.", split, len(source.ids), positives)
  if split == "train" and positives in (0, len(source.ids)):
    missing = "positive" if positives == 0 else "negative"
    raise ValueError(
      f"{config.directory or config.builder}: the training split has no {missing} examples. "
      "Yes/no labels need both: add images without a landslide and images with one."
    )
  _warn_of_absent_classes(source, config, split)
  return source


def _warn_of_absent_classes(source: Source, config: DataConfig, split: str) -> None:
  """Logs a warning for each of several classes that no example shows."""
  effect = {"train": "the network cannot learn it", "validation": "its maps cannot be evaluated"}[split]
  for name, count in zip(config.classes, np.sum(source.labels > 0, axis=0), strict=True):
    if len(config.classes) > 1 and not count:
      _LOG.warning(
        "%s: none of the %d examples of the %s split shows the class %s, so %s. Add examples of it, or "
        "remove it from data.classes.", config.directory or config.builder, len(source.ids), split,
        name, effect,
      )


def make_source(config: DataConfig, split: str, skipped: dict[str, str] | None = None) -> Source:
  """Opens a split like `open_source`, but without checking that training can use it.

  With `skipped`, unusable files are skipped, and their paths and reasons are written there.
  """
  spec = {"train": config.train_split, "validation": config.validation_split}[split]
  if config.source == "patches":  # The other sources do not open images in advance.
    return PatchSource(config, spec, skipped)
  return {"tfds": tfds_source.TfdsSource, "folder": FolderSource}[config.source](config, spec)


class FolderSource:
  """Images in one folder per class: `landslide/` and `non-landslide/`, optionally `masks/`.

  A mask has the name of its image. The splits come from folders (`train/landslide/`, ...) if there are
  any, otherwise from the column `split` of a manifest, by file name. Without either, the last
  `validation_fraction` of each class by name is the validation split. A folder such as
  `landslide+river/` holds images that show all the classes in its name.
  """

  def __init__(self, config: DataConfig, spec: str):
    self._config = config
    root = splits.require_directory(config)
    if config.tile_size:
      raise ValueError(
        "data.tile_size needs masks to label the tiles (data.source='patches'): the label of a "
        "whole image says nothing about its parts."
      )
    rows: list[tuple[pathlib.Path, list[float]]] = []
    self._splits = file_splits.read(config, root)
    for name in self._class_folders(root, spec):
      label = [float(c in splits.classes_shown(config, name)) for c in config.classes]
      rows += [(path, label) for path in self._class_paths(root, spec, name)]
    self._paths = [path for path, _ in rows]
    folders = {path.parent.parent for path in self._paths}
    masks = {folder: listing.files_by_stem(folder / "masks") for folder in folders}
    # A negative is all background. A mask with its name may belong to a positive of the same name.
    self._masks = [
      masks[path.parent.parent].get(listing.stem_key(path)) if any(label) else None
      for path, label in rows
    ]
    own = zip(self._paths, self._masks, strict=True)
    listing.check_own_files((*own, *_masks_of_both_splits(config, root)))
    self.has_masks = any(mask is not None for mask in self._masks)
    roots = (root, root / "train", root / "validation")  # The masks of both splits mean the same.
    files = [path for folder in roots for path in listing.files_by_stem(folder / "masks").values()]
    if files and not self.has_masks and spec == config.train_split:
      self._warn_of_unused_masks(files)
    self._rule = mask_values.decide(
      files if self.has_masks else (), classes=len(config.classes), ignore=config.mask_ignore
    )
    self._images = DatedImages(config, root, self._paths)
    self.keys = [self._images.key(path) for path in self._paths]
    self.ids = [f"{path.parent.name}/{path.name}" for path, _ in rows]
    self.labels = np.array([label for _, label in rows], np.float32).reshape(-1, len(config.classes))

  def _class_folders(self, root: pathlib.Path, spec: str) -> list[str]:
    split = root / spec.partition("[")[0]
    return splits.class_folders(self._config, split if split.is_dir() else root)

  def _warn_of_unused_masks(self, files: list[pathlib.Path]) -> None:
    unused = unused_files.find(self._config).masks
    if len(unused) == len(files):  # Otherwise the masks may be those of the other split.
      _LOG.warning(
        "%s: none of its %d masks has the name of an image, so nothing uses them, such as %s. Give "
        "each mask the name of its image.", self._config.directory, len(files), unused[0],
      )

  def _class_paths(self, root: pathlib.Path, spec: str, name: str) -> list[pathlib.Path]:
    split = spec.partition("[")[0]
    others = [s for s in ("train", "validation") if (root / s).is_dir()]
    if (root / split).is_dir() or others:
      if not (root / split).is_dir():
        raise FileNotFoundError(
          f"{root} has {', '.join(others)}/ but no {split}/: add it, with one folder per class."
        )
      paths = listing.image_files(root / split / name)
      names = [split] * len(paths)
    else:
      if not (root / name).is_dir():
        raise FileNotFoundError(
          f"{root} has no folder {name}/: it needs one folder of images per class "
          f"({', '.join((self._config.background, *self._config.classes))}). Add the folder, or set "
          "data.classes and data.background to the names of your folders."
        )
      paths = listing.image_files(root / name)
      names = [self._splits.get(listing.name_key(path.name), "") for path in paths]
      if self._splits and "" in names:
        raise ValueError(
          f"{paths[names.index('')]} has no split in the manifest: add it there, or remove the file."
        )
    held_out = round(len(paths) * self._config.validation_fraction)
    counts = {"train": len(paths) - held_out, "validation": held_out}
    if paths and not any(names) and not counts.get(split, 1):
      raise ValueError(
        f"{root}: data.validation_fraction={self._config.validation_fraction:g} of the images in "
        f"{name}/, {len(paths)} in all, leaves none for {split}. Add images to {name}/, change the "
        "fraction, or name the split of each image in a manifest."
      )
    if not paths:
      raise ValueError(f"{root}: the folder {name}/ has no images ({', '.join(opening.SUFFIXES)}).")
    known = sorted({*self._splits.values()})
    return [paths[i] for i in splits.select(spec, names, self._config, known=known)]

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    image, valid = self.read_valid_pixels(index)
    require_data(str(self._paths[index]), valid)
    mask = self._mask(index, image.shape[:2])
    return image, np.where(valid, mask, np.uint8(reading.UNKNOWN))

  def _mask(self, index: int, shape: tuple[int, int]) -> np.ndarray:
    mask_path = self._masks[index]
    if mask_path is None:
      return reading.mask_without_file(self.labels[index], shape)
    with mask_place.open_with_mask(self._paths[index], mask_path) as (_, raster):
      return reading.read_mask(
        raster, classes=len(self._config.classes), ignore=self._rule.ignore,
        threshold=self._rule.threshold,
      )

  def read_valid_pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    return self._images.read(self._paths[index])

  def files(self, index: int) -> tuple[pathlib.Path, pathlib.Path | None]:
    return self._paths[index], self._masks[index]

  def before(self, index: int) -> pathlib.Path | None:
    return self._images.before(self._paths[index])


def _masks_of_both_splits(
  config: DataConfig, root: pathlib.Path
) -> Iterator[tuple[pathlib.Path, pathlib.Path | None]]:
  """Yields the positive images of a data set of folders with their masks: two must not share one."""
  for part in splits.split_folders(root):
    masks = listing.files_by_stem(part / "masks")
    for name in splits.class_folders(config, part):
      if splits.classes_shown(config, name) and (part / name).is_dir():
        for path in listing.image_files(part / name):
          yield path, masks.get(listing.stem_key(path))

"""Where examples come from: TFDS builders, folders a class, or patches and scenes with masks.

A source offers random access to raw examples and knows their image labels beforehand; the input
pipeline does the rest. Masks serve evaluation, and training only with method="segmentation".
"""

import dataclasses
import logging
import pathlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lgag_jax.config import DataConfig
from lgag_jax.imagery import listing, opening, reading
from lgag_jax.inputs import splits, tfds_source
from lgag_jax.inputs.patches import PatchSource
from lgag_jax.inputs.pseudo import PseudoSource

_LOG = logging.getLogger(__name__)


class Source(Protocol):
  """Random access to examples.

  `ids`: a name each, for messages and output files; `keys`: what tells an example from any other,
  and from what it was before its file changed; `labels`: f32[n, C] of zeros and ones; `has_masks`:
  whether masks show more than the labels say. A source that leaves images out when it is opened
  names them, with the reason, in `bad`.
  """

  ids: Sequence[str]
  keys: Sequence[str]
  labels: np.ndarray
  has_masks: bool

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns image [H, W, channels] in its own type and mask uint8 [H, W]; raises ImageError."""

  def pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the image of `read`, and bool [H, W]: data, and not shown by an example before it."""

  def files(self, index: int) -> tuple[pathlib.Path | None, pathlib.Path | None]:
    """Returns the files that hold an example's image and mask, None where there is no such file."""


def open_source(config: DataConfig, split: str, *, from_workdir: bool = False) -> Source:
  """Opens the examples of `split` ("train" or "validation") as `config.source` says.

  A builder is code. With `from_workdir` set the config comes out of a workdir, which may be anyone's,
  and only builders that come with this package run. Raises FileNotFoundError or ValueError that name
  the folder or file and the remedy.
  """
  if from_workdir:
    tfds_source.refuse_foreign_builder(config)
    if "://" in config.original:  # What was built of it is used; nothing is fetched for a stranger.
      config = dataclasses.replace(config, original="")
  source = make_source(config, split)
  if config.pseudo_masks and split == "train":
    source = PseudoSource(source, config)
  if not len(source.ids):
    raise ValueError(f"{config.directory or config.builder}: no example in the {split} split.")
  positives = int(np.sum(source.labels.max(axis=1) > 0))
  _LOG.info("%s: %d examples, %d positive.", split, len(source.ids), positives)
  if split == "train" and positives in (0, len(source.ids)):
    missing = "positive" if positives == 0 else "negative"
    raise ValueError(
      f"{config.directory or config.builder}: the training split has no {missing} examples. "
      "Yes/no labels need both: add images without a landslide and images with one."
    )
  return source


def make_source(config: DataConfig, split: str, faults: dict[str, str] | None = None) -> Source:
  """Opens a split whether or not it serves a training; raises as `open_source` does otherwise.

  With `faults`, files that cannot be used are left out and named there, path and reason.
  """
  spec = _spec(config, split)
  if config.source == "patches":  # The other kinds open no image before it is read.
    return PatchSource(config, spec, faults)
  return {"tfds": tfds_source.TfdsSource, "folder": FolderSource}[config.source](config, spec)


def _spec(config: DataConfig, split: str) -> str:
  return {"train": config.train_split, "validation": config.validation_split}[split]


class FolderSource:
  """`landslide/` and `non-landslide/` with images, optionally `masks/` with the same names.

  With folders named like the splits (`train/landslide/`, ...) those are used; else the column `split`
  of a manifest, by file name; else the last `validation_fraction` of each class, by name, is the
  validation split. Folders of names joined by + (`landslide+river/`) hold images of all these classes.
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
    self._splits = splits.of_files(config, root)
    for name in self._folders(root, spec):
      shown = [float(c in name.split("+")) if name != c else 1.0 for c in config.classes]
      rows += [(path, shown) for path in self._class_paths(root, spec, name)]
    self._paths = [path for path, _ in rows]
    folders = {path.parent.parent for path in self._paths}
    masks = {folder: listing.files_by_stem(folder / "masks") for folder in folders}
    # A negative is background whatever a mask of its name, another image's, may say.
    self._masks = [
      masks[path.parent.parent].get(path.stem) if any(shown) else None for path, shown in rows
    ]
    self.has_masks = any(mask is not None for mask in self._masks)
    self.keys = [listing.file_key(path) for path in self._paths]
    self.ids = [f"{path.parent.name}/{path.name}" for path, _ in rows]
    self.labels = np.array([shown for _, shown in rows], np.float32).reshape(-1, len(config.classes))

  def _folders(self, root: pathlib.Path, spec: str) -> list[str]:
    """Names the folders of examples: the background's, each class's, and those of several classes."""
    split = root / spec.partition("[")[0]
    joined = sorted(p.name for p in (split if split.is_dir() else root).glob("*+*") if p.is_dir())
    own = (self._config.background, *self._config.classes)
    return [*own, *(n for n in joined if n not in own and {*n.split("+")} <= {*own[1:]})]

  def _class_paths(self, root: pathlib.Path, spec: str, name: str) -> list[pathlib.Path]:
    split = spec.partition("[")[0]
    others = [s for s in ("train", "validation") if (root / s).is_dir()]
    if (root / split).is_dir() or others:
      if not (root / split).is_dir():
        raise FileNotFoundError(
          f"{root} has {', '.join(others)}/ but no {split}/: add it, with a folder a class."
        )
      paths = listing.image_files(root / split / name)
      names = [split] * len(paths)
    else:
      if not (root / name).is_dir():
        raise FileNotFoundError(
          f"{root} has no folder {name}/: put one there with an image folder a class "
          f"({', '.join((self._config.background, *self._config.classes))}), or set data.classes "
          "and data.background to the names that you have."
        )
      paths = listing.image_files(root / name)
      names = [self._splits.get(path.name, "") for path in paths]
      if self._splits and "" in names:
        raise ValueError(
          f"{paths[names.index('')]} has no split in the manifest: add it there, or take it away."
        )
    if not paths:
      raise ValueError(f"{root}: the folder {name}/ holds no image ({', '.join(opening.SUFFIXES)}).")
    known = sorted({*self._splits.values()})
    return [paths[i] for i in splits.select(spec, names, self._config, known=known)]

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    image = reading.read_image(self._paths[index], self._config.channels)
    if self._masks[index] is None:
      return image, reading.mask_without_file(self.labels[index], image.shape[:2])
    with reading.open_raster(self._masks[index]) as raster:
      mask = reading.read_mask(
        raster, classes=len(self._config.classes), ignore=self._config.mask_ignore
      )
    reading.check_same_size(self._masks[index], mask.shape, image.shape[:2])
    return image, mask

  def pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    return reading.read_pixels(self._paths[index], self._config.channels)

  def files(self, index: int) -> tuple[pathlib.Path, pathlib.Path | None]:
    return self._paths[index], self._masks[index]

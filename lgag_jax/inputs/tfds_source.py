"""Examples from TensorFlow Datasets builders; refuses builders and data sets that run foreign code."""

import contextlib
import functools
import hashlib
import importlib
import logging
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import naming, read_only_builder

from lgag_jax.config import DataConfig
from lgag_jax.geo import coregistration
from lgag_jax.geo.coregistration import Shift
from lgag_jax.imagery import listing, reading
from lgag_jax.inputs import image_bytes, original_archives, prepared_sets, tfds_masks
from lgag_jax.inputs.dates import STACKED, require_data
from lgag_jax.runtime import files, packaged, processes

_LOG = logging.getLogger(__name__)

_ORIGIN = "data_original.txt"  # Holds data.original, beside the data set built from it.
PACKAGED_BUILDERS = packaged.folder("data")


def refuse_foreign_builder(config: DataConfig) -> None:
  """Raises ValueError if a config would run a builder that is not part of this package."""
  folder = pathlib.Path(packaged.resolve(config.builder.partition(":")[0])).resolve()
  if config.source == "tfds" and not (_is_packaged(folder) and folder.is_dir()):
    raise ValueError(
      f"config.json of this workdir would run code: data.builder={config.builder}. lgag refuses, since "
      "a workdir may come from anywhere. If the builder is yours, train with --config, or move it to "
      f"{PACKAGED_BUILDERS}."
    )


class TfdsSource:
  """The examples of a TFDS builder with the features image and label, and optionally mask and id.

  An image is u8, u16 or f32 with any number of channels: an Image, or a Tensor [H, W, channels]. Values
  that are not finite are nodata. A label is a class or a list of classes. A mask holds class indices;
  data.mask_ignore means unknown, and so does 255, unless masks of one class hold only 0 and 255.
  `shards` are the files of the examples, whose bytes differ where the same set is built twice.
  """

  def __init__(self, config: DataConfig, spec: str):
    self._config = config
    self._builder = builder = open_builder(config)
    with processes.first_then_others("data set"):
      _prepare(builder, config)
    features = cast(dict[str, Any], builder.info.features)
    skip = {n: tfds.decode.SkipDecoding() for n in ("image", "mask", config.before) if n in features}
    self._skip_images = {name: decoder for name, decoder in skip.items() if name != "mask"}
    # TFDS decodes 16-bit PNGs with TensorFlow only.
    wide = isinstance(features["image"], tfds.features.Image) and features["image"].dtype == np.uint16
    self._wide = features["image"] if wide else None
    self._before = self._before_feature(features)
    self._shifts: dict[int, Shift] = {}
    self._data = builder.as_data_source(split=spec, decoders={"image": skip["image"]} if wide else None)
    self._stored = rows = builder.as_data_source(split=spec, decoders=skip)
    names = features["label"].names
    if unknown := [name for name in config.classes if name not in names]:
      raise ValueError(
        f"data.classes names {unknown[0]!r}, which {config.builder} does not have: choose from {names}."
      )
    self.ids, labels = [], []
    for i, row in enumerate(rows):
      name = row.get("id", f"{i:06d}")
      self.ids.append(name.decode() if isinstance(name, bytes) else str(name))
      present = {names[int(k)] for k in np.atleast_1d(row["label"])}
      labels.append([float(c in present) for c in config.classes])
    self.has_masks = "mask" in features
    dates = f" {config.before} moved within {config.max_shift:g}" if config.paired else ""
    self.shards = [pathlib.Path(path) for path in builder.info.splits[spec].filepaths]
    state = hashlib.sha256("\0".join(map(listing.file_key, self.shards)).encode()).hexdigest()
    name = f"{builder.info.full_name} {spec} {state}"
    self.keys = [f"{name} {i}{dates}" for i in range(len(self.ids))]
    self.labels = np.array(labels, np.float32)

  def stored(self, kind: image_bytes.Kind) -> Iterator[bytes]:
    """Yields the images of all examples as they are stored, with those before, or their masks."""
    names = ("mask",) if kind == "masks" else ("image", self._config.before)
    for row in self._stored:
      yield from (part for name in names if name in row for part in image_bytes.parts(row[name]))

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    row = self._data[index]
    image, valid = self._pixels(row, index)
    require_data(self.ids[index], valid)
    if "mask" in row:
      mask = self._mask(np.asarray(row["mask"]), image.shape[:2], self.ids[index])
    else:
      mask = reading.mask_without_file(self.labels[index], image.shape[:2])
    return image, np.where(valid, mask, np.uint8(reading.UNKNOWN))

  def read_valid_pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    return self._pixels(self._data[index], index)

  def _pixels(self, row: dict, index: int) -> tuple[np.ndarray, np.ndarray]:
    image = self._wide.decode_example(row["image"]).numpy() if self._wide else row["image"]
    if self._before:
      image = np.concatenate([image, row[self._before]], axis=-1)
    image = np.array(image)  # A copy, since `fill_missing` overwrites nodata pixels.
    if image.shape[-1] != self._config.input_channels:
      raise reading.ImageError(
        f"{self.ids[index]} has {image.shape[-1]} channels, not {self._config.input_channels}."
      )
    pixels, valid = reading.fill_missing(image, np.ones(image.shape[:2], bool))
    if not (self._config.paired and self._config.max_shift):
      return pixels, valid
    if index not in self._shifts:  # An example is read several times, and this takes longest.
      after, before = np.split(pixels, 2, axis=-1)
      self._shifts[index] = coregistration.estimate(after, before, valid)
    return coregistration.aligned(pixels, valid, self._config.max_shift, self._shifts[index])

  def _before_feature(self, features: dict) -> str:
    """Returns the feature of the image before, "" if the image holds both dates."""
    name, image = self._config.before, features["image"]
    if name in ("", STACKED):
      return ""
    if name not in features:
      raise ValueError(
        f"data.before={name!r}: {self._config.builder} has no such feature. Name one of "
        f"{', '.join(features)}, or 'stacked' if the feature image holds both dates."
      )
    if features[name].dtype != image.dtype or self._wide:
      raise ValueError(
        f"data.before={name!r} and image must both be {image.dtype}, and not PNGs of 16 bits: stack "
        "both dates in the feature image (data.before='stacked')."
      )
    return name

  def _mask(self, values: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    reading.check_same_size(f"The mask of {name}", values.shape[:2], shape)
    return tfds_masks.as_classes(
      values, name, classes=len(self._config.classes), ignore=self._config.mask_ignore,
      is_unknown=lambda: self._is_unknown_code,
    )

  @functools.cached_property
  def _is_unknown_code(self) -> bool:
    """Whether 255 means unknown; the masks of all splits decide together."""
    masks = tfds_masks.of_all_splits(self._builder, self._config, self._skip_images)
    return tfds_masks.is_unknown_code(masks, self._config.mask_ignore)

  def files(self, index: int) -> tuple[None, None]:
    del index  # Examples lie in shards, not in files of their own.
    return None, None

  def before(self, index: int) -> None:
    del index  # Both dates are in one image.


def _prepare(builder: tfds.core.DatasetBuilder, config: DataConfig) -> None:
  """Builds the data set unless it exists, from data.original if that is set."""
  if not config.original:
    builder.download_and_prepare(file_format="array_record")
    return
  origin = pathlib.Path(builder.data_dir) / _ORIGIN
  if not origin.parent.exists():
    downloads = pathlib.Path(builder.data_dir_root) / "downloads" / builder.name
    folder = original_archives.folder_of(config.original, downloads)
    builder.download_and_prepare(
      file_format="array_record", download_config=tfds.download.DownloadConfig(manual_dir=folder),
    )
    original_archives.record(config.original, origin.parent)
    files.write_text(origin, config.original)
  elif not origin.exists() or origin.read_text() != config.original:
    _LOG.warning(
      "%s was built earlier, and not from data.original=%s. To build it again, remove that folder.",
      origin.parent, config.original,
    )
  elif original_archives.has_changed(config.original, origin.parent):
    _LOG.warning(
      "%s was built from another archive than data.original=%s is now. To build it again, remove that "
      "folder and %s.unpacked.", origin.parent, config.original, config.original,
    )


def open_builder(config: DataConfig) -> Any:
  """Opens a registered builder, or the builder in a folder.

  Raises ValueError if the builder cannot be imported, or if prepared data would run foreign code.
  """
  options = {"data_dir": config.directory or None}
  name, _, variant = config.builder.partition(":")
  if variant:
    options["config"] = variant
  folder = pathlib.Path(packaged.resolve(name)).resolve()
  if ".." in pathlib.PurePath(variant).parts or variant.startswith("/"):
    raise ValueError(f"data.builder={config.builder} leaves the folder of the data set. Name a config.")
  scripts = sorted(folder.glob("*_dataset_builder.py")) if folder.is_dir() else []
  prepared_sets.check(_prepared_folders(config, folder.name, "" if scripts else name, options))
  if not scripts:
    return tfds.builder(name, try_gcs=False, **options)
  # TFDS names the data set after the Python package, and the builder imports modules of its package.
  root = packaged.PACKAGE.parent
  parts = folder.relative_to(root).parts if _is_packaged(folder) else folder.parts[-2:]
  module_name = ".".join((*parts, scripts[0].stem))
  try:
    sys.path.append(str(folder.parents[len(parts) - 1]))  # Last, so as not to shadow a library.
    module = importlib.import_module(module_name)
  except ModuleNotFoundError as error:
    raise ValueError(
      f"data.builder={name}: {module_name} cannot be imported ({error}). Run from the folder that "
      f"holds {folder.parts[-2]}/."
    ) from error
  finally:
    sys.path.pop()
  return module.Builder(**options)


def _prepared_folders(
  config: DataConfig, folder_name: str, name: str, options: dict[str, Any]
) -> set[pathlib.Path]:
  """Returns the folders in which TFDS may find a data set prepared; `name` is "" for one in code.

  TFDS turns MySet into my_set, splits at "/", and lets a file name the default config.
  """
  if not config.directory:
    return set()
  names, found = {folder_name, naming.camelcase_to_snakecase(folder_name)}, None
  if name:
    with contextlib.suppress(ValueError, TypeError):  # TFDS raises it again, and says what is wrong.
      names.add(naming.parse_builder_name_kwargs(name)[0].name)
      found = read_only_builder._find_builder_dir(name, **options)
  folders = {pathlib.Path(config.directory) / part for part in names}
  return folders | ({pathlib.Path(found)} if found else set())


def _is_packaged(folder: pathlib.Path) -> bool:
  return folder.parent == PACKAGED_BUILDERS

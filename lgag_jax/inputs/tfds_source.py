"""Examples of TensorFlow Datasets builders, and what a builder or a prepared set may not run."""

import contextlib
import importlib
import logging
import os
import pathlib
import sys
import urllib.parse
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from lgag_jax.config import DataConfig
from lgag_jax.imagery import reading
from lgag_jax.runtime import archives, download, files, packaged, processes

_LOG = logging.getLogger(__name__)

_ORIGIN = "data_original.txt"  # Beside what was built: what data.original was.
OWN_BUILDERS = packaged.folder("data")


def refuse_foreign_builder(config: DataConfig) -> None:
  """Raises ValueError when a config would run a builder that did not come with this package."""
  folder = pathlib.Path(packaged.resolve(config.builder.partition(":")[0])).resolve()
  if config.source == "tfds" and not (_is_own(folder) and folder.is_dir()):
    raise ValueError(
      f"This workdir's config.json names code to be run, data.builder={config.builder}: refused, as it "
      f"may come from anywhere. If it is yours, train with --config, or move it to {OWN_BUILDERS}."
    )


class TfdsSource:
  """A TFDS builder with features image, label (class or list of classes), and mask, id if any.

  Images may be u8, u16 or f32, of any number of channels: an Image, or a Tensor [H, W, channels], whose
  numbers that are not finite are missing pixels. Masks hold class indices; 255 and data.mask_ignore
  stand where nothing is known.
  """

  def __init__(self, config: DataConfig, spec: str):
    self._config = config
    builder = open_builder(config)
    with processes.first_then_others("data set"):
      _prepare(builder, config)
    features = builder.info.features
    skip = {name: tfds.decode.SkipDecoding() for name in ("image", "mask") if name in features}
    # Without TensorFlow, TFDS has no way to decode PNGs of 16 bits.
    wide = isinstance(features["image"], tfds.features.Image) and features["image"].dtype == np.uint16
    self._wide = features["image"] if wide else None
    self._data = builder.as_data_source(
      split=spec, decoders={"image": skip["image"]} if wide else None
    )
    rows = builder.as_data_source(split=spec, decoders=skip)
    names = features["label"].names
    if unknown := [name for name in config.classes if name not in names]:
      raise ValueError(
        f"data.classes names {unknown[0]!r}, which {config.builder} does not: choose of {names}."
      )
    self.ids, labels = [], []
    for i, row in enumerate(rows):
      name = row.get("id", f"{i:06d}")
      self.ids.append(name.decode() if isinstance(name, bytes) else str(name))
      present = {names[int(k)] for k in np.atleast_1d(row["label"])}
      labels.append([float(c in present) for c in config.classes])
    self.has_masks = "mask" in features
    self.keys = [f"{builder.info.full_name} {spec} {i}" for i in range(len(self.ids))]
    self.labels = np.array(labels, np.float32)

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    row = self._data[index]
    image, valid = self._pixels(row, index)
    if "mask" in row:
      mask = self._mask(np.asarray(row["mask"]), image.shape[:2], self.ids[index])
    else:
      mask = reading.mask_without_file(self.labels[index], image.shape[:2])
    return image, np.where(valid, mask, np.uint8(reading.UNKNOWN))

  def pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    return self._pixels(self._data[index], index)

  def _pixels(self, row: dict, index: int) -> tuple[np.ndarray, np.ndarray]:
    image = self._wide.decode_example(row["image"]).numpy() if self._wide else row["image"]
    image = np.array(image)  # A copy: its missing pixels are written over.
    if image.shape[-1] != self._config.channels:
      raise reading.ImageError(
        f"{self.ids[index]} has {image.shape[-1]} channels, not {self._config.channels}."
      )
    return reading.fill_missing(image, np.ones(image.shape[:2], bool))

  def _mask(self, values: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    values = values[..., 0] if values.ndim == 3 else values
    reading.check_same_size(f"The mask of {name}", values.shape, shape)
    unknown = (values == reading.UNKNOWN) | (values == self._config.mask_ignore)
    strange = values[~unknown & ((values < 0) | (values > len(self._config.classes)))]
    if strange.size:
      raise reading.ImageError(
        f"The mask of {name} holds class {strange.flat[0]}, but data.classes names "
        f"{len(self._config.classes)}: set data.mask_ignore if it means unknown."
      )
    return np.where(unknown, reading.UNKNOWN, values).astype(np.uint8)

  def files(self, index: int) -> tuple[None, None]:
    del index  # Examples lie in shards.
    return None, None


def _prepare(builder: tfds.core.DatasetBuilder, config: DataConfig) -> None:
  """Builds the data set, of data.original where that is set, unless it has been built before."""
  if not config.original:
    builder.download_and_prepare(file_format="array_record")
    return
  origin = pathlib.Path(builder.data_dir) / _ORIGIN
  if not origin.parent.exists():
    place = pathlib.Path(builder.data_dir_root) / "downloads" / builder.name
    folder = _original(config.original, place)
    builder.download_and_prepare(
      file_format="array_record",
      download_config=tfds.download.DownloadConfig(manual_dir=folder),
    )
    files.write_text(origin, config.original)
  elif not origin.exists() or origin.read_text() != config.original:
    _LOG.warning(
      "%s was built before, not of data.original=%s: remove that folder to build it anew.",
      origin.parent, config.original,
    )


def _original(name: str, place: pathlib.Path) -> pathlib.Path:
  """Returns the folder of a data set as published: `name` itself, or what the archive there holds."""
  path = pathlib.Path(name).absolute()
  if "://" in name:
    url, _, checksum = name.partition("#")
    path = place / pathlib.PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name
    if not path.name.lower().endswith(archives.SUFFIXES):
      raise ValueError(f"data.original={name}: the address must end in {', '.join(archives.SUFFIXES)}.")
    checksum = checksum.replace("=", ":", 1)
    download.fetch(url, path, checksum=checksum, max_bytes=archives.MAX_BYTES)
  if archives.is_archive(path):
    archives.unpack_once(path)
    return path.with_name(f"{path.name}.unpacked")  # With the folder that may be all that it holds.
  if not path.is_dir() or not any(path.iterdir()):
    raise FileNotFoundError(f"data.original={name}: there is no such archive or folder with files.")
  return path


def open_builder(config: DataConfig) -> tfds.core.DatasetBuilder:
  """Opens a registered builder, or the one in a folder; raises ValueError for data that name code."""
  options = {"data_dir": config.directory or None}
  name, _, variant = config.builder.partition(":")
  if variant:
    options["config"] = variant
  folder = pathlib.Path(packaged.resolve(name)).resolve()
  _check_prepared(config, folder.name)
  scripts = sorted(folder.glob("*_dataset_builder.py")) if folder.is_dir() else []
  if not scripts:
    return tfds.builder(name, try_gcs=False, **options)
  # The package name gives the data set its name and lets the builder import its neighbours.
  parts = folder.relative_to(packaged.PACKAGE.parent).parts if _is_own(folder) else folder.parts[-2:]
  module_name = ".".join((*parts, scripts[0].stem))
  try:
    with _findable(folder.parents[len(parts) - 1]):
      module = importlib.import_module(module_name)
  except ModuleNotFoundError as error:
    raise ValueError(
      f"data.builder={name}: {module_name} cannot be imported ({error}). Run from the folder that "
      f"holds {folder.parts[-2]}/."
    ) from error
  return module.Builder(**options)


def _is_own(folder: pathlib.Path) -> bool:
  return folder.parent == OWN_BUILDERS


@contextlib.contextmanager
def _findable(folder: pathlib.Path) -> Iterator[None]:
  """Looks for modules in a folder, too, after everywhere else: nothing there takes a library's name."""
  sys.path.append(str(folder))
  try:
    yield
  finally:
    sys.path.remove(str(folder))


def _check_prepared(config: DataConfig, name: str) -> None:
  """Refuses a prepared data set whose features are not TFDS's own: it would import what they name."""
  if not config.directory:
    return
  for folder, _, names in os.walk(pathlib.Path(config.directory) / name, followlinks=True):
    if "features.json" not in names:
      continue
    path = pathlib.Path(folder) / "features.json"
    for kind in _feature_classes(files.read_json(path)):
      if not str(kind).startswith("tensorflow_datasets.core.features."):
        raise ValueError(
          f"{path} names code to be run, {kind}: refused, as data may come from anywhere. Prepare the "
          "set anew with features of TFDS itself."
        )


def _feature_classes(content: Any) -> Iterator[Any]:
  """Yields what a features.json calls a class, at any depth."""
  if isinstance(content, list):
    for value in content:
      yield from _feature_classes(value)
  elif isinstance(content, dict):
    for key, value in content.items():
      if key in ("pythonClassName", "python_class_name", "type"):
        yield value
      yield from _feature_classes(value)

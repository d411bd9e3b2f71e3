"""Examples of TensorFlow Datasets builders, and what a builder or a prepared set may not run."""

import contextlib
import importlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from lgag_jax import cluster, files, images, shipped
from lgag_jax.config import DataConfig

OWN_BUILDERS = shipped.folder("data")


def refuse_foreign_builder(config: DataConfig) -> None:
  """Raises ValueError when a config would run a builder that did not come with this package."""
  folder = pathlib.Path(shipped.find(config.builder.partition(":")[0])).resolve()
  if config.source == "tfds" and not (_is_own(folder) and folder.is_dir()):
    raise ValueError(
      f"This workdir's config.json names code to be run, data.builder={config.builder}: refused, as it "
      f"may come from anywhere. If it is yours, train with --config, or move it to {OWN_BUILDERS}."
    )


class TfdsSource:
  """A TFDS builder with features image, label (class or list of classes), and mask, id if any.

  Masks hold class indices, and 255 where nothing is known.
  """

  def __init__(self, config: DataConfig, spec: str):
    self._config = config
    builder = open_builder(config)
    with cluster.first_then_others("data set"):
      builder.download_and_prepare(file_format="array_record")
    self._data = builder.as_data_source(split=spec, decoders=None)
    without_images = {name: tfds.decode.SkipDecoding() for name in ("image",)}
    rows = builder.as_data_source(split=spec, decoders=without_images)
    names = builder.info.features["label"].names
    self.ids, labels = [], []
    for i, row in enumerate(rows):
      name = row.get("id", f"{i:06d}")
      self.ids.append(name.decode() if isinstance(name, bytes) else str(name))
      present = {names[int(k)] for k in np.atleast_1d(row["label"])}
      labels.append([float(c in present) for c in config.classes])
    self.has_masks = "mask" in builder.info.features
    self.keys = [f"{builder.info.full_name} {spec} {i}" for i in range(len(self.ids))]
    self.labels = np.array(labels, np.float32)

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    row = self._data[index]
    image = row["image"]
    if image.shape[-1] != self._config.channels:
      raise images.ImageError(
        f"{self.ids[index]} has {image.shape[-1]} channels, not {self._config.channels}."
      )
    if "mask" in row:
      return image, np.asarray(row["mask"]).reshape(image.shape[:2]).astype(np.uint8)
    return image, images.mask_without_file(self.labels[index], image.shape[:2])

  def files(self, index: int) -> tuple[None, None]:
    del index  # Examples lie in shards.
    return None, None


def open_builder(config: DataConfig) -> tfds.core.DatasetBuilder:
  """Opens a registered builder, or the one in a folder; raises ValueError for data that name code."""
  options = {"data_dir": config.directory or None}
  name, _, variant = config.builder.partition(":")
  if variant:
    options["config"] = variant
  folder = pathlib.Path(shipped.find(name)).resolve()
  _check_prepared(config, folder.name)
  scripts = sorted(folder.glob("*_dataset_builder.py")) if folder.is_dir() else []
  if not scripts:
    return tfds.builder(name, try_gcs=False, **options)
  # The package name gives the data set its name and lets the builder import its neighbours.
  parts = folder.relative_to(shipped.PACKAGE.parent).parts if _is_own(folder) else folder.parts[-2:]
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

"""Refuses prepared data sets of TFDS that would run code: TFDS imports the modules that they name."""

import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from lgag_jax.imagery import listing
from lgag_jax.runtime import files


def check(folders: Iterable[pathlib.Path]) -> None:
  """Raises ValueError naming a features.json in the folders that has features outside TFDS."""
  for folder, _, names in (entry for place in folders for entry in listing.walk(place)):
    if "features.json" not in names:
      continue
    path = pathlib.Path(folder) / "features.json"
    for kind in _feature_classes(files.read_json(path)):
      if not str(kind).startswith("tensorflow_datasets.core.features."):
        raise ValueError(
          f"{path} would run code: {kind}. lgag refuses, since data may come from anywhere. Prepare "
          "the data set again with features of TFDS itself."
        )


def _feature_classes(content: Any) -> Iterator[Any]:
  if isinstance(content, list):
    for value in content:
      yield from _feature_classes(value)
  elif isinstance(content, dict):
    for key, value in content.items():
      if key in ("pythonClassName", "python_class_name", "type"):
        yield value
      yield from _feature_classes(value)

"""Reads the splits of image files from a manifest, and compares its labels with the folders."""

import os
import pathlib
from collections.abc import Sequence

from lgag_jax.config import DataConfig
from lgag_jax.imagery import listing, tables
from lgag_jax.inputs import splits


def read(config: DataConfig, root: pathlib.Path) -> dict[str, str]:
  """Returns the split of each key of a file name (`listing.name_key`) in the manifest, {} without one.

  Names have no folders, so that a file keeps its split if a person moves it to the folder of another
  class. Raises ValueError if a column is missing, or if one name has two splits.
  """
  manifest, table = splits.read_manifest(config, root)
  parts = splits.split_folders(root)
  folders = [part / name for part in parts for name in splits.class_folders(config, part)]
  split_by_name: dict[str, str] = {}
  for number, line in table or []:
    path = line.get("image") or line.get("file")
    if "split" not in line or path is None:
      raise ValueError(
        f"{manifest} needs the columns image and split; its columns are: {', '.join(line)}. Rename "
        "them, or rename the file if it does not say which image is in which split."
      )
    split, name = splits.split_name(line["split"]), pathlib.PurePath(path).name
    meant = _classes_of_label(line.get("label", ""), config)
    holders = [] if meant is None else _holders(path, root, folders)
    if meant is not None and holders and not any(_agrees(meant, name, config) for name in holders):
      right = "+".join(c for c in config.classes if c in meant) or config.background
      raise ValueError(
        f"{manifest}, row {number} labels {path} as {line['label']}, but the file lies in "
        f"{holders[0]}/. The folder is the label: move the file to {right}/, or correct the row."
      )
    if not (split and name):
      continue
    if (other := split_by_name.setdefault(listing.name_key(name), split)) != split:
      raise ValueError(
        f"{manifest}, row {number} puts {name} into {split}, but an earlier row puts it into {other}: "
        "give images of different splits different names."
      )
  return split_by_name


def unread_labels(config: DataConfig, table: list[tables.Line] | None) -> list[str]:
  """Returns the labels of images in a manifest that name no class, so that nothing compares them."""
  labels = dict.fromkeys(
    line.get("label", "") for _, line in table or [] if line.get("image") or line.get("file")
  )
  return [text for text in labels if text and _classes_of_label(text, config) is None]


def _classes_of_label(text: str, config: DataConfig) -> frozenset[str] | None:
  """Returns the classes that a label names, in any case; none for the background, else None."""
  key = lambda name: listing.name_key(name).casefold()
  text = key(text)
  by_name = {key(name): frozenset({name}) for name in config.classes}
  by_name.setdefault(key(config.background), frozenset())
  parts = text.split("+")
  if text not in by_name and {*parts} <= {key(name) for name in config.classes}:
    return frozenset().union(*(by_name[part] for part in parts))
  for word in splits.NO:
    by_name.setdefault(word, frozenset())
  for word in splits.YES if len(config.classes) == 1 else ():
    by_name.setdefault(word, frozenset(config.classes))
  return by_name.get(text)


def _agrees(meant: frozenset[str], folder: str, config: DataConfig) -> bool:
  """Returns whether images in a class folder may have a label of some classes."""
  shown = splits.classes_shown(config, folder)
  return meant <= shown if meant else not shown  # A label may name one of several classes.


def _holders(path: str, root: pathlib.Path, folders: Sequence[pathlib.Path]) -> list[str]:
  """Returns the class folders that hold a manifest's file; of a name alone, all that hold the name.

  A person may have moved the file since: then its new folder counts, and there is none here.
  """
  parts = pathlib.PurePath(path)
  if parts.parent.name:
    names = {listing.name_key(folder.name): folder.name for folder in folders}
    name = names.get(listing.name_key(parts.parent.name))
    return [name] if name and listing.as_stored(root / path).exists() else []
  return [folder.name for folder in folders if os.path.exists(listing.as_stored(folder / path))]

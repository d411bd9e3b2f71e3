"""Finds the files of a data set that no example uses, so that the doctor can name them."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator

from lgag_jax.config import DataConfig
from lgag_jax.imagery import listing, opening
from lgag_jax.inputs import dates, splits

_SIDE_FILE = re.compile(r".*\.(msk|ovr|xml|prj|wld|\w{1,4}w)", re.IGNORECASE)  # Of an image.


@dataclasses.dataclass
class UnusedFiles:
  """Files that no example uses, by the reason: paths below the root, by name."""

  masks: list[str] = dataclasses.field(default_factory=list)  # Without an image of their name.
  formats: list[str] = dataclasses.field(default_factory=list)  # Images that lgag cannot read.
  nested: list[str] = dataclasses.field(default_factory=list)  # Images in folders inside the folders.
  elsewhere: list[str] = dataclasses.field(default_factory=list)  # Images in folders of other names.
  unlisted: list[str] = dataclasses.field(default_factory=list)  # Images that the manifest lacks.
  others: list[str] = dataclasses.field(default_factory=list)  # Hidden files, and no images.
  rows: list[str] = dataclasses.field(default_factory=list)  # Names in the manifest without a file.
  columns: list[str] = dataclasses.field(default_factory=list)  # Of the manifest.


def find(config: DataConfig) -> UnusedFiles:
  """Returns the unused files of data in folders; raises ValueError or OSError as opening them does."""
  root, unused = splits.require_directory(config), UnusedFiles()
  manifest, table = splits.read_manifest(config, root)
  unused.columns = splits.unread_columns(config, table)
  if config.source == "patches" and table is not None:
    rows, _ = splits.listed(config, root)
    listed = {path for image, mask, _ in rows for path in (image, mask)} | dates.files(config, root)
    for path in _files(root, set()):
      if path not in listed and not _is_hidden(path, root) and _is_image(path):
        unused.unlisted.append(str(path.relative_to(root)))
    return unused
  folders, stems = _folders(config, root)
  before = dates.files(config, root)
  for path in _files(root, folders | stems.keys()):
    if path != manifest and path not in before and (reason := _reason(path, root, folders, stems)):
      getattr(unused, reason).append(str(path.relative_to(root)))
  if table is not None:
    names = {path.name for folder in folders for path in listing.image_files(folder)}
    unused.rows = [name for name in splits.of_files(config, root) if name not in names]
  return unused


def _folders(
  config: DataConfig, root: pathlib.Path
) -> tuple[set[pathlib.Path], dict[pathlib.Path, set[str]]]:
  """Returns the folders of images, and the stems of the images that each folder of masks is for."""
  folders, stems = set(), {}
  for part in splits.split_folders(root) if config.source == "folder" else [root]:
    names = splits.class_folders(config, part) if config.source == "folder" else ["images"]
    own = {part / name for name in names if (part / name).is_dir()}
    folders |= own
    stems[part / "masks"] = {path.stem for folder in own for path in listing.image_files(folder)}
  return folders, stems


def _files(root: pathlib.Path, folders: set[pathlib.Path]) -> Iterator[pathlib.Path]:
  """Yields the files below the root and below those of the folders that are links."""
  linked = [path for path in folders if path.resolve() != root.resolve() / path.relative_to(root)]
  for top in (root, *sorted(linked)):
    for parent, names, files in os.walk(top):
      names.sort()
      yield from (pathlib.Path(parent, name) for name in sorted(files))


def _reason(
  path: pathlib.Path, root: pathlib.Path, folders: set[pathlib.Path],
  stems: dict[pathlib.Path, set[str]],
) -> str:
  """Returns the field of UnusedFiles that a file belongs to, "" if it is used or of no interest."""
  folder, readable = path.parent, path.suffix.lower() in opening.SUFFIXES
  read = folder in folders or folder in stems
  inside = read or any(parent in folders or parent in stems for parent in folder.parents)
  if _is_hidden(path, root):
    return "others" if inside else ""
  if not read:
    if not _is_image(path):
      return "others" if inside else ""
    return "nested" if inside else "elsewhere"
  if readable:
    return "masks" if folder in stems and path.stem not in stems[folder] else ""
  if listing.is_other_image(path):
    return "formats"
  return "" if _SIDE_FILE.fullmatch(path.name) else "others"


def _is_image(path: pathlib.Path) -> bool:
  return path.suffix.lower() in opening.SUFFIXES or listing.is_other_image(path)


def _is_hidden(path: pathlib.Path, root: pathlib.Path) -> bool:
  return any(part[0] == "." or part == "__MACOSX" for part in path.relative_to(root).parts)

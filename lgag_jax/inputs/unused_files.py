"""Finds the files of a data set that no example uses, and says so: to the doctor and to training."""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator

from lgag_jax.config import DataConfig
from lgag_jax.imagery import listing, opening
from lgag_jax.inputs import dates, file_splits, splits

_LOG = logging.getLogger(__name__)

_SHOWN = 3  # Labels in a message.


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
  labels: list[str] = dataclasses.field(default_factory=list)  # Of the manifest, that name no class.
  overridden: list[str] = dataclasses.field(default_factory=list)  # In the manifest's other split.
  splits: dict[str, int] = dataclasses.field(default_factory=dict)  # Of the manifest, with their rows.


@dataclasses.dataclass(frozen=True)
class Remark:
  """What is unused for one reason, in words."""

  reason: str  # A field of UnusedFiles.
  what: str  # A sentence.
  remedy: str
  names: list[str]  # Of files; none for columns and labels.


def find(config: DataConfig) -> UnusedFiles:
  """Returns the unused files of data in folders; raises ValueError or OSError as opening them does."""
  root, unused = splits.require_directory(config), UnusedFiles()
  manifest, table = splits.read_manifest(config, root)
  unused.columns = splits.unread_columns(config, table)
  if config.source == "patches" and table is not None:
    rows, names = splits.listed(config, root)
    unused.splits = splits.unused_names(names, config)
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
    names = {
      listing.name_key(path.name) for folder in folders for path in listing.image_files(folder)}
    split_of = file_splits.read(config, root)
    unused.rows = [name for name in split_of if name not in names]
    unused.labels = file_splits.unread_labels(config, table)
    if splits.split_folders(root) == [root]:
      unused.splits = splits.unused_names([s for n, s in split_of.items() if n in names], config)
    else:  # The folders are the splits.
      unused.overridden = sorted(
        str(path.relative_to(root)) for folder in folders for path in listing.image_files(folder)
        if split_of.get(listing.name_key(path.name), folder.parent.name) != folder.parent.name
      )
  return unused


def log(config: DataConfig) -> None:
  """Logs what a training on a data set in folders does not use."""
  if config.source == "tfds":
    return
  try:
    remarks = explain(find(config), config)
  except (ValueError, OSError):  # Opening the splits reports it.
    return
  for remark in remarks:
    # Opening a folder of images says which of its masks are unused.
    if remark.reason != "others" and (remark.reason, config.source) != ("masks", "folder"):
      level = logging.INFO if remark.reason in ("elsewhere", "unlisted", "rows") else logging.WARNING
      example = f", such as {remark.names[0]}" if remark.names else ""
      text = f"{remark.what.removesuffix('.')}{example}. {remark.remedy}"
      _LOG.log(level, "%s: %s", config.directory, text.rstrip())


def explain(unused: UnusedFiles, config: DataConfig) -> list[Remark]:
  """Returns a remark for each reason that something is unused."""
  formats = ", ".join(opening.SUFFIXES)
  texts = (
    ("masks", "mask", "{has} the name of no image, so nothing uses {them}.",
     "Give each mask the name of its image, such as masks/a1.png for the image a1.jpg."),
    ("formats", "image", "{has} a format that lgag does not read.",
     f"Convert them to one of: {formats}."),
    ("nested", "image", "{lies} in folders inside the folders of images or masks, which lgag does not "
     "read.", "Move them up, under names that no other image has."),
    ("elsewhere", "image", "{lies} in folders that lgag does not read.",
     "If they belong to the data, move them into the folders of images or masks. Or set data.classes "
     "and data.background to the names of your folders."),
    ("unlisted", "image or mask", "{has} no row in the manifest, so nothing uses {them}.",
     "Add rows for them if they belong to the data."),
    ("rows", "row", "of the manifest {names} no image.",
     "Correct the names if the images belong to the data."),
    ("overridden", "image", "{lies} in the folder of another split than the manifest says. The folder "
     "counts.", "Move the images to the folders of their splits, or correct the manifest."),
    ("others", "file", "among the images or masks {is} hidden or no image. lgag ignores {them}.", ""),
  )
  remarks = []
  for reason, noun, text, remedy in texts:
    if names := getattr(unused, reason):
      what = f"{_plural(len(names), noun)} {_agree(text, len(names))}"
      remarks.append(Remark(reason, what, remedy, names))
  if unused.splits:
    counts = ", ".join(f"{name} ({count:,})" for name, count in unused.splits.items())
    remarks.append(Remark(
      "splits", f"lgag does not use the rows of the manifest in these splits: {counts}.",
      f"Training uses data.train_split={config.train_split!r} and data.validation_split="
      f"{config.validation_split!r}. Rename the splits in the manifest, or name them there.", [],
    ))
  if unused.labels:
    shown = ", ".join([*unused.labels[:_SHOWN], *["..."][: len(unused.labels) > _SHOWN]])
    remarks.append(Remark(
      "labels", f"lgag does not read {_plural(len(unused.labels), 'label')} of the manifest, which "
      f"{_agree('{names}', len(unused.labels))} no class: {shown}. The folders are the labels.",
      f"Check that the images lie in the right folders. lgag compares the labels "
      f"{', '.join((config.background, *config.classes))}, and yes or no, with the folders.", [],
    ))
  if unused.columns:
    remarks.append(Remark(
      "columns", f"lgag does not read {_plural(len(unused.columns), 'column')} of the manifest: "
      f"{', '.join(unused.columns)}.",
      "If one of them holds the split, call it split. Labels come from folders, or from masks.", [],
    ))
  return remarks


def _plural(count: int, noun: str) -> str:
  return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _agree(text: str, count: int) -> str:
  one = {"has": "has", "lies": "lies", "names": "names", "is": "is", "them": "it"}
  many = {"has": "have", "lies": "lie", "names": "name", "is": "are", "them": "them"}
  return text.format(**(one if count == 1 else many))


def _folders(
  config: DataConfig, root: pathlib.Path
) -> tuple[set[pathlib.Path], dict[pathlib.Path, set[str]]]:
  """Returns the folders of images, and the stems of the images that each folder of masks is for."""
  folders, stems = set(), {}
  for part in splits.split_folders(root) if config.source == "folder" else [root]:
    names = splits.class_folders(config, part) if config.source == "folder" else ["images"]
    own = {part / name for name in names if (part / name).is_dir()}
    folders |= own
    stems[part / "masks"] = {
      listing.stem_key(path) for folder in own for path in listing.image_files(folder)}
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
    return "masks" if folder in stems and listing.stem_key(path) not in stems[folder] else ""
  if listing.is_other_image(path):
    return "formats"
  return "" if listing.SIDE_FILE.fullmatch(path.name) else "others"


def _is_image(path: pathlib.Path) -> bool:
  return path.suffix.lower() in opening.SUFFIXES or listing.is_other_image(path)


def _is_hidden(path: pathlib.Path, root: pathlib.Path) -> bool:
  return any(part[0] == "." or part == "__MACOSX" for part in path.relative_to(root).parts)

"""Decides which examples belong to which split."""

import collections
import contextlib
import pathlib
import types
from collections.abc import Sequence

import tensorflow_datasets as tfds

from lgag_jax.config import DataConfig
from lgag_jax.imagery import listing, opening, tables
from lgag_jax.inputs import shared_ground
from lgag_jax.runtime import archives, processes

_REGION = ("row_start", "row_stop", "col_start", "col_stop")
TILE_COLUMNS = ("image", "mask", "split", "label", "scene", "row", "col")  # Of --mode=tile.
YES, NO = ("1", "yes", "true"), ("0", "no", "false")  # In a column of labels.
Row = shared_ground.Row


def require_directory(config: DataConfig) -> pathlib.Path:
  """Returns the root folder of the data; raises ValueError or FileNotFoundError if there is none.

  Unpacks an archive once, into a folder beside it; `archives` refuses unsafe contents.
  """
  if not config.directory:
    raise ValueError("data.directory is not set: add --config.data.directory=<folder>.")
  directory = pathlib.Path(config.directory)
  if archives.is_archive(directory):
    with processes.first_then_others("archive"):
      return archives.unpack_once(directory)
  if not directory.is_dir():
    where = "" if directory.is_absolute() else (
      f" in the current directory, {pathlib.Path.cwd()}: run the command where the path starts, or "
      "give data.directory as an absolute path (of a trained workdir: in its config.json)"
    )
    raise FileNotFoundError(f"data.directory={config.directory}: no such folder{where}.")
  return directory


def split_folders(root: pathlib.Path) -> list[pathlib.Path]:
  """Returns the folders of the splits, or the root if there are none."""
  return [root / name for name in ("train", "validation") if (root / name).is_dir()] or [root]


def class_folders(config: DataConfig, folder: pathlib.Path) -> list[str]:
  """Returns the names of the folders, as stored: of the background, each class, and several classes.

  `classes_shown` says what a name means.
  """
  single = [listing.as_stored(folder / name).name for name in (config.background, *config.classes)]
  joined = sorted(path.name for path in folder.glob("*+*") if path.is_dir())
  return [*single, *(n for n in joined if n not in single and classes_shown(config, n))]


def classes_shown(config: DataConfig, folder: str) -> frozenset[str]:
  """Returns the classes that the images in a class folder show, by its name; none for other names."""
  by_key = {listing.name_key(name): name for name in config.classes}
  key = listing.name_key(folder)
  parts = [key] if key in by_key else key.split("+")
  if key == listing.name_key(config.background) or not {*parts} <= by_key.keys():
    return frozenset()
  return frozenset(by_key[part] for part in parts)


def select(spec: str, names: Sequence[str], config: DataConfig, known: Sequence[str] = ()) -> list[int]:
  """Returns the indices that the TFDS split expression `spec` selects; `names[i]` is example i's split.

  If all names are empty, the last `validation_fraction` of the examples is validation. It is one
  contiguous part, since images with similar names are often neighbours. Splits in `known` may be empty.
  Raises ValueError if the expression is invalid or names an unknown split.
  """
  if not any(names):
    cut = len(names) - round(len(names) * config.validation_fraction)
    names = ["train"] * cut + ["validation"] * (len(names) - cut)
  split_names = dict.fromkeys((*names, *known))
  members = {name: [i for i, n in enumerate(names) if n == name] for name in split_names}
  lengths = {name: types.SimpleNamespace(num_examples=len(m)) for name, m in members.items()}
  try:
    parts = tfds.core.ReadInstruction.from_spec(spec).to_absolute(lengths)
  except (ValueError, AssertionError) as error:
    where = config.manifest or config.directory
    raise ValueError(
      f"Split {spec!r} of {where}: {error} The splits are {', '.join(lengths)}."
    ) from error
  return [i for part in parts for i in members[part.splitname][part.from_ : part.to]]


def unused_names(names: Sequence[str], config: DataConfig) -> dict[str, int]:
  """Returns the splits of which neither split of the training has an example, with their examples."""
  used: set[str] = set()
  for spec in (config.train_split, config.validation_split):
    with contextlib.suppress(ValueError):  # Opening the split reports it.
      used |= {names[i] for i in select(spec, names, config)}
  counts = collections.Counter(names)
  return {name: count for name, count in counts.items() if name and name not in used}


def listed(config: DataConfig, root: pathlib.Path) -> tuple[list[Row], list[str]]:
  """Returns the images with masks, and the name of each one's split, "" if it has none.

  They come from the manifest, or without one from `images/` and `masks/`. Raises FileNotFoundError or
  ValueError that names the folder, the manifest or its row.
  """
  manifest, table = read_manifest(config, root)
  if table is not None:
    names = [split_name(line.get("split", "")) for _, line in table]
    if any(names) and "" in names:
      raise ValueError(
        f"{manifest}, row {table[names.index('')][0]} has no split, but other rows have: add it."
      )
    rows = [_manifest_row(root, manifest, number, line) for number, line in table]
    shared_ground.check(manifest, [number for number, _ in table], rows, names)
    return rows, names
  masks = listing.files_by_stem(root / "masks")
  rows = [(p, masks.get(listing.stem_key(p)), ()) for p in listing.image_files(root / "images")]
  if not rows:
    raise ValueError(f"{root / 'images'} has no images ({', '.join(opening.SUFFIXES)}).")
  listing.check_own_files((image, mask) for image, mask, _ in rows)
  return rows, [""] * len(rows)


def split_name(text: str) -> str:
  """Returns a split's name as a manifest means it: `Train` is train."""
  return text.lower() if text.lower() in ("train", "validation") else text


def read_manifest(
  config: DataConfig, root: pathlib.Path
) -> tuple[pathlib.Path, list[tables.Line] | None]:
  """Returns the path of the manifest, and its rows, or None if the data have no manifest."""
  manifest = pathlib.Path(config.manifest) if config.manifest else root / "manifest.csv"
  if manifest.exists():
    if not (table := tables.read_table(manifest, ())):
      raise ValueError(f"{manifest} has no rows: add one per image, or remove the file.")
    return manifest, table
  if config.manifest:
    raise FileNotFoundError(f"data.manifest={config.manifest}: no such file.")
  return manifest, None


def unread_columns(config: DataConfig, table: list[tables.Line] | None) -> list[str]:
  """Returns the columns of a manifest that are not read; those that --mode=tile writes do not count."""
  known = {"image", "split", "label", "file", *tables.IMAGE_NAMES, *TILE_COLUMNS}
  known |= {"before"} if config.before == "manifest" else set()
  if config.source == "patches":
    known |= {*_REGION}
    if any(line.get("label") for _, line in table or []):
      known -= {"label"}  # The masks are the labels.
  return [name for name in (table[0][1] if table else ()) if name not in known]


def _manifest_row(root, manifest, number, line) -> Row:
  where = f"{manifest}, row {number}"
  if line.get("file") and line.get("mask"):
    raise ValueError(
      f"{where} names an image by file, {line['file']!r}, and by image and mask: remove the column "
      "file, or the columns image and mask."
    )
  if line.get("file"):
    folders, names = ("images", "masks"), (line["file"],) * 2
  elif line.get("image") and line.get("mask"):
    folders, names = ("", ""), (line["image"], line["mask"])
  else:
    named = f"names the image {line['image']!r} and no mask" if line.get("image") else "names no image"
    raise ValueError(
      f"{where} {named}: images with masks need the column file (a name in images/ and in masks/), or "
      "the columns image and mask. If folders hold the labels, set data.source='folder'."
    )
  for name in names:
    check_inside(where, root, name)
  image, mask = (
    listing.as_stored(root / folder / name) for folder, name in zip(folders, names, strict=True))
  if not any(line.get(name) for name in _REGION):
    return image, mask, ()
  try:
    return image, mask, tuple(int(line[name]) for name in _REGION)
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(f"{where}: {', '.join(_REGION)} must all be whole numbers: {line}.") from error


def check_inside(where: str, root: pathlib.Path, name: str) -> None:
  """Refuses paths outside the data: a manifest may come with the data from anywhere."""
  path = pathlib.PurePath(name)
  if path.is_absolute() or ".." in path.parts or "\0" in name:
    raise ValueError(
      f"{where} names {name!r}, which is outside {root}: use a path below data.directory without "
      "'..', or set data.directory to a folder that holds all data."
    )

"""Lists the images of folders and globs."""

import contextlib
import functools
import glob
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator

from PIL import Image

from lgag_jax.imagery import map_products, orientation, side_files
from lgag_jax.imagery.opening import SUFFIXES, ImageError

_SCENE_SUFFIXES = (*SUFFIXES, ".vrt")
_MAX_FOLDERS = 1 << 17  # In a folder that is searched.
# A file of an image x.tif: x.tif.msk, x.tif.aux.xml, x.tfw, x.prj and so on.
SIDE_FILE = re.compile(r"(.*?)\.(aux\.xml|msk|ovr|xml|prj|wld|qml|rpb|\w{1,4}w)", re.IGNORECASE)
# Formats of images that Pillow does not know.
_OTHER_SUFFIXES = (".dng", ".ecw", ".heic", ".img", ".jxl", ".nc", ".npy", ".npz", ".sid", ".vrt")


def image_files(directory: pathlib.Path) -> list[pathlib.Path]:
  """Lists a folder's images by name; raises FileNotFoundError naming a missing folder."""
  if not directory.is_dir():
    raise FileNotFoundError(f"The folder {directory} is missing.")
  return sorted(p for p in directory.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".")


def files_by_stem(directory: pathlib.Path) -> dict[str, pathlib.Path]:
  """Maps the keys of stems to a folder's images, {} if it is missing; ValueError for two of one."""
  files: dict[str, pathlib.Path] = {}
  for path in image_files(directory) if directory.is_dir() else []:
    if (other := files.setdefault(stem_key(path), path)) is not path:
      raise ValueError(f"{path} and {other.name} differ only in their suffix: keep one.")
  return files


def name_key(name: str) -> str:
  """Returns what two names are compared by: a Mac writes letters such as é as two characters."""
  return unicodedata.normalize("NFC", name)


def stem_key(path: pathlib.Path) -> str:
  """Returns what names of files without their suffixes are compared by."""
  return name_key(path.stem)


def as_stored(path: pathlib.Path) -> pathlib.Path:
  """Returns a path as the disk spells its letters, such as é; the path itself if there is none."""
  if str(path).isascii() or os.path.exists(path):
    return path
  folder = as_stored(path.parent)
  try:
    names = _names_by_key(folder, folder.stat().st_mtime_ns)
  except (OSError, ValueError):
    return path
  return folder / names.get(name_key(path.name), path.name)


@functools.lru_cache(maxsize=64)
def _names_by_key(folder: pathlib.Path, _: int) -> dict[str, str]:
  return {name_key(name): name for name in sorted(os.listdir(folder), reverse=True)}


def check_own_files(
  pairs: Iterable[tuple[pathlib.Path, pathlib.Path | None]], kind: str = "mask", remedy: str = ""
) -> None:
  """Raises ValueError naming two images that would have one file, since their names are the same.

  `remedy` is another one, in a sentence.
  """
  owners: dict[tuple[str, pathlib.Path], pathlib.Path] = {}
  for image, file in pairs:
    if file is not None and (other := owners.setdefault((stem_key(image), file), image)) != image:
      raise ValueError(
        f"{image} and {other} would both have the {kind} {file}: give them different names, and each "
        f"its own {kind}.{f' {remedy}' * bool(remedy)}"
      )


@functools.cache
def _foreign_suffixes() -> frozenset[str]:
  return frozenset({*Image.registered_extensions(), *_OTHER_SUFFIXES} - {*SUFFIXES})


def is_other_image(path: pathlib.Path) -> bool:
  """Returns whether a name is that of an image in a format that training does not read."""
  return path.suffix.lower() in _foreign_suffixes()


def left_out(source: str | pathlib.Path) -> list[str]:
  """Returns which files of a folder or a glob are no scenes, and why, as sentences."""
  products = scenes_and_products(source)[1]
  written = (
    f"{len(products)} files of --input={source} are no scenes, since lgag wrote them, such as "
    f"{products[0]}."
  ) if products else ""
  return [text for text in (written, _unread_warning(source)) if text]


def _unread_warning(source: str | pathlib.Path) -> str:
  """Returns which images of a folder are no scenes since lgag does not read them, else ""."""
  folder = pathlib.Path(source)
  if not folder.is_dir():
    return ""
  paths = [path for path in sorted(folder.iterdir()) if path.name[0] != "."]
  unread = [p for p in paths if is_other_image(p) and p.suffix.lower() not in _SCENE_SUFFIXES]
  if not unread:
    return ""
  return (
    f"{len(unread)} images of {source} have a format that lgag does not read, such as "
    f"{unread[0].name}. Convert them to one of: {', '.join(_SCENE_SUFFIXES)}."
  )


def scene_files(source: str | pathlib.Path) -> list[pathlib.Path]:
  """Lists the scenes of a file, a folder or a glob; raises FileNotFoundError if there are none.

  What an earlier mapping wrote is no scene.
  """
  return scenes_and_products(source)[0]


def scenes_and_products(
  source: str | pathlib.Path,
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
  """Lists the scenes, as `scene_files` does, and the files that an earlier mapping wrote."""
  scenes, products = [], []
  for path in _matched_files(source):
    (products if map_products.is_product(path) else scenes).append(path)
  if not scenes:
    raise FileNotFoundError(
      f"--input={source} holds only files that lgag wrote, such as {products[0]}: name the scenes that "
      "were mapped."
    )
  return scenes, products


def _matched_files(source: str | pathlib.Path) -> list[pathlib.Path]:
  path = pathlib.Path(source)
  if path.is_file():
    return [path]
  if path.is_dir():
    paths = sorted(path.iterdir())
    paths = [p for p in paths if p.suffix.lower() in _SCENE_SUFFIXES and p.name[0] != "."]
    if not paths:
      raise FileNotFoundError(f"--input={source} holds no image ({', '.join(_SCENE_SUFFIXES)}).")
    return paths
  paths = matches(str(source))
  images = {path for path in paths if not SIDE_FILE.fullmatch(path.name)}
  of_images = images | {path.with_suffix("") for path in images}
  paths = [path for path in paths if path.is_file() and not _is_beside(path, of_images)]
  if not paths:
    raise FileNotFoundError(f"--input={source}: no such file or folder.")
  return paths


def matches(pattern: str) -> list[pathlib.Path]:
  """Returns the paths that a glob matches, by name; a folder that is there means itself."""
  folder = pattern
  while folder and not os.path.isdir(folder):  # Its name may hold brackets or question marks.
    folder = os.path.dirname(folder)
  if "**" in pattern[len(folder) :]:
    for _ in walk(pathlib.Path(folder)):  # Refuses links without end.
      pass
  pattern = glob.escape(folder) + pattern[len(folder) :]
  return sorted(map(pathlib.Path, glob.glob(pattern, recursive=True)))


def walk(top: pathlib.Path) -> Iterator[tuple[str, list[str], list[str]]]:
  """Walks through a folder as os.walk does, and follows links.

  Raises ValueError naming a folder with too many folders: links that lead back to their own folder, or
  several to one, would take for ever.
  """
  for count, entry in enumerate(os.walk(top, followlinks=True)):
    if count >= _MAX_FOLDERS:
      raise ValueError(
        f"{top} holds more than {_MAX_FOLDERS} folders, with those that links lead to: remove links "
        "that lead back into it, or name a folder below it."
      )
    yield entry


def _is_beside(path: pathlib.Path, of_images: set[pathlib.Path]) -> bool:
  """Returns whether a file belongs to one of the images, given with and without their suffixes."""
  while side_file := SIDE_FILE.fullmatch(path.name):  # A mask may have overviews: x.tif.msk.ovr.
    path = path.with_name(side_file[1])
    if path in of_images:
      return True
  return False


def file_key(path: pathlib.Path) -> str:
  """Returns a string that identifies a file and changes when the file changes."""
  with contextlib.suppress(OSError, ImageError):
    status = path.stat()
    key = f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"
    if mask := side_files.beside(path, ".msk"):
      status = mask.stat()
      key += f" mask {status.st_size} {status.st_mtime_ns}"
    if (notes := side_files.read_notes(path)) != side_files.Notes():  # Most hold only statistics.
      key += f" {notes}"
    if (number := orientation.of_file(path)) != 1:  # Earlier versions did not turn images.
      key += f" orientation {number}"
    return key
  return f"{path.absolute()} cannot be read"

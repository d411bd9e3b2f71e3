"""Lists the images of folders and globs."""

import contextlib
import functools
import glob
import pathlib
from collections.abc import Iterable

from PIL import Image

from lgag_jax.imagery import map_products, orientation, side_files
from lgag_jax.imagery.opening import SUFFIXES, ImageError

_SCENE_SUFFIXES = (*SUFFIXES, ".vrt")
_SIDE_SUFFIXES = (".msk", ".ovr")  # TIFFs beside x.tif, such as x.tif.ovr.
# Formats of images that Pillow does not know.
_OTHER_SUFFIXES = (".dng", ".ecw", ".heic", ".img", ".jxl", ".nc", ".npy", ".npz", ".sid", ".vrt")


def image_files(directory: pathlib.Path) -> list[pathlib.Path]:
  """Lists a folder's images by name; raises FileNotFoundError naming a missing folder."""
  if not directory.is_dir():
    raise FileNotFoundError(f"The folder {directory} is missing.")
  return sorted(p for p in directory.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".")


def files_by_stem(directory: pathlib.Path) -> dict[str, pathlib.Path]:
  """Maps stems to a folder's images, {} if it is missing; ValueError for two images of one stem."""
  files: dict[str, pathlib.Path] = {}
  for path in image_files(directory) if directory.is_dir() else []:
    if path.stem in files:
      raise ValueError(f"{path} and {files[path.stem].name} differ only in their suffix: keep one.")
    files[path.stem] = path
  return files


def check_own_files(
  pairs: Iterable[tuple[pathlib.Path, pathlib.Path | None]], kind: str = "mask"
) -> None:
  """Raises ValueError naming two images that would have one file, since their names are the same."""
  owners: dict[tuple[str, pathlib.Path], pathlib.Path] = {}
  for image, file in pairs:
    if file is not None and (other := owners.setdefault((image.stem, file), image)) != image:
      raise ValueError(
        f"{image} and {other} would both have the {kind} {file}: give them different names, and each "
        f"its own {kind}."
      )


@functools.cache
def _foreign_suffixes() -> frozenset[str]:
  return frozenset({*Image.registered_extensions(), *_OTHER_SUFFIXES} - {*SUFFIXES})


def is_other_image(path: pathlib.Path) -> bool:
  """Returns whether a name is that of an image in a format that training does not read."""
  return path.suffix.lower() in _foreign_suffixes()


def unread_warning(source: str | pathlib.Path) -> str:
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
  paths = sorted(pathlib.Path(name) for name in glob.glob(str(source), recursive=True))
  matched = set(paths)
  paths = [path for path in paths if path.is_file() and not _is_beside(path, matched)]
  if not paths:
    raise FileNotFoundError(f"--input={source}: no such file or folder.")
  return paths


def _is_beside(path: pathlib.Path, matched: set[pathlib.Path]) -> bool:
  """Returns whether a file is the mask or the overviews of one of the matched images."""
  return path.suffix.lower() in _SIDE_SUFFIXES and path.with_suffix("") in matched


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

"""Code shared by the builders of published data sets: finding the files, tiles, labels, features."""

import abc
import dataclasses
import logging
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import ClassVar, cast

import numpy as np
import tensorflow_datasets as tfds

from lgag_jax.imagery import reading
from lgag_jax.inputs import catalogue, image_tiles
from lgag_jax.runtime import archives, download

_LOG = logging.getLogger(__name__)

Examples = Iterator[tuple[str, dict]]
VALIDATION_FRACTION = 0.2  # For data sets without published splits.
_DEPTH = 3  # An archive may wrap the data in that many folders.


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
  """A variant of a data set: its tiles and its channels."""

  side: int = 0  # Of a tile in pixels; 0: whole images.
  channels: int = 3
  dtype: type = np.uint8


def tiles_or_patches(side: int, patch: int, channels: int = 3, dtype: type = np.uint8) -> list[Config]:
  """Returns the variants of a data set of patches: cut into tiles of `side` (the default), or whole."""
  image = {"channels": channels, "dtype": dtype}
  return [
    Config(name=f"tiles_{side}", description=f"Tiles of {side} pixels.", side=side, **image),
    Config(name=f"patches_{patch}", description="Whole patches.", side=patch, **image),
  ]


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Builds image, mask, label and id; the class of each data set reads the published files."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}

  @abc.abstractmethod
  def is_root(self, folder: pathlib.Path) -> bool:
    """Returns whether a folder has the published layout."""

  @abc.abstractmethod
  def splits(self, root: pathlib.Path) -> dict[str, Examples]:
    """Returns the examples of each split; raises ValueError with the expected layout."""

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      features=_features(cast(Config, self.builder_config)), supervised_keys=("image", "label"),
      homepage=catalogue.find(self.name).page,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    return self.splits(_find_or_download(dl_manager, self.name, self.is_root))

  def _generate_examples(self, examples: Examples) -> Examples:
    return examples


def _features(config: Config) -> tfds.features.FeaturesDict:
  shape = (config.side or None, config.side or None)
  if config.dtype is np.uint8 and config.channels <= 4:
    image = tfds.features.Image(shape=(*shape, config.channels), encoding_format="png")
  else:  # Floats hardly compress, and decompressing them takes longer than reading them.
    encoding = "zlib" if np.issubdtype(config.dtype, np.integer) else "bytes"
    image = tfds.features.Tensor(shape=(*shape, config.channels), dtype=config.dtype, encoding=encoding)
  return tfds.features.FeaturesDict({
    "image": image, "mask": tfds.features.Image(shape=(*shape, 1), encoding_format="png"),
    "label": tfds.features.ClassLabel(names=["non-landslide", "landslide"]), "id": tfds.features.Text(),
  })


def layout_error(name: str, root: pathlib.Path, problem: str) -> ValueError:
  """Returns an error that states the problem below `root` and shows the expected layout."""
  return ValueError(f"{root}: {problem}. Expected layout:\n{catalogue.layout(name)}")


def _find_or_download(dl_manager, name: str, is_root: Callable[[pathlib.Path], bool]) -> pathlib.Path:
  """Returns the root of the published files in the user's folder, or downloads them."""
  try:
    manual = pathlib.Path(dl_manager.manual_dir)
  except AssertionError:  # The folder is missing or empty.
    manual = None
  for folder in (manual / name, manual) if manual else ():
    if (root := _find_root(folder, is_root)) is not None:
      return root
  searched = manual / name if manual and (manual / name).is_dir() else manual
  # TFDS has one manual folder for all data sets, which need not hold this one.
  if searched and searched != pathlib.Path(dl_manager.download_dir) / "manual":
    raise layout_error(name, searched, "the data set is not there")
  data_set = catalogue.find(name)
  if not data_set.record:
    raise ValueError(
      f"The files of {name} are missing: add --config.data.original={catalogue.PLACEHOLDER}.\n"
      f"{catalogue.instructions(name)}"
    )
  folder = pathlib.Path(dl_manager.download_dir) / name
  _LOG.info(
    "Downloading %s from %s to %s. Licence: %s", data_set.title, data_set.page, folder,
    data_set.licence,
  )
  download.fetch_record(
    data_set.record, folder, suffixes=tuple(data_set.suffixes), max_bytes=data_set.max_gib << 30
  )
  if not is_root(folder):
    raise layout_error(name, folder, "the downloaded files have an unknown layout")
  return folder


def _find_root(folder: pathlib.Path, is_root: Callable[[pathlib.Path], bool]) -> pathlib.Path | None:
  """Returns `folder`, or the only folder in it, and so on, that is the root; None if there is none."""
  for _ in range(_DEPTH):
    if not folder.is_dir():
      return None
    if is_root(folder):
      return folder
    folder = archives.content_root(folder)
  return None


def find_folder(folder: pathlib.Path, name: str) -> pathlib.Path | None:
  """Returns the folder in `folder` with a name in any case, or with the contents of its archive."""
  for entry, entry_name in list_folders(folder):
    if entry_name.casefold() == name:
      return entry if entry.is_dir() else archives.unpack_once(entry)
  return None


def list_folders(folder: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
  """Lists the folders and archives in `folder` by name, with their names without archive suffixes."""
  entries = {}
  for entry in sorted(folder.iterdir()):
    if entry.name[0] in "._" or entry.name.endswith((".unpacked", ".partial")):
      continue
    if entry.is_dir():
      entries[entry.name] = entry
    elif archives.is_archive(entry):
      entries.setdefault(re.sub(r"\.(zip|tar|tar\.gz|tgz)$", "", entry.name, flags=re.I), entry)
  return [(entry, name) for name, entry in sorted(entries.items())]


def validation_names(names: list[str]) -> set[str]:
  """Returns the last fifth of the distinct names in order: at least one, but none of a single name."""
  ordered = sorted(set(names), key=str.casefold)
  count = max(1, round(VALIDATION_FRACTION * len(ordered)))
  return set(ordered[-count:] if len(ordered) > 1 else [])


def cut_tiles(name: str, image: np.ndarray, mask: np.ndarray, side: int) -> Examples:
  """Cuts an image [H, W, C] and its mask u8[H, W] into tiles.

  The mask of a pixel in two tiles is unknown in the second one. A tile's label says whether its mask
  shows a landslide, these pixels included.
  """
  height, width = mask.shape
  for tile in image_tiles.tiles(height, width, side):
    rows, cols = slice(tile.row, tile.row + tile.height), slice(tile.col, tile.col + tile.width)
    yield make_example(
      f"{name}[{tile.row}:{tile.col}]" if side else name, image[rows, cols], mask[rows, cols],
      overlap_rows=tile.overlap_rows, overlap_cols=tile.overlap_cols,
    )


def make_example(
  name: str, image: np.ndarray, mask: np.ndarray, *, overlap_rows: int = 0, overlap_cols: int = 0
) -> tuple[str, dict]:
  """Returns a key and an example, whose mask is unknown in the given first rows and columns."""
  values = mask.copy()
  values[:overlap_rows] = reading.UNKNOWN
  values[:, :overlap_cols] = reading.UNKNOWN
  label = int(np.any(mask == 1))
  return name, {"image": image, "mask": values[..., None], "label": label, "id": name}


def read_mask(path: pathlib.Path) -> np.ndarray:
  """Returns the mask in a file as u8[H, W]: 1 for every value but zero."""
  with reading.open_raster(path) as raster:
    return reading.read_mask(raster, classes=1, ignore=-1)


def as_float32(array: np.ndarray, where: str) -> np.ndarray:
  """Returns the numbers as float32; raises ValueError naming `where` if some are not finite."""
  if array.dtype.kind not in "fiu":
    raise ValueError(f"{where} holds {array.dtype}, not numbers: restore the file.")
  with np.errstate(over="ignore"):
    values = np.ascontiguousarray(array, np.float32)
  if not np.all(np.isfinite(values)):
    raise ValueError(f"{where} holds values that are not finite: restore the file.")
  return values

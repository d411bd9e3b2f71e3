"""What the builders of published data sets share: where the original lies, tiles, labels, features."""

import dataclasses
import logging
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from lgag_jax.imagery import reading
from lgag_jax.inputs import catalogue, patches
from lgag_jax.runtime import archives, download

_LOG = logging.getLogger(__name__)

Examples = Iterator[tuple[str, dict]]
VALIDATION_SHARE = 0.2  # Of what a set without published splits is parted by.
_DEPTH = 3  # Folders around the data's own, as archives have them.


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
  """The side of tiles in pixels (0: images whole), and what an image holds."""

  side: int = 0
  channels: int = 3
  dtype: type = np.uint8


def tiles_or_patches(
  side: int, patch: int, channels: int = 3, dtype: type = np.uint8
) -> list[Config]:
  """Returns the forms of a set of patches of `patch` pixels: cut into tiles, the default, or whole."""
  kind = {"channels": channels, "dtype": dtype}
  return [
    Config(name=f"tiles_{side}", description=f"Tiles of {side} pixels.", side=side, **kind),
    Config(name=f"patches_{patch}", description="Whole patches.", side=patch, **kind),
  ]


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Builds image, mask, label and id; a data set's own class says how its original is read."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}

  def is_root(self, folder: pathlib.Path) -> bool:
    """Whether a folder holds the original as published."""
    raise NotImplementedError

  def splits(self, root: pathlib.Path) -> dict[str, Examples]:
    """Returns the examples of each split; raises ValueError that shows the expected layout."""
    raise NotImplementedError

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      features=_features(self.builder_config), supervised_keys=("image", "label"),
      homepage=catalogue.find(self.name).page,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    return self.splits(_root(dl_manager, self.name, self.is_root))

  def _generate_examples(self, examples: Examples) -> Examples:
    return examples


def _features(config: Config) -> tfds.features.FeaturesDict:
  shape = (config.side or None, config.side or None)
  if config.dtype is np.uint8 and config.channels <= 4:
    image = tfds.features.Image(shape=(*shape, config.channels), encoding_format="png")
  else:  # Floats hardly shrink, and unpacking them would take longer than reading them.
    encoding = "zlib" if np.issubdtype(config.dtype, np.integer) else "bytes"
    image = tfds.features.Tensor(
      shape=(*shape, config.channels), dtype=config.dtype, encoding=encoding
    )
  return tfds.features.FeaturesDict({
    "image": image,
    "mask": tfds.features.Image(shape=(*shape, 1), encoding_format="png"),
    "label": tfds.features.ClassLabel(names=["non-landslide", "landslide"]),
    "id": tfds.features.Text(),
  })


def error(name: str, root: pathlib.Path, what: str) -> ValueError:
  """Returns an error that says what is wrong below `root` and shows what is expected there."""
  return ValueError(f"{root}: {what}. Expected there:\n{catalogue.layout(name)}")


def _root(dl_manager, name: str, is_root: Callable[[pathlib.Path], bool]) -> pathlib.Path:
  """Finds the original among what the user brought, or downloads it."""
  try:
    given = pathlib.Path(dl_manager.manual_dir)
  except AssertionError:  # There is none, or it is empty.
    given = None
  for folder in (given / name, given) if given else ():
    if (found := _below(folder, is_root)) is not None:
      return found
  place = given / name if given and (given / name).is_dir() else given
  if place and place != pathlib.Path(dl_manager.download_dir) / "manual":  # TFDS's, for all data sets.
    raise error(name, place, "the data set is not there")
  known = catalogue.find(name)
  if not known.record:
    raise ValueError(
      f"There is no original to build {name} from: add --config.data.original={catalogue.ROOT}.\n"
      f"{catalogue.instructions(name)}"
    )
  folder = pathlib.Path(dl_manager.download_dir) / name
  _LOG.info("Downloading %s, %s, to %s. %s", known.title, known.page, folder, known.licence)
  download.fetch_record(
    known.record, folder, suffixes=known.suffixes, max_bytes=known.max_gib << 30
  )
  if not is_root(folder):
    raise error(name, folder, "what was downloaded is not laid out as it was")
  return folder


def _below(folder: pathlib.Path, is_root: Callable[[pathlib.Path], bool]) -> pathlib.Path | None:
  """Returns the first of `folder` and the only folders in it, in each other, that is the root."""
  for _ in range(_DEPTH):
    if not folder.is_dir():
      return None
    if is_root(folder):
      return folder
    folder = archives.content_root(folder)
  return None


def child(folder: pathlib.Path, *names: str) -> pathlib.Path | None:
  """Returns the folder in `folder` of one of `names` in any case, or what its archive holds."""
  for entry, name in children(folder):
    if name.casefold() in names:
      return entry if entry.is_dir() else archives.unpack_once(entry)
  return None


def children(folder: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
  """Lists folders and archives in `folder`, by name, with their names but for an archive's suffix."""
  found = {}
  for entry in sorted(folder.iterdir()):
    if entry.name[0] in "._" or entry.name.endswith((".unpacked", ".partial")):
      continue
    if entry.is_dir():
      found[entry.name] = entry
    elif archives.is_archive(entry):
      found.setdefault(re.sub(r"\.(zip|tar|tar\.gz|tgz)$", "", entry.name, flags=re.I), entry)
  return [(entry, name) for name, entry in sorted(found.items())]


def last_share(names: list[str]) -> set[str]:
  """Returns the last fifth of sorted, different names, and of two or more at least one, not all."""
  ordered = sorted(set(names), key=str.casefold)
  return set(ordered[-max(1, round(VALIDATION_SHARE * len(ordered))) :] if len(ordered) > 1 else [])


def tiles(name: str, image: np.ndarray, mask: np.ndarray, side: int) -> Examples:
  """Cuts an image [H, W, C] and its mask u8[H, W] into tiles; what two of them show is known in one.

  A tile's label says whether its mask shows a landslide, before what another tile has is left out.
  """
  for tile in patches.tiles(*mask.shape, side):
    rows, cols = slice(tile.row, tile.row + tile.height), slice(tile.col, tile.col + tile.width)
    yield example(
      f"{name}[{tile.row}:{tile.col}]" if side else name, image[rows, cols], mask[rows, cols],
      seen_rows=tile.seen_rows, seen_cols=tile.seen_cols,
    )


def example(
  name: str, image: np.ndarray, mask: np.ndarray, *, seen_rows: int = 0, seen_cols: int = 0
) -> tuple[str, dict]:
  """Returns a key and an example; of the mask the first rows and columns that are seen are unknown."""
  values = mask.copy()
  values[:seen_rows] = reading.UNKNOWN
  values[:, :seen_cols] = reading.UNKNOWN
  label = int(np.any(mask == 1))
  return name, {"image": image, "mask": values[..., None], "label": label, "id": name}


def read_mask(path: pathlib.Path) -> np.ndarray:
  """Reads a mask's file as u8[H, W] of 0 and 1: every value but zero is a landslide."""
  with reading.open_raster(path) as raster:
    return reading.read_mask(raster, classes=1, ignore=-1)


def floats(array: np.ndarray, what: str) -> np.ndarray:
  """Returns numbers as float32; raises ValueError naming `what` for what is none, or not finite."""
  if array.dtype.kind not in "fiu":
    raise ValueError(f"{what} holds {array.dtype}, not numbers: restore it.")
  with np.errstate(over="ignore"):
    values = np.ascontiguousarray(array, np.float32)
  if not np.all(np.isfinite(values)):
    raise ValueError(f"{what} holds values that are not finite numbers: replace them.")
  return values

"""TFDS builder for Landslide4Sense: HDF5 patches of 14 bands, cut into tiles."""

import pathlib
import re
import sys
from typing import ClassVar

import h5py
import numpy as np
from etils import epath

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]))  # `tfds build` runs here.

from lgag_jax.inputs import catalogue, originals

_PATCH, _BANDS = 128, 14
_FOLDERS = {"train": "TrainData", "validation": "ValidData", "test": "TestData"}


# Not registered by name: the module may be imported more than once, under several names.
class Builder(originals.Builder, skip_registration=True):
  """Cuts patches into tiles; the published folders are splits where they have masks."""

  name = "landslide4sense"
  pkg_dir_path = epath.Path(__file__).parent
  code_path = epath.Path(__file__)  # TFDS cannot find it where the module has a name of its own.
  MANUAL_DOWNLOAD_INSTRUCTIONS = catalogue.instructions("landslide4sense")
  BUILDER_CONFIGS: ClassVar[list[originals.Config]] = originals.tiles_or_patches(
    64, _PATCH, _BANDS, np.float32
  )

  def is_root(self, folder: pathlib.Path) -> bool:
    return any(name.casefold() == "traindata" for _, name in originals.children(folder))

  def splits(self, root: pathlib.Path) -> dict[str, originals.Examples]:
    found = {}
    for split, name in _FOLDERS.items():
      folder = originals.child(root, name.casefold())
      if folder and (split == "train" or _has_masks(folder)):
        found[split] = self._pairs(root, folder, name)
    if "validation" not in found:  # Neighbours in number are neighbours in space.
      rows = found["train"]
      cut = len(rows) - round(originals.VALIDATION_SHARE * len(rows))
      found["train"], found["validation"] = rows[:cut], rows[cut:]
    if not all(found.values()):
      raise originals.error(self.name, root, "there are too few patches to be split")
    return {split: self._examples(rows) for split, rows in found.items()}

  def _pairs(self, root: pathlib.Path, folder: pathlib.Path, name: str) -> list[tuple]:
    """Lists name, image and mask of each patch, by number."""
    places = [originals.child(folder, "img"), originals.child(folder, "mask")]
    for place, kind in zip(places, ("img", "mask"), strict=True):
      if place is None:
        raise originals.error(self.name, root, f"the folder {name}/{kind}/ is missing")
    numbers = sorted(
      int(match[1]) for path in places[0].iterdir()
      if (match := re.fullmatch(r"image_(\d+)\.h5", path.name))
    )
    if not numbers:
      raise originals.error(self.name, root, f"{name}/img/ holds no image_<number>.h5")
    rows = [
      (f"{name}/{n}", places[0] / f"image_{n}.h5", places[1] / f"mask_{n}.h5") for n in numbers
    ]
    for _, image, mask in rows:
      if not mask.is_file():
        raise originals.error(self.name, root, f"{name}/mask/{mask.name} is missing, of {image}")
    return rows

  def _examples(self, rows: list[tuple]) -> originals.Examples:
    for name, image_path, mask_path in rows:
      image = originals.floats(_read(image_path, "img", (_PATCH, _PATCH, _BANDS)), str(image_path))
      mask = _read(mask_path, "mask", (_PATCH, _PATCH)) != 0
      yield from originals.tiles(name, image, mask.astype(np.uint8), self.builder_config.side)


def _has_masks(folder: pathlib.Path) -> bool:
  masks = originals.child(folder, "mask")
  return masks is not None and any(masks.glob("mask_*.h5"))


def _read(path: pathlib.Path, key: str, shape: tuple[int, ...]) -> np.ndarray:
  """Reads an array that lies in the file itself; raises ValueError naming the file."""
  try:
    with h5py.File(path, "r") as file:
      # HDF5 may refer to other files by links, by virtual sets and by external storage.
      if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        raise ValueError(f"it holds no {key!r}")
      stored = file[key]
      if not isinstance(stored, h5py.Dataset) or stored.is_virtual or stored.external:
        raise ValueError(f"its {key!r} is no array of its own")
      if stored.shape != shape or stored.dtype.kind not in "fiub":
        raise ValueError(f"its {key!r} is {stored.dtype} {stored.shape}, not numbers {shape}")
      if stored.chunks and np.prod(stored.chunks) > np.prod(shape):
        raise ValueError(f"its {key!r} is stored in pieces of {stored.chunks}")
      return stored[()]
  except (OSError, KeyError, RuntimeError, ValueError) as error:
    raise ValueError(f"{path} cannot be read: {error}. Restore it.") from error

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
  """Cuts patches into tiles; the published folders are the splits if they have masks."""

  name = "landslide4sense"
  pkg_dir_path = epath.Path(__file__).parent
  code_path = epath.Path(__file__)  # TFDS cannot find it where the module has a name of its own.
  MANUAL_DOWNLOAD_INSTRUCTIONS = catalogue.instructions("landslide4sense")
  BUILDER_CONFIGS: ClassVar[list[originals.Config]] = originals.tiles_or_patches(
    64, _PATCH, _BANDS, np.float32
  )

  def is_root(self, folder: pathlib.Path) -> bool:
    return any(name.casefold() == "traindata" for _, name in originals.list_folders(folder))

  def splits(self, root: pathlib.Path) -> dict[str, originals.Examples]:
    patches = {}
    for split, name in _FOLDERS.items():
      folder = originals.find_folder(root, name.casefold())
      if folder and (split == "train" or _has_masks(folder)):
        patches[split] = self._pairs(root, folder, name)
    if "validation" not in patches:  # By number, since patches with close numbers are neighbours.
      rows = patches["train"]
      cut = len(rows) - round(originals.VALIDATION_FRACTION * len(rows))
      patches["train"], patches["validation"] = rows[:cut], rows[cut:]
    if not all(patches.values()):
      raise originals.layout_error(self.name, root, "there are too few patches to split")
    return {split: self._examples(rows) for split, rows in patches.items()}

  def _pairs(self, root: pathlib.Path, folder: pathlib.Path, name: str) -> list[tuple]:
    """Lists the name, the image and the mask of each patch, by number."""
    images, masks = (originals.find_folder(folder, kind) for kind in ("img", "mask"))
    if images is None or masks is None:
      missing = "img" if images is None else "mask"
      raise originals.layout_error(self.name, root, f"the folder {name}/{missing}/ is missing")
    numbers = sorted(
      int(match[1]) for path in images.iterdir()
      if (match := re.fullmatch(r"image_(\d+)\.h5", path.name))
    )
    if not numbers:
      raise originals.layout_error(self.name, root, f"{name}/img/ has no image_<number>.h5")
    rows = [(f"{name}/{n}", images / f"image_{n}.h5", masks / f"mask_{n}.h5") for n in numbers]
    for _, image, mask in rows:
      if not mask.is_file():
        raise originals.layout_error(
          self.name, root, f"{name}/mask/{mask.name} is missing for {image}"
        )
    return rows

  def _examples(self, rows: list[tuple]) -> originals.Examples:
    for name, image_path, mask_path in rows:
      bands = _read(image_path, "img", (_PATCH, _PATCH, _BANDS))
      image = originals.as_float32(bands, str(image_path))
      mask = _read(mask_path, "mask", (_PATCH, _PATCH)) != 0
      yield from originals.cut_tiles(name, image, mask.astype(np.uint8), self.builder_config.side)


def _has_masks(folder: pathlib.Path) -> bool:
  masks = originals.find_folder(folder, "mask")
  return masks is not None and any(masks.glob("mask_*.h5"))


def _read(path: pathlib.Path, key: str, shape: tuple[int, ...]) -> np.ndarray:
  """Returns an array that the file itself contains; raises ValueError that names the file."""
  try:
    with h5py.File(path, "r") as file:
      # Links, virtual data sets and external storage would read other files.
      if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        raise ValueError(f"it has no {key!r}")
      array = file[key]
      if not isinstance(array, h5py.Dataset) or array.is_virtual or array.external:
        raise ValueError(f"it does not itself contain its {key!r}")
      if array.shape != shape or array.dtype.kind not in "fiub":
        raise ValueError(f"its {key!r} is {array.dtype} {array.shape}, not numbers {shape}")
      if array.chunks and np.prod(array.chunks) > np.prod(shape):
        raise ValueError(f"its {key!r} is stored in chunks of {array.chunks}, larger than the array")
      return array[()]
  except (OSError, KeyError, RuntimeError, ValueError) as error:
    raise ValueError(f"{path} cannot be read: {error}. Restore it.") from error

"""TFDS builder for HR-GLDD: NumPy arrays of PlanetScope patches, cut into tiles."""

import pathlib
import sys
from typing import ClassVar

import numpy as np
from etils import epath

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]))  # `tfds build` runs here.

from lgag_jax.inputs import catalogue, originals

_PATCH, _BANDS = 128, 4
_FILES = {"train": "train", "validation": "val", "test": "test"}


# Not registered by name: the module may be imported more than once, under several names.
class Builder(originals.Builder, skip_registration=True):
  """Cuts patches into tiles; the splits are the published ones."""

  name = "hr_gldd"
  pkg_dir_path = epath.Path(__file__).parent
  code_path = epath.Path(__file__)  # TFDS cannot find it where the module has a name of its own.
  MANUAL_DOWNLOAD_INSTRUCTIONS = catalogue.instructions("hr_gldd")
  BUILDER_CONFIGS: ClassVar[list[originals.Config]] = originals.tiles_or_patches(
    64, _PATCH, _BANDS, np.float32
  )

  def is_root(self, folder: pathlib.Path) -> bool:
    return (folder / "trainX.npy").is_file()

  def splits(self, root: pathlib.Path) -> dict[str, originals.Examples]:
    splits = {}
    for split, name in _FILES.items():
      paths = [root / f"{name}{kind}.npy" for kind in "XY"]
      missing = [path.name for path in paths if not path.is_file()]
      if missing and not (split == "test" and len(missing) == 2):
        raise originals.layout_error(self.name, root, f"{' and '.join(missing)} missing")
      if not missing:
        splits[split] = self._examples(name, *paths)
    return splits

  def _examples(self, name: str, image_path, mask_path) -> originals.Examples:
    images, masks = _open(image_path, _BANDS), _open(mask_path, 1)
    if len(images) != len(masks):
      raise ValueError(f"{mask_path} has {len(masks)} masks for {len(images)} images: restore it.")
    side = self.builder_config.side
    for i in range(len(images)):
      image = originals.as_float32(images[i], f"{image_path}, image {i},")
      mask = originals.as_float32(masks[i, ..., 0], f"{mask_path}, mask {i},") != 0
      yield from originals.cut_tiles(f"{name}/{i}", image, mask.astype(np.uint8), side)


def _open(path: pathlib.Path, channels: int) -> np.ndarray:
  """Memory-maps an array [n, 128, 128, channels]; raises ValueError that names the file."""
  try:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
      raise ValueError("it is not a single array")
    if array.ndim == 3 and channels == 1:
      array = array[..., None]
    if array.ndim != 4 or array.shape[1:] != (_PATCH, _PATCH, channels):
      raise ValueError(f"it holds {array.shape}, not (n, {_PATCH}, {_PATCH}, {channels})")
  except (OSError, ValueError, EOFError) as error:
    raise ValueError(f"{path} cannot be read: {error}. Restore it.") from error
  return array

"""TFDS builder for the Bijie landslides: images by class, with masks and elevations beside them."""

import pathlib
import sys
from typing import ClassVar

import numpy as np
from etils import epath

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]))  # `tfds build` runs here.

from lgag_jax.imagery import listing, reading
from lgag_jax.inputs import catalogue, originals

_KINDS = ("landslide", "non-landslide")


# Not registered by name: the module may be imported more than once, under several names.
class Builder(originals.Builder, skip_registration=True):
  """Takes every image whole, labelled by its folder."""

  name = "bijie"
  pkg_dir_path = epath.Path(__file__).parent
  code_path = epath.Path(__file__)  # TFDS cannot find it where the module has a name of its own.
  MANUAL_DOWNLOAD_INSTRUCTIONS = catalogue.instructions("bijie")
  BUILDER_CONFIGS: ClassVar[list[originals.Config]] = [
    originals.Config(name="rgb", description="Images as published."),
    originals.Config(
      name="rgb_dem", description="Images with elevation.", channels=4, dtype=np.float32
    ),
  ]

  def is_root(self, folder: pathlib.Path) -> bool:
    return any((folder / kind).is_dir() for kind in _KINDS)

  def splits(self, root: pathlib.Path) -> dict[str, originals.Examples]:
    rows = {"train": [], "validation": []}
    for kind in _KINDS:
      files = self._files(root, kind)
      held_out = originals.last_share([row[0].stem for row in files])
      if not held_out:
        raise originals.error(self.name, root, f"{kind}/image/ holds fewer than two images")
      for row in files:
        rows["validation" if row[0].stem in held_out else "train"].append((kind, *row))
    return {split: self._examples(found) for split, found in rows.items()}

  def _files(self, root: pathlib.Path, kind: str) -> list[tuple]:
    """Lists an image, its mask and its elevation, None where there need not be one, by name."""
    needed = ["image"]
    needed += ["mask"] if kind == "landslide" else []
    needed += ["dem"] if self.builder_config.channels == 4 else []
    found = {}
    for name in needed:
      if not (root / kind / name).is_dir():
        raise originals.error(self.name, root, f"the folder {kind}/{name}/ is missing")
      found[name] = listing.files_by_stem(root / kind / name)
    for name in needed:
      for stem, path in found["image"].items():
        if stem not in found[name]:
          raise originals.error(
            self.name, root, f"{kind}/{name}/ holds no file named {stem}, as {path} has it"
          )
    return [
      (path, *(found.get(name, {}).get(stem) for name in ("mask", "dem")))
      for stem, path in sorted(found["image"].items())
    ]

  def _examples(self, rows: list[tuple]) -> originals.Examples:
    for kind, path, mask_path, dem_path in rows:
      image = reading.read_image(path, 3)
      mask = originals.read_mask(mask_path) if mask_path else np.zeros(image.shape[:2], np.uint8)
      reading.check_same_size(mask_path or path, mask.shape, image.shape[:2])
      if dem_path:
        image = np.concatenate([image, _elevation(dem_path, image.shape[:2])], -1, dtype=np.float32)
      name = f"{kind}/{path.stem}"
      _, example = originals.example(name, image, mask)
      yield name, {**example, "label": _KINDS[::-1].index(kind)}  # Its folder's word counts.


def _elevation(path: pathlib.Path, shape: tuple[int, int]) -> np.ndarray:
  """Reads elevations [H, W, 1], of the first band where they were saved as grey RGB."""
  with reading.open_raster(path) as raster:
    values = reading.read_raster(raster, path, raster.count)[0][..., :1]
  reading.check_same_size(path, values.shape[:2], shape)
  return values

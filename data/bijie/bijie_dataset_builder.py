"""TFDS builder for the Bijie landslides: images in folders by class, with masks and elevations."""

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
  """Keeps every image whole; the folder of an image gives its label."""

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
      held_out = originals.validation_names([row[0].stem for row in files])
      if not held_out:
        raise originals.layout_error(self.name, root, f"{kind}/image/ has fewer than two images")
      for row in files:
        rows["validation" if row[0].stem in held_out else "train"].append((kind, *row))
    return {split: self._examples(members) for split, members in rows.items()}

  def _files(self, root: pathlib.Path, kind: str) -> list[tuple]:
    """Lists images by name, each with its mask and its elevation, or None if they are not needed."""
    folders = ["image"]
    folders += ["mask"] if kind == "landslide" else []
    folders += ["dem"] if self.builder_config.channels == 4 else []
    files = {}
    for name in folders:
      if not (root / kind / name).is_dir():
        raise originals.layout_error(self.name, root, f"the folder {kind}/{name}/ is missing")
      files[name] = listing.files_by_stem(root / kind / name)
    for name in folders:
      for stem, path in files["image"].items():
        if stem not in files[name]:
          raise originals.layout_error(
            self.name, root, f"{kind}/{name}/ has no file named {stem} for {path}"
          )
    return [
      (path, *(files.get(name, {}).get(stem) for name in ("mask", "dem")))
      for stem, path in sorted(files["image"].items())
    ]

  def _examples(self, rows: list[tuple]) -> originals.Examples:
    for kind, path, mask_path, dem_path in rows:
      image = reading.read_image(path, 3)
      mask = originals.read_mask(mask_path) if mask_path else np.zeros(image.shape[:2], np.uint8)
      reading.check_same_size(mask_path or path, mask.shape, image.shape[:2])
      if dem_path:
        image = np.concatenate([image, _elevation(dem_path, image.shape[:2])], -1, dtype=np.float32)
      name = f"{kind}/{path.stem}"
      _, example = originals.make_example(name, image, mask)
      yield name, {**example, "label": _KINDS[::-1].index(kind)}  # The folder decides, not the mask.


def _elevation(path: pathlib.Path, shape: tuple[int, int]) -> np.ndarray:
  """Returns elevations [H, W, 1]; uses the first band if they were saved as grey RGB."""
  with reading.open_raster(path) as raster:
    values = reading.read_raster(raster, path, raster.count)[0][..., :1]
  reading.check_same_size(path, values.shape[:2], shape)
  return values

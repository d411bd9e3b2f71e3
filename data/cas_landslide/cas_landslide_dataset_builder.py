"""TFDS builder for the CAS Landslide Dataset: patches of many sensors, split by region."""

import pathlib
import re
import sys
from typing import ClassVar

from etils import epath

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]))  # `tfds build` runs here.

from lgag_jax.imagery import listing, reading
from lgag_jax.inputs import catalogue, originals
from lgag_jax.runtime import archives

_REGION_BY_OTHER_NAME = {"moxitaidi": "moxi town"}


# Not registered by name: the module may be imported more than once, under several names.
class Builder(originals.Builder, skip_registration=True):
  """Cuts patches into tiles; the last fifth of the regions by name is held out."""

  name = "cas_landslide"
  pkg_dir_path = epath.Path(__file__).parent
  code_path = epath.Path(__file__)  # TFDS cannot find it where the module has a name of its own.
  MANUAL_DOWNLOAD_INSTRUCTIONS = catalogue.instructions("cas_landslide")
  BUILDER_CONFIGS: ClassVar[list[originals.Config]] = originals.tiles_or_patches(256, 512)

  def is_root(self, folder: pathlib.Path) -> bool:
    return any(
      archives.is_archive(entry) or originals.find_folder(entry, "img") is not None
      for entry, _ in originals.list_folders(folder)
    )

  def splits(self, root: pathlib.Path) -> dict[str, originals.Examples]:
    folders = {name: rows for name, rows in self._folders(root) if rows}
    held_out = originals.validation_names([region(name) for name in folders])
    if not held_out:
      raise originals.layout_error(self.name, root, "a split by regions needs at least two regions")
    train = {name: rows for name, rows in folders.items() if region(name) not in held_out}
    validation = {name: rows for name, rows in folders.items() if region(name) in held_out}
    return {"train": self._examples(train), "validation": self._examples(validation)}

  def _folders(self, root: pathlib.Path):
    """Yields the name of each folder that has img/ and mask/, with its images and their masks."""
    for entry, name in originals.list_folders(root):
      folder = entry if entry.is_dir() else archives.unpack_once(entry)
      images, masks = (originals.find_folder(folder, kind) for kind in ("img", "mask"))
      if bool(images) != bool(masks):
        raise originals.layout_error(self.name, root, f"{name} has img/ or mask/, but not both")
      if not images:
        continue
      mask_files = {stem.casefold(): path for stem, path in listing.files_by_stem(masks).items()}
      rows = []
      for stem, path in listing.files_by_stem(images).items():
        mask = mask_files.get(stem.casefold()) or mask_files.get(f"{stem.casefold()}_mask")
        if mask is None:
          raise originals.layout_error(
            self.name, root, f"{name}/mask/ has no mask named {stem} for {path}"
          )
        rows.append((stem, path, mask))
      yield name, rows

  def _examples(self, folders: dict[str, list[tuple]]) -> originals.Examples:
    side = self.builder_config.side
    for name, rows in folders.items():
      for stem, path, mask_path in rows:
        image, mask = reading.read_image(path, 3), originals.read_mask(mask_path)
        reading.check_same_size(mask_path, mask.shape, image.shape[:2])
        if min(mask.shape) < side:
          raise ValueError(f"{path} is {mask.shape}, smaller than a tile of {side}: remove it.")
        yield from originals.cut_tiles(f"{name}/{stem}", image, mask, side)


def region(name: str) -> str:
  """Returns the region of a folder: its name without the sensor in (also full-width) brackets."""
  place = re.split(r"[(\uff08]", name)[0].strip().casefold()
  return _REGION_BY_OTHER_NAME.get(place, place)

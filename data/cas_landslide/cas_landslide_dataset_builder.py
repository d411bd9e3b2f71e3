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

# One place under two names, and so one region.
_SAME = {"moxitaidi": "moxi town"}


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
      archives.is_archive(entry) or originals.child(entry, "img") is not None
      for entry, _ in originals.children(folder)
    )

  def splits(self, root: pathlib.Path) -> dict[str, originals.Examples]:
    pairs = {name: found for name, found in self._sets(root) if found}
    held_out = originals.last_share([region(name) for name in pairs])
    if not held_out:
      raise originals.error(self.name, root, "a split by regions needs two of them, or more")
    return {
      split: self._examples({n: rows for n, rows in pairs.items() if (region(n) in held_out) == held})
      for split, held in (("train", False), ("validation", True))
    }

  def _sets(self, root: pathlib.Path):
    """Yields the name of each folder, and its images with their masks; none for what has neither."""
    for entry, name in originals.children(root):
      folder = entry if entry.is_dir() else archives.unpack_once(entry)
      places = [originals.child(folder, kind) for kind in ("img", "mask")]
      if any(places) and not all(places):
        raise originals.error(self.name, root, f"{name} has img/ or mask/, not both")
      if not all(places):
        continue
      found = {stem.casefold(): path for stem, path in listing.files_by_stem(places[1]).items()}
      rows = []
      for stem, path in listing.files_by_stem(places[0]).items():
        mask = found.get(stem.casefold()) or found.get(f"{stem.casefold()}_mask")
        if mask is None:
          raise originals.error(self.name, root, f"{name}/mask/ holds no mask named {stem}, of {path}")
        rows.append((stem, path, mask))
      yield name, rows

  def _examples(self, sets: dict[str, list[tuple]]) -> originals.Examples:
    side = self.builder_config.side
    for name, rows in sets.items():
      for stem, path, mask_path in rows:
        image, mask = reading.read_image(path, 3), originals.read_mask(mask_path)
        reading.check_same_size(mask_path, mask.shape, image.shape[:2])
        if min(mask.shape) < side:
          raise ValueError(f"{path} is {mask.shape}, smaller than a tile of {side}: leave it out.")
        yield from originals.tiles(f"{name}/{stem}", image, mask, side)


def region(name: str) -> str:
  """Returns a folder's region: its name up to a bracket, also a full-width one, with the sensor."""
  found = re.split(r"[(\uff08]", name)[0].strip().casefold()
  return _SAME.get(found, found)

"""TFDS builder for GVLM: large images before and after, cut into tiles, split by site."""

import contextlib
import itertools
import pathlib
import sys
from typing import ClassVar

import numpy as np
from etils import epath
from rasterio.windows import Window

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]))  # `tfds build` runs here.

from lgag_jax.imagery import listing, reading
from lgag_jax.inputs import catalogue, image_tiles, originals

_NAMES = {"before": ("im1", "img1"), "after": ("im2", "img2"), "mask": ("ref",)}


# Not registered by name: the module may be imported more than once, under several names.
class Builder(originals.Builder, skip_registration=True):
  """Cuts each site into tiles; the last fifth of the sites by name is held out."""

  name = "gvlm"
  pkg_dir_path = epath.Path(__file__).parent
  code_path = epath.Path(__file__)  # TFDS cannot find it where the module has a name of its own.
  MANUAL_DOWNLOAD_INSTRUCTIONS = catalogue.instructions("gvlm")
  BUILDER_CONFIGS: ClassVar[list[originals.Config]] = [
    originals.Config(name="single", description="The image after the event.", side=256),
    originals.Config(
      name="bitemporal", description="The image after, then the one before.", side=256, channels=6
    ),
  ]

  def is_root(self, folder: pathlib.Path) -> bool:
    return any("mask" in _files(site) for site, _ in _sites(folder))

  def splits(self, root: pathlib.Path) -> dict[str, originals.Examples]:
    required = ["after", "mask", *(["before"] if self.builder_config.channels == 6 else [])]
    sites = {}
    for site, name in _sites(root):
      files = _files(site)
      missing = [_NAMES[kind][0] for kind in required if kind not in files]
      if files and missing:
        raise originals.layout_error(self.name, root, f"the site {name} has no {', '.join(missing)}")
      if files:
        sites[name] = files
    held_out = originals.validation_names(list(sites))
    if not held_out:
      raise originals.layout_error(self.name, root, "a split by sites needs at least two sites")
    train = {name: files for name, files in sites.items() if name not in held_out}
    validation = {name: files for name, files in sites.items() if name in held_out}
    return {"train": self._examples(train), "validation": self._examples(validation)}

  def _examples(self, sites: dict[str, dict[str, pathlib.Path]]) -> originals.Examples:
    kinds = ["after", "before"][: self.builder_config.channels // 3]
    for name, files in sites.items():
      yield from _strips(name, [files[kind] for kind in kinds], files["mask"], self.builder_config.side)


def _sites(folder: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
  return [(entry, name) for entry, name in originals.list_folders(folder) if entry.is_dir()]


def _files(site: pathlib.Path) -> dict[str, pathlib.Path]:
  stems = {stem.casefold(): path for stem, path in listing.files_by_stem(site).items()}
  return {
    kind: stems[name] for kind, names in _NAMES.items()
    for name in reversed(names) if name in stems  # Reversed, so that the first name wins.
  }


def _strips(site: str, paths: list[pathlib.Path], mask_path: pathlib.Path, side: int):
  """Yields the tiles of a site; reads one row of tiles at a time, since PNGs are read from the top."""
  with contextlib.ExitStack() as stack:
    rasters = [stack.enter_context(reading.open_raster(path)) for path in paths]
    mask_raster = stack.enter_context(reading.open_raster(mask_path))
    height, width = mask_raster.height, mask_raster.width
    for path, raster in zip(paths, rasters, strict=True):
      reading.check_same_size(mask_path, (height, width), (raster.height, raster.width))
      if min(height, width) < side:
        raise ValueError(f"{path} is {height} x {width}, smaller than a tile of {side}: remove it.")
    tiles = image_tiles.tiles(height, width, side)
    for row, strip in itertools.groupby(tiles, lambda tile: tile.row):
      window = Window(0, row, width, side)
      image = np.concatenate([
        reading.read_raster(raster, path, 3, window)[0]
        for path, raster in zip(paths, rasters, strict=True)
      ], -1)
      mask = reading.read_mask(mask_raster, classes=1, ignore=-1, window=window)
      for tile in strip:
        cols = slice(tile.col, tile.col + side)
        yield originals.make_example(
          f"{site}[{row}:{tile.col}]", np.ascontiguousarray(image[:, cols]), mask[:, cols],
          overlap_rows=tile.overlap_rows, overlap_cols=tile.overlap_cols,
        )

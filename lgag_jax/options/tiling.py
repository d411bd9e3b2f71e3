"""What --mode=tile is told: typed, checked when built, each field a flag of the command line."""

import dataclasses
from typing import Any

from lgag_jax.options.fields import flag

UNKNOWN, NO_DATA = "unknown", "no data"  # Tiles of which no label is certain, and without a picture.
_AUTO = -1


def _require(condition: bool, name: str, value: Any, remedy: str) -> None:
  if not condition:
    raise ValueError(f"--{name}={value}: {remedy}")


@dataclasses.dataclass(frozen=True)
class Settings:
  """How scenes and labels become a training set; lengths are in the scene's pixels."""

  input: str
  output: str
  labels: str = flag("", (
    "what is known of the scenes: polygons or points of landslides (.gpkg, .shp, .geojson), a raster "
    "mask, or a CSV with the columns row,col,label (tiles counted from 0 at the scene's first pixel) "
    "or x,y,label (in the scene's coordinates), and scene, a file name, where there are several. "
    "All of a scene that an inventory shows no landslide in counts as free of them."))
  tile_size: int = flag(256, "side of a tile in pixels: to show a landslide and what is around it.")
  tile_stride: int = flag(0, "pixels from a tile to the next; 0: tile_size.")
  min_fraction: float = flag(0.002, (
    "share of a tile that landslides must cover to make it positive; tiles with less are left out. "
    "For polygons and masks."))
  min_pixels: int = flag(1, "pixels that landslides must cover besides.")
  unknown_buffer: float = flag(0.0, (
    "metres: tiles without landslides that come this near to one are left out. For points choose the "
    "length of a landslide, for others how far outlines may be off."))
  max_nodata: float = flag(0.5, "tiles with a larger share of pixels without data are left out.")
  bands: tuple[int, ...] = flag((), "bands of the scenes to write, such as 4,3,2; all without.")
  layer: str = flag("", "which layer of --labels, where it has several.")
  field: str = flag("", "which field of the layer holds the class, where there are several.")
  classes: tuple[str, ...] = flag(("landslide",), "names of the classes, as in the field.")
  background: str = flag("non-landslide", "the name of tiles without any.")
  mask_ignore: int = flag(255, (
    "the value of a raster mask that means unknown. -1 for masks whose landslides are 255."))
  validation_fraction: float = flag(0.2, "share of the blocks that is held out for validation.")
  block_size: int = flag(0, (
    "side of a block in pixels. Blocks go to training or validation whole, since neighbouring tiles "
    "look alike; a multiple of tile_size. 0: up to 4 tiles, such that there are 8 blocks or more."))
  block_buffer: int = flag(_AUTO, (
    "pixels around a validation block that no training tile may touch; -1: half a tile."))

  def __post_init__(self):
    for name in ("input", "labels", "output"):
      _require(bool(getattr(self, name)), name, getattr(self, name), "--mode=tile needs it.")
    _require(self.tile_size > 0, "tile_size", self.tile_size, "must be positive.")
    for name in ("tile_stride", "min_pixels", "unknown_buffer", "block_size"):
      _require(getattr(self, name) >= 0, name, getattr(self, name), "must not be negative.")
    for name in ("min_fraction", "max_nodata", "validation_fraction"):
      _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "must lie in [0, 1].")
    _require(
      self.block_size == 0 or self.block_size >= self.tile_size, "block_size", self.block_size,
      f"must be 0 or at least --tile_size={self.tile_size}.",
    )
    _require(self.block_buffer >= _AUTO, "block_buffer", self.block_buffer, "must not be negative.")
    names = [*self.classes, self.background]
    fit = len({name.casefold() for name in names}) == len(names) >= 2
    taken = {"masks", "images", "train", "validation", UNKNOWN, NO_DATA}
    fit &= not any(n in taken or n[:1] in ("", ".") or set(n) & set("/\\\0") for n in names)
    _require(fit, "classes", ",".join(names), (
      f"with --background, names of folders that differ, none of {', '.join(sorted(taken))}."
    ))

  @property
  def stride(self) -> int:
    return self.tile_stride or self.tile_size

  @property
  def buffer(self) -> int:
    return self.tile_size // 2 if self.block_buffer == _AUTO else self.block_buffer

"""The settings of --mode=tile. Each field is a flag of the command line."""

import dataclasses

from lgag_jax.options import cloud_masks
from lgag_jax.options.fields import flag, require

UNKNOWN_LABEL, NO_DATA = "unknown", "no data"  # Of tiles without a certain label, or without data.
_AUTO = -1
# The flags that also matter where tiles are only shown.
_WITHOUT_LABELS = (
  "input", "output", "labels", "tile_size", "max_nodata", "bands", "classes", "background",
  "before", "max_shift", "clouds", "cloud_kind",
)


@dataclasses.dataclass(frozen=True)
class Settings:
  """How scenes and labels become a training set; lengths are in pixels of the scene."""

  input: str
  output: str
  labels: str = flag("", (
    "labels of the scenes: polygons or points of landslides (.gpkg, .shp, .geojson), a raster mask, or "
    "a CSV. The CSV has the columns row,col,label (tiles counted from 0 at the scene's first pixel) or "
    "x,y,label (in the scene's coordinates). For several scenes it also has the column scene, a file "
    "name. Everything outside the landslides of an inventory counts as free of landslides. Or the "
    "folder or a GeoPackage of a review (--mode=review), or outlines of tiles (tiles.gpkg) with their "
    "field label filled in. Without labels the command writes pictures of the tiles, their outlines "
    "and a table to fill in."))
  negative_labels: str = flag("", (
    "a second layer, of points, lines or polygons that are no landslide. Only what is drawn in the two "
    "is then known: tiles without a shape are skipped. A field of --labels that also names "
    "--background does the same."))
  before: str = flag("", (
    "the image before the event: one file for all scenes, or a folder or glob of files with the "
    "scenes' names. Any grid and CRS. Tiles of it go to before/; without labels it is shown beside."))
  max_shift: float = flag(5.0, (
    "with --before, the longest shift between the dates that is corrected, in pixels. 0: none is."))
  clouds: str = flag("", cloud_masks.FILES)
  cloud_kind: str = flag(cloud_masks.AUTO, cloud_masks.KIND)
  review: str = flag("", (
    "the folder or a GeoPackage of a review (--mode=review), used together with --labels. Where "
    "somebody decided in the review, the decision counts. Or a layer of points, lines and polygons "
    "with missed or not_landslide in its field decision."))
  tile_size: int = flag(256, (
    "side of a tile in pixels. A tile should show a landslide and its surroundings."))
  tile_stride: int = flag(0, "pixels between the starts of neighbouring tiles; 0: tile_size.")
  min_fraction: float = flag(0.002, (
    "the least fraction of a positive tile that landslides cover. Tiles with less are skipped. For "
    "polygons and masks."))
  min_pixels: int = flag(1, "the least number of landslide pixels of a positive tile.")
  unknown_buffer: float = flag(0.0, (
    "distance in metres: tiles without landslides that lie this close to one are skipped. For points "
    "use the length of a landslide, otherwise the error of the outlines."))
  unmapped_background: bool = flag(False, (
    "with a review as --labels: tiles in which the map has no polygon count as free of landslides. Set "
    "it only if somebody has looked at the whole scene. By default they are skipped."))
  max_nodata: float = flag(0.5, "tiles with a larger fraction of nodata pixels are skipped.")
  bands: tuple[int, ...] = flag((), "bands of the scenes to write, such as 4,3,2.")
  layer: str = flag("", "the layer of --labels to use, if it has several.")
  field: str = flag("", "the field of the layer that holds the class, if there are several classes.")
  classes: tuple[str, ...] = flag(("landslide",), "names of the classes, as in --field.")
  background: str = flag("non-landslide", "the name for tiles without any class.")
  mask_ignore: int = flag(-2, (
    "the value that means unknown in a raster mask. -1: none. -2: the values decide: 255 is landslide "
    "in masks of 0 and 255 only, and unknown in masks that also hold 1."))
  validation_fraction: float = flag(0.2, "the fraction of blocks held out for validation.")
  block_size: int = flag(0, (
    "side of a block in pixels, a multiple of tile_size. Neighbouring tiles look alike, so a whole "
    "block goes to training or validation. 0: at most 4 tiles, so that there are at least 8 blocks. "
    "With fewer than 400 answers of --mode=label, blocks are chosen so that both get every label."))
  block_buffer: int = flag(_AUTO, (
    "pixels around a validation block that no training tile may touch. -1: half a tile, or 0 with "
    "fewer than 400 answers of --mode=label."))

  def __post_init__(self):
    for name in ("input", "output"):
      require(getattr(self, name), self, name, "given: --mode=tile needs it")
    for field in dataclasses.fields(self) if not self.labels else ():
      if field.name not in _WITHOUT_LABELS and getattr(self, field.name) != field.default:
        raise ValueError(f"--{field.name} needs --labels: without, no tile is cut to train on.")
    cloud_masks.check(self)
    require(self.tile_size > 0, self, "tile_size", "positive")
    require(0 <= self.max_shift < float("inf"), self, "max_shift", "0 or more")
    for name in ("tile_stride", "min_pixels", "unknown_buffer", "block_size"):
      require(getattr(self, name) >= 0, self, name, "0 or more")
    for name in ("min_fraction", "max_nodata", "validation_fraction"):
      require(0 <= getattr(self, name) <= 1, self, name, "from 0 to 1")
    fits = self.block_size == 0 or self.block_size >= self.tile_size
    require(fits, self, "block_size", f"0, or at least --tile_size={self.tile_size}")
    require(self.block_buffer >= _AUTO, self, "block_buffer", "-1, 0 or more")
    names = [*self.classes, self.background]
    valid = len({name.casefold() for name in names}) == len(names) >= 2
    reserved = {"masks", "before", "images", "train", "validation", UNKNOWN_LABEL, NO_DATA}
    valid &= not any(n in reserved or n[:1] in ("", ".") or set(n) & set("/\\\0") for n in names)
    forbidden = ", ".join(sorted(reserved))
    require(valid, self, "classes", (
      f"different folder names, --background={self.background} included, and none of {forbidden}"))

  @property
  def stride(self) -> int:
    return self.tile_stride or self.tile_size

  @property
  def buffer(self) -> int:
    return self.tile_size // 2 if self.block_buffer == _AUTO else self.block_buffer

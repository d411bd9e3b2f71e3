"""The settings of --mode=predict, and of --mode=eval on scenes. Each field is a flag."""

import contextlib
import dataclasses
import datetime
from collections.abc import Iterable

from lgag_jax.options import cloud_masks
from lgag_jax.options.fields import flag, give_types, parse, require

SCHEMAS = ("plain", "usgs", "copernicus_ems")


@dataclasses.dataclass(frozen=True)
class Options:
  """How scenes are mapped."""

  bands: tuple[int, ...] = flag((), (
    "bands of a scene, counted from 1, in the model's order, such as 4,3,2."))
  before: str = flag("", (
    "the image before the event, for a network that was trained with data.before: one file for all "
    "scenes, or a folder or glob of files with the scenes' names. Any grid and CRS."))
  max_shift: float = flag(5.0, (
    "with --before, the longest shift between the dates that is corrected, in pixels. 0: none is."))
  clouds: str = flag("", cloud_masks.FILES)
  cloud_kind: str = flag(cloud_masks.AUTO, cloud_masks.KIND)
  gsd: float = flag(0.0, (
    "ground resolution of the scenes in metres per pixel, if their files do not state it."))
  training_gsd: float = flag(0.0, (
    "ground resolution of the training images in metres per pixel, if their files do not state it."))
  tile_size: int = flag(0, (
    "side of a window in pixels. 0: 1.5 times the side of the training images, or in small scenes "
    "exactly that side."))
  overlap: float = flag(0.25, "the least fraction of a window that it shares with its neighbours.")
  probability: str = flag("percent", "format of the probabilities: percent (uint8) or float32.")
  min_area: float = flag(-1.0, (
    "minimum area of a polygon in square metres, or in pixels if the scene has no CRS. -1: the area "
    "of 4 x 4 pixels, of the scene or of the network's image, whichever are larger."))
  simplify: float = flag(0.0, (
    "tolerance for simplifying the outlines of polygons in metres, or in pixels if the scene has no "
    "CRS."))
  split_necks: float = flag(0.0, (
    "splits polygons at necks narrower than this in metres, or in pixels if the scene has no CRS; "
    "unsplit/ keeps the outlines as they were. 0: does not split."))
  threshold: tuple[float, ...] = flag((), (
    "the score that a pixel must reach to be mapped, such as 0.6; for several classes one each, in the "
    "order of the config. By default the label-free threshold of the workdir."))
  gate: float = flag(-1.0, (
    "the image score that a window must exceed for a class to be mapped in it. -1: the workdir's "
    "(localize.gate)."))
  review: str = flag("", (
    "the folder or a GeoPackage of a review (--mode=review), or a layer of shapes with missed or "
    "not_landslide in its field decision. Where somebody decided, the map follows the decision."))
  dem: str = flag("", (
    "a DEM in metres, of any grid and CRS; each polygon carries slope, aspect and heights."))
  min_slope: float = flag(0.0, (
    "with --dem, the least mean slope of a landslide in degrees: flatter regions are not mapped."))
  event: str = flag("", (
    "name of the event, such as 'Gorkha earthquake 2015'; each polygon carries it."))
  image_date: str = flag("", (
    "date of the imagery, YYYY-MM-DD; each polygon carries it."))
  before_date: str = flag("", (
    "with --before, the date of that image, YYYY-MM-DD; each polygon carries it."))
  schema: str = flag("plain", (
    "attributes of polygons: plain, usgs or copernicus_ems."))

  def __post_init__(self):
    give_types(self)
    require(self.schema in SCHEMAS, self, "schema", f"one of {', '.join(SCHEMAS)}")
    require(self.probability in ("percent", "float32"), self, "probability", "percent or float32")
    require(0 <= self.overlap <= 0.75, self, "overlap", "from 0 to 0.75")
    require(self.tile_size == 0 or self.tile_size >= 32, self, "tile_size", "0, or 32 pixels or more")
    require(all(band > 0 for band in self.bands), self, "bands", "numbers from 1")
    require(all(0 < t <= 1 for t in self.threshold), self, "threshold", "above 0 and at most 1")
    require(self.gate == -1 or 0 <= self.gate < 1, self, "gate", "-1, or from 0 to below 1")
    require(self.min_area == -1 or 0 <= self.min_area < float("inf"), self, "min_area", "-1, 0 or more")
    require(0 <= self.min_slope < 90, self, "min_slope", "at least 0 and below 90 degrees")
    if self.min_slope and not self.dem:
      raise ValueError(f"--min_slope={self.min_slope:g} needs --dem, the DEM that gives the slope.")
    cloud_masks.check(self)
    require(self.event.isprintable(), self, "event", "text on one line")
    for name in ("image_date", "before_date"):
      require(_is_date(getattr(self, name)), self, name, "a date such as 2015-04-26")
    if self.before_date and not self.before:
      raise ValueError(f"--before_date={self.before_date} needs --before, the image of that date.")
    in_order = not self.image_date or self.before_date <= self.image_date
    require(in_order, self, "before_date", f"not later than --image_date={self.image_date}")
    for name in ("gsd", "training_gsd", "simplify", "split_necks", "max_shift"):
      require(0 <= getattr(self, name) < float("inf"), self, name, "0 or more")

  def flags(self) -> list[str]:
    """Returns the flags that give these options, of those that differ from the defaults."""
    changed = {
      field.name: getattr(self, field.name) for field in dataclasses.fields(self)
      if getattr(self, field.name) != field.default
    }
    return [
      f"--{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
      for name, value in changed.items()
    ]

  @property
  def dtype(self) -> str:
    """The data type of the probability rasters."""
    return "uint8" if self.probability == "percent" else "float32"


def checked_flags(words: Iterable[str]) -> list[str]:
  """Returns the flags of a record that are those of `Options` with valid values; others are left out.

  A record may come from anywhere, and other flags can run code.
  """
  known, values = {field.name: field for field in dataclasses.fields(Options)}, {}
  for word in words:
    name, _, text = word.partition("=")
    if (field := known.get(name.removeprefix("--"))) and name.startswith("--"):
      with contextlib.suppress(ValueError):
        values[field.name] = parse(field, text)
  with contextlib.suppress(ValueError):
    return Options(**values).flags()
  return []


def _is_date(text: str) -> bool:
  with contextlib.suppress(ValueError):
    return not text or datetime.date.fromisoformat(text).isoformat() == text
  return False


@dataclasses.dataclass(frozen=True)
class References:
  """The references that maps of scenes are evaluated against."""

  labels: str = flag("", (
    "with --input, the references for the maps: a raster mask of one scene, polygons (.gpkg, .shp, "
    ".geojson) of one or several scenes, or a folder or glob of files with the scenes' names. "
    "Everything outside the polygons counts as free of landslides."))
  layer: str = flag("", "the layer of --labels to use, if it has several.")
  field: str = flag("", "the field of the layer that holds the class, if there are several classes.")
  mask_ignore: int = flag(-2, (
    "the value that means unknown in a raster mask. -1: none. -2: the values decide: 255 is landslide "
    "in masks of 0 and 255 only, and unknown in masks that also hold 1."))
  min_overlap: float = flag(0.1, (
    "the fraction of a landslide that must be mapped to count as detected, and the fraction of a "
    "mapped polygon that must lie on landslides not to count as a false alarm."))

  def __post_init__(self):
    require(0 < self.min_overlap <= 1, self, "min_overlap", "above 0 and at most 1")
    if not self.labels:
      raise ValueError("--mode=eval with --input needs --labels: reference masks or polygons.")

"""The settings of --mode=map: the imagery of an area, its blocks, and what maps them."""

import contextlib
import dataclasses
import datetime
import re

from lgag_jax.options import mapping
from lgag_jax.options.fields import flag, require

COMPOSITES = ("first", "least_cloud", "median")
ENGINES = ("local", "ray")


def _as_in_predict(name: str):
  """Returns the field of a flag that --mode=predict has, too."""
  (field,) = (field for field in dataclasses.fields(mapping.Options) if field.name == name)
  return flag(field.default, field.metadata["help"])


@dataclasses.dataclass(frozen=True)
class Imagery:
  """Which images are read, and how."""

  area: str = flag("", (
    "a GeoJSON file with the polygons of the area to map, in longitude and latitude. By default the "
    "area is where the images are."))
  dates: str = flag("", (
    "the first and the last day of the imagery, such as 2015-04-26/2015-05-31. Images without a date "
    "are skipped. Of a mosaic all days must be among them."))
  before_dates: str = flag("", (
    "for a network of pairs, the first and the last day of the images before the event, such as "
    "2015-03-01/2015-04-20. --dates then says which images are after it."))
  max_cloud: float = flag(100.0, (
    "the highest cloud cover of an image in percent (eo:cloud_cover). Below 100, images that do not "
    "state theirs are skipped."))
  collections: tuple[str, ...] = flag((), "the STAC collections to use.")
  assets: tuple[str, ...] = flag((), (
    "the bands in the model's order, such as red,green,blue: keys of assets, or names or common names "
    "of bands, or numbers. all: the first bands of the image's only asset, or of its asset visual."))
  composite: str = flag("first", (
    "the rule where images overlap: first (the earliest valid pixel, in a list the first), least_cloud "
    "(a valid pixel of the image with the least cloud cover) or median (of all valid pixels)."))
  cloud_mask: tuple[str, ...] = flag(("scl", "qa_pixel"), (
    "the assets with cloud masks; the first that an image has counts. Clouds, cloud shadow, cirrus and "
    "pixels without a value count as nodata."))
  cloud_classes: tuple[int, ...] = flag((), (
    "the values of --cloud_mask that count as nodata instead, such as 2,4. A mask that is neither SCL "
    "of Sentinel-2 nor QA_PIXEL of Landsat needs them."), empty="by the product")
  values: str = flag("scaled", (
    "scaled applies the scale and offset of files and catalogues, raw does not. Use raw if the model "
    "was trained on values as they are stored."))
  remote: bool = flag(False, (
    "lets a local catalogue or list name images at http(s):// or s3:// addresses. An --input that is "
    "such an address itself needs no flag."))
  timeout: float = flag(30.0, "seconds to wait for a server, for each request.")
  retries: int = flag(4, "repetitions of a read that failed, over http or s3, with growing pauses.")
  readers: int = flag(4, "images that are read at the same time for a block.")

  def __post_init__(self):
    require(self.composite in COMPOSITES, self, "composite", f"one of {', '.join(COMPOSITES)}")
    require(self.values in ("scaled", "raw"), self, "values", "scaled or raw")
    require(0 <= self.max_cloud <= 100, self, "max_cloud", "from 0 to 100 percent")
    require(all(0 <= c <= 255 for c in self.cloud_classes), self, "cloud_classes", "from 0 to 255")
    require(0 < self.timeout <= 3600, self, "timeout", "above 0 and at most 3600 seconds")
    require(0 <= self.retries <= 20, self, "retries", "from 0 to 20")
    require(1 <= self.readers <= 64, self, "readers", "from 1 to 64")
    require(not self.dates or self.days, self, "dates", "two days such as 2015-04-26/2015-05-31")
    if self.before_dates:
      before = _days(self.before_dates)
      require(before, self, "before_dates", "two days such as 2015-03-01/2015-04-20")
      require(
        before and self.days and before[1] < self.days[0], self, "before_dates", "days before --dates"
      )

  @property
  def days(self) -> tuple[datetime.date, datetime.date] | None:
    """The first and the last day; None if there is no limit."""
    return _days(self.dates)


def _days(dates: str) -> tuple[datetime.date, datetime.date] | None:
  first, _, last = dates.partition("/")
  with contextlib.suppress(ValueError):
    days = datetime.date.fromisoformat(first), datetime.date.fromisoformat(last or first)
    return days if days[0] <= days[1] else None
  return None


@dataclasses.dataclass(frozen=True)
class Area:
  """How an area is cut into blocks and mapped."""

  resolution: float = flag(0.0, (
    "metres per pixel of the maps. 0: that of the training images, as the network sees them."))
  block_size: int = flag(4096, "the side of a block in pixels, rounded to a whole number of windows.")
  part: str = flag("1/1", (
    "which part of the blocks to map, such as 3/100, for the jobs of an array. Run once without it at "
    "the end."))
  training_gsd: float = _as_in_predict("training_gsd")
  tile_size: int = _as_in_predict("tile_size")
  overlap: float = _as_in_predict("overlap")
  probability: str = _as_in_predict("probability")
  min_area: float = _as_in_predict("min_area")
  simplify: float = _as_in_predict("simplify")
  event: str = _as_in_predict("event")
  schema: str = _as_in_predict("schema")

  def __post_init__(self):
    require(0 <= self.resolution < float("inf"), self, "resolution", "0 or more")
    require(64 <= self.block_size <= 16384, self, "block_size", "from 64 to 16384 pixels")
    match = re.fullmatch(r"(\d{1,7})/(\d{1,7})", self.part)
    require(match and 1 <= int(match[1]) <= int(match[2]), self, "part", "such as 3/100")
    self.maps()  # Checks the fields of --mode=predict.

  @property
  def part_of(self) -> tuple[int, int]:
    """The number of this part, from 0, and the number of parts."""
    number, count = map(int, self.part.split("/"))
    return number - 1, count

  def maps(self) -> mapping.Options:
    """Returns the options of --mode=predict that make the same map."""
    names = {field.name for field in dataclasses.fields(mapping.Options)}
    own = {name: value for name, value in vars(self).items() if name in names}
    return mapping.Options(**own)


@dataclasses.dataclass(frozen=True)
class Engine:
  """What maps the blocks."""

  engine: str = flag("local", "what maps the blocks: local (this process) or ray (docs/scale.md).")
  address: str = flag("", (
    "with --engine=ray, the cluster: auto, HOST:PORT or ray://HOST:PORT. By default Ray starts on this "
    "machine."))
  mappers: int = flag(0, (
    "with --engine=ray, the number of processes that hold the network. 0: one per GPU of the cluster, "
    "or one per two CPUs without GPUs."))
  mapper_gpus: int = flag(-1, (
    "with --engine=ray, the GPUs of each of these processes. -1: one if the cluster has GPUs now. Give "
    "1 if it only adds them when they are asked for."))
  attempts: int = flag(3, (
    "how often a block is tried that fails or whose process dies. A block that fails each time is "
    "skipped and named at the end."))

  def __post_init__(self):
    require(self.engine in ENGINES, self, "engine", f"one of {', '.join(ENGINES)}")
    require(0 <= self.mappers <= 10_000, self, "mappers", "from 0 to 10000")
    require(-1 <= self.mapper_gpus <= 16, self, "mapper_gpus", "from -1 to 16")
    require(1 <= self.attempts <= 100, self, "attempts", "from 1 to 100")
    if self.engine != "ray" and (self.address or self.mappers):
      name = "address" if self.address else "mappers"
      raise ValueError(f"--{name}={getattr(self, name)} needs --engine=ray.")

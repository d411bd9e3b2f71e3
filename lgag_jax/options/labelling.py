"""The settings of --mode=label. Each field is a flag of the command line."""

import dataclasses

from lgag_jax.options import cloud_masks, serving, tiling
from lgag_jax.options.fields import flag, require

TABLE = "labels.csv"  # The answers, in the output folder.
MAX_SIDE = 2048  # Of a tile in pixels.


@dataclasses.dataclass(frozen=True)
class Settings:
  """How tiles are shown and how answers are asked for."""

  input: str
  output: str
  tile_size: int = flag(0, (
    "side of a tile in pixels. 0: that of the answers in --output, otherwise about 128 m and at least "
    "150 tiles. The page can change it before the first answer."))
  classes: tuple[str, ...] = flag(("landslide",), "names of the classes.")
  background: str = flag("non-landslide", "the name for tiles without any class.")
  max_nodata: float = flag(0.5, "tiles with a larger fraction of nodata pixels are not shown.")
  bands: tuple[int, ...] = flag((), "bands of the scenes to train with, such as 4,3,2.")
  before: str = flag("", (
    "the image before the event, which is shown beside: one file for all scenes, or a folder or glob "
    "of files with the scenes' names. Any grid and CRS."))
  max_shift: float = flag(5.0, (
    "with --before, the longest shift between the dates that is corrected, in pixels. 0: none is."))
  clouds: str = flag("", cloud_masks.FILES)
  cloud_kind: str = flag(cloud_masks.AUTO, cloud_masks.KIND)
  rgb_bands: tuple[int, ...] = flag((1, 2, 3), (
    "which of these bands the page shows as red, green and blue, counted from 1."))
  positives: int = flag(20, "the number of positive answers to ask for, per class.")
  negatives: int = flag(30, "the number of negative answers to ask for.")
  learn: bool = flag(True, (
    "learn from the answers in the background, and suggest the tiles that teach most. --nolearn shows "
    "all tiles by place only."))
  merge: str = flag("", (
    "a table of another person's answers, which are added to those in --output. The command names "
    "tiles on which the two disagree, and the page asks for them again."))
  sheets: bool = flag(False, (
    "start no server. Write contact sheets (PNG), and to fill in a row per tile in labels.csv and the "
    "tiles' outlines in tiles.gpkg, for a machine without a browser. --mode=tile without --labels does "
    "the same."))
  host: str = flag("127.0.0.1", serving.HOST)
  port: int = flag(0, serving.PORT)
  no_browser: bool = flag(False, serving.NO_BROWSER)

  def __post_init__(self):
    for name in ("input", "output"):
      require(getattr(self, name), self, name, "given: --mode=label needs it")
    fits = self.tile_size == 0 or 8 <= self.tile_size <= MAX_SIDE
    require(fits, self, "tile_size", f"0, or from 8 to {MAX_SIDE} pixels")
    require(len(self.rgb_bands) == 3, self, "rgb_bands", "three numbers, such as 1,2,3")
    require(all(band > 0 for band in self.rgb_bands), self, "rgb_bands", "numbers from 1")
    for name in ("positives", "negatives"):
      require(getattr(self, name) > 0, self, name, "positive")
    require(0 <= self.port <= serving.MAX_PORT, self, "port", f"from 0 to {serving.MAX_PORT}")
    self.tiling(self.tile_size or 256)

  @classmethod
  def for_sheets(cls, settings: tiling.Settings) -> "Settings":
    """Returns the settings that write sheets of the tiles of --mode=tile; raises ValueError."""
    return cls(
      input=settings.input, output=settings.output, tile_size=settings.tile_size,
      classes=settings.classes, background=settings.background, max_nodata=settings.max_nodata,
      bands=settings.bands, before=settings.before, max_shift=settings.max_shift,
      clouds=settings.clouds, cloud_kind=settings.cloud_kind, learn=False, sheets=True,
    )

  @property
  def file_flags(self) -> tuple[str, ...]:
    """The flags that name the images before and the cloud masks in other modes."""
    before = (f"--before={self.before}", f"--max_shift={self.max_shift:g}") if self.before else ()
    clouds = (f"--clouds={self.clouds}", f"--cloud_kind={self.cloud_kind}") if self.clouds else ()
    return *before, *clouds

  def tiling(self, tile_size: int) -> tiling.Settings:
    """Returns the settings of --mode=tile that cut the same tiles; raises ValueError naming a flag."""
    return tiling.Settings(
      input=self.input, output=f"{self.output}/tiles", labels=f"{self.output}/{TABLE}",
      tile_size=tile_size, classes=self.classes, background=self.background,
      max_nodata=self.max_nodata, bands=self.bands, before=self.before, max_shift=self.max_shift,
      clouds=self.clouds, cloud_kind=self.cloud_kind,
    )

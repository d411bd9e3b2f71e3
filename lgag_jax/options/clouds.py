"""The settings of --mode=clouds. Each field is a flag of the command line."""

import dataclasses

from lgag_jax.options.fields import flag, require

LEVELS = ("l1c", "l2a")
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")


@dataclasses.dataclass(frozen=True)
class Settings:
  """How cloud masks are made of scenes that have none."""

  input: str
  output: str
  bands: tuple[int, ...] = flag((), (
    "the scene's bands blue, green, red and near infrared, counted from 1, such as 2,3,4,8. With two "
    "more, the short-wave infrared at 1.6 and 2.2 micrometres, clouds are found better."))
  level: str = flag("l2a", (
    "l2a: reflectances at the ground, as of Sentinel-2 L2A and Landsat level 2. l1c: at the top of the "
    "atmosphere."))
  quantification: float = flag(10000.0, "the value of a reflectance of 1, after --add_offset.")
  add_offset: float = flag(0.0, (
    "what is added to a value before it is divided by --quantification, such as -1000 for Sentinel-2 "
    "since January 2022."))

  def __post_init__(self):
    enough = len({*self.bands}) == len(self.bands) in (4, 6) and all(band > 0 for band in self.bands)
    require(enough, self, "bands", (
      "4 or 6 different numbers from 1: the bands blue, green, red and near infrared of the scene, and "
      "perhaps the two of short-wave infrared, such as 2,3,4,8"))
    require(self.level in LEVELS, self, "level", " or ".join(LEVELS))
    require(0 < self.quantification < float("inf"), self, "quantification", "above 0")
    require(abs(self.add_offset) < float("inf"), self, "add_offset", "a number")

"""The settings of --mode=review. Each field is a flag of the command line."""

import dataclasses

from lgag_jax.options import serving
from lgag_jax.options.fields import flag, require


@dataclasses.dataclass(frozen=True)
class Settings:
  """Which maps are reviewed, and how their scenes are shown."""

  input: str
  bands: tuple[int, ...] = flag((), "bands of the scenes to show, such as 4,3,2.")
  rgb_bands: tuple[int, ...] = flag((1, 2, 3), (
    "which of these bands the page shows as red, green and blue, counted from 1."))
  host: str = flag("127.0.0.1", serving.HOST)
  port: int = flag(0, serving.PORT)
  no_browser: bool = flag(False, serving.NO_BROWSER)

  def __post_init__(self):
    require(self.input, self, "input", "given: --mode=review needs it")
    require(len(self.rgb_bands) == 3, self, "rgb_bands", "three numbers, such as 1,2,3")
    for name in ("bands", "rgb_bands"):
      require(all(band > 0 for band in getattr(self, name)), self, name, "numbers from 1")
    require(0 <= self.port <= serving.MAX_PORT, self, "port", f"from 0 to {serving.MAX_PORT}")

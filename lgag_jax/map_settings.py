"""What --mode=predict is told: typed, checked when built, each field a flag of the command line."""

import dataclasses

from lgag_jax.flag_fields import flag


@dataclasses.dataclass(frozen=True)
class Options:
  """How scenes are mapped."""

  bands: tuple[int, ...] = flag((), "bands of a scene, from 1, in the model's order, such as 4,3,2.")
  gsd: float = flag(0.0, "metres a pixel of scenes whose files do not tell.")
  training_gsd: float = flag(0.0, "metres a pixel of the training images, where theirs did not.")
  tile_size: int = flag(0, "side of a window in pixels; 0: as much ground as in training.")
  overlap: float = flag(0.25, "share of a window that its neighbours see too, at least.")
  probability: str = flag("percent", "how probabilities are written: percent (uint8) or float32.")
  min_area: float = flag(-1.0, (
    "square metres of a polygon at least, pixels without a CRS; -1: what the network sees as "
    "4 x 4 pixels."))
  simplify: float = flag(0.0, "metres that a polygon's outline may move; pixels without a CRS.")

  def __post_init__(self):
    self._require(self.probability in ("percent", "float32"), "probability", "percent or float32")
    self._require(0 <= self.overlap <= 0.75, "overlap", "a share from 0 to 0.75")
    self._require(self.tile_size == 0 or self.tile_size >= 32, "tile_size", "0, or 32 pixels or more")
    self._require(all(band > 0 for band in self.bands), "bands", "numbers from 1")
    self._require(self.min_area == -1 or 0 <= self.min_area < float("inf"), "min_area", "-1, 0 or more")
    for name in ("gsd", "training_gsd", "simplify"):
      self._require(0 <= getattr(self, name) < float("inf"), name, "0 or more")

  def _require(self, condition: bool, name: str, wanted: str) -> None:
    if not condition:
      raise ValueError(f"--{name}={getattr(self, name)}: must be {wanted}.")

  @property
  def dtype(self) -> str:
    """The type of the probability rasters."""
    return "uint8" if self.probability == "percent" else "float32"

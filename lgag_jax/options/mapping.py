"""What --mode=predict, and --mode=eval on scenes, are told: typed, checked when built.

Each field is a flag of the command line.
"""

import dataclasses

from lgag_jax.options.fields import flag


@dataclasses.dataclass(frozen=True)
class Options:
  """How scenes are mapped."""

  bands: tuple[int, ...] = flag((), "bands of a scene, from 1, in the model's order, such as 4,3,2.")
  gsd: float = flag(0.0, "metres a pixel of scenes whose files do not tell.")
  training_gsd: float = flag(0.0, "metres a pixel of the training images, where theirs did not.")
  tile_size: int = flag(0, (
    "side of a window in pixels; 0: half as wide again as training's images, in small scenes as wide."))
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


@dataclasses.dataclass(frozen=True)
class References:
  """What maps of scenes are judged against, and how."""

  labels: str = flag("", (
    "with --input, what the scenes' maps are judged against: a raster mask or polygons (.gpkg, .shp, "
    ".geojson) of one scene, polygons of several, or a folder or glob of files that have the scenes' "
    "names. All of a scene that polygons do not cover counts as free of landslides."))
  layer: str = flag("", "which layer of --labels, where it has several.")
  field: str = flag("", "which field of the layer holds the class, where there are several.")
  mask_ignore: int = flag(255, (
    "the value of a raster mask that means unknown. -1 for masks whose landslides are 255."))
  min_overlap: float = flag(0.1, (
    "share of a landslide that must be mapped for it to be detected, and of a mapped polygon that must "
    "lie on landslides for it to be no false alarm."))

  def __post_init__(self):
    if not 0 < self.min_overlap <= 1:
      raise ValueError(f"--min_overlap={self.min_overlap}: must be a share above 0, at most 1.")
    if not self.labels:
      raise ValueError("--mode=eval of --input needs --labels: masks or polygons to judge maps by.")

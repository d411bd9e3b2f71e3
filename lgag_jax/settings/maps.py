"""From a trained network to maps."""

import dataclasses
import math

from lgag_jax.settings.checks import fraction, not_negative, one_of, positive, require

_MAX_SCALES, _LARGEST_SCALE = 16, 8  # A stranger's may take any time and memory.
RULES = ("argmax", "otsu", "agreement")  # For thresholds, from image labels alone.


@dataclasses.dataclass(frozen=True)
class LocalizeConfig:
  """Score maps and their thresholds."""

  scales: tuple[float, ...] = (1.0,)  # Maps are averaged over these scales of the image.
  map: str = "best"  # "anchor_guided", "class_activation", or "best": the method's main map.
  blend: float = 0.5  # Share of the class activation in the anchor-guided map (geometric mean).
  gate: float = 0.5  # A class counts as present in an image when its score exceeds this.
  threshold_rule: str = "default"  # The method's own; or "argmax", "otsu", "agreement".
  agreement_fraction: float = 0.0  # "agreement": an image is positive with this share above; 0: any.
  anchor_stride: int = 4  # Of the grid of anchors and guided maps in prediction; training uses 16.
  calibration_images: int = 2000  # Training images that thresholds are read from; 0 takes all.
  batch_size: int = 32

  def __post_init__(self):
    valid = len(self.scales) > 0 and all(0 < s < math.inf for s in self.scales)
    require(valid, "localize.scales", self.scales, "give at least one positive scale.")
    few = len(self.scales) <= _MAX_SCALES and max(self.scales) <= _LARGEST_SCALE
    require(few, "localize.scales", self.scales[:_MAX_SCALES], (
      f"give at most {_MAX_SCALES} scales of at most {_LARGEST_SCALE}."))
    one_of("localize.threshold_rule", self.threshold_rule, ("default", *RULES))
    fraction("localize", self, "agreement_fraction", "blend", "gate")
    one_of("localize.anchor_stride", self.anchor_stride, (16, 8, 4))
    positive("localize", self, "batch_size")
    not_negative("localize", self, "calibration_images")


@dataclasses.dataclass(frozen=True)
class RefineConfig:
  """Score maps aligned with the edges of the image, and the pseudo-masks made of them."""

  method: str = "guided_filter"  # Or "none".
  stride: int = 4  # Of the grid that a map is refined on, in pixels of the network's image.
  radius: float = 0.06  # Of the filter's window, as a share of the image's side.
  epsilon: float = 0.1  # Colour contrast that is smoothed over, in variances of the image.
  colour_evidence: bool = True  # Adds how much likelier a pixel's colour is on landslides.
  ignore_band: float = 0.05  # Pseudo-masks are unknown where a score is this close to the threshold.

  def __post_init__(self):
    one_of("refine.method", self.method, ("guided_filter", "none"))
    positive("refine", self, "stride", "radius", "epsilon")
    fraction("refine", self, "ignore_band")

"""From a trained network to maps."""

import dataclasses
import math

from lgag_jax.settings.checks import fraction, not_negative, one_of, positive, require

RULES = ("negatives", "otsu", "argmax", "agreement")  # For thresholds, from image labels alone.


@dataclasses.dataclass(frozen=True)
class LocalizeConfig:
  """From a trained model to maps."""

  scales: tuple[float, ...] = (1.0,)
  turns: str = "none"  # Maps averaged over a "flip" or "all" eight flips and quarter turns.
  map: str = "best"  # "anchor_guided", "class_activation", or "best": what the method adds last.
  class_activation: str = "probability"  # sigmoid(c), or "normalised": M, for a linear classifier.
  blend: float = 0.5  # Share of the class activation in the anchor-guided map (geometric mean).
  compare: str = "difference"  # How foreground meets background: "difference" or "softmax".
  gate: float = 0.5  # An image's class counts as present when its score exceeds this.
  threshold_rule: str = "negatives"  # Or "otsu", "argmax", "agreement"; none of them sees a mask.
  negative_quantile: float = 0.995  # "negatives": this share of background pixels stays below.
  agreement_fraction: float = 0.01  # "agreement": an image is found positive with this share above.
  anchor_stride: int = 4  # Of the grid of anchors and guided maps; training uses the model's.
  calibration_images: int = 1000  # Training images that thresholds are read from; 0 takes all.
  batch_size: int = 32

  def __post_init__(self):
    valid = len(self.scales) > 0 and all(0 < s < math.inf for s in self.scales)
    require(valid, "localize.scales", self.scales, "give at least one positive scale.")
    one_of("localize.map", self.map, ("best", "anchor_guided", "class_activation"))
    one_of("localize.class_activation", self.class_activation, ("probability", "normalised"))
    one_of("localize.compare", self.compare, ("difference", "softmax"))
    one_of("localize.turns", self.turns, ("none", "flip", "all"))
    one_of("localize.threshold_rule", self.threshold_rule, RULES)
    fraction("localize.agreement_fraction", self.agreement_fraction)
    fraction("localize.blend", self.blend)
    fraction("localize.gate", self.gate)
    one_of("localize.anchor_stride", self.anchor_stride, (16, 8, 4))
    fraction("localize.negative_quantile", self.negative_quantile)
    positive("localize.batch_size", self.batch_size)
    not_negative("localize.calibration_images", self.calibration_images)


@dataclasses.dataclass(frozen=True)
class RefineConfig:
  """Score maps drawn to the edges of the image, and the pseudo-masks made of them."""

  method: str = "guided_filter"  # Or "pixel_adaptive", "dense_crf", "none".
  stride: int = 4  # Of the grid, in pixels of the model's image, that a map is refined on.
  radius: float = 0.06  # "guided_filter", "dense_crf": of the neighbourhood, as a share of the side.
  epsilon: float = 0.1  # "guided_filter": colour contrast to smooth over, in the image's variances.
  steps: int = 10  # "pixel_adaptive", "dense_crf".
  dilations: tuple[int, ...] = (1, 2, 4)  # "pixel_adaptive": distances of the eight neighbours.
  contrast: float = 0.3  # "pixel_adaptive": colour distance that parts, in standard deviations there.
  colour: float = 0.5  # "dense_crf": the same, in standard deviations of the image.
  weight: float = 1.0  # "dense_crf": of the neighbours against the map.
  ignore_band: float = 0.05  # Pseudo-masks leave out scores this close to the threshold.

  def __post_init__(self):
    one_of("refine.method", self.method, ("guided_filter", "pixel_adaptive", "dense_crf", "none"))
    for name in ("stride", "radius", "epsilon", "steps", "contrast", "colour"):
      positive(f"refine.{name}", getattr(self, name))
    valid = len(self.dilations) > 0 and all(d > 0 for d in self.dilations)
    require(valid, "refine.dilations", self.dilations, "give at least one positive distance.")
    not_negative("refine.weight", self.weight)
    fraction("refine.ignore_band", self.ignore_band)

"""The network and its parts: trunk, class activation, SOL, GAA, the memory bank, the losses."""

import dataclasses

from lgag_jax.settings.checks import at_most, fraction, not_negative, one_of, positive, require

_MAX_ROUNDS = 100
TRUNKS = (
  "efficientnet_lite0", "resnet50", "dinov2_vits14", "dinov2_vits14_reg", "dinov2_vitb14",
  "dinov2_vitb14_reg", "dinov2_vitl14", "dinov2_vitl14_reg", "dinov3_vits16", "dinov3_vits16plus",
  "dinov3_vitb16", "dinov3_vitl16",
)
COMPARISONS = (
  "concatenation", "difference", "absolute_difference", "after_and_difference",
  "after_and_absolute_difference",
)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The method, the trunk and the class activation."""

  method: str = "lgag"  # A method of lgag_jax/methods.py, or one that --method_file defines.
  method_digest: str = ""  # SHA-256 of the file that defines the method; "" for the package's own.
  trunk: str = "efficientnet_lite0"  # Or "resnet50", or a Vision Transformer such as "dinov2_vits14".
  weights: str = "packaged"  # "packaged", "random", or a .safetensors, .npz, .onnx or .pth file.
  rgb_bands: tuple[int, ...] = (1, 2, 3)  # Bands that the weights and pictures use as colours, from 1.
  nir_band: int = 0  # Near infrared, from 1, for colour index and evidence; 0 for none.
  # Bands, from 1, such as slope, that the trunk does not see: only colour index and evidence use them.
  evidence_bands: tuple[int, ...] = ()
  first_trainable_stage: int = 5  # 1 trains all but the stem; 5 freezes the whole trunk.
  depthwise: str = "auto"  # "conv", "shift" (fast on CPU), or "auto": by platform.
  precision: str = "float32"  # Of matrix products and convolutions; or "bfloat16".
  head_width: int = 128  # Channels of the classifier over all taps.
  decoder_widths: tuple[int, ...] = (128, 64, 32)  # Channels of the decoder at strides 16, 8 and 4.
  pooling: str = "top"  # "average" over space, or the mean over the "top" shares of cells.
  top_fractions: tuple[float, ...] = (0.02, 0.08, 0.3)  # Shares of cells that "top" averages.
  anchor_taps: tuple[int, ...] = (1, 2, 3)  # Taps that anchors are made of; D is the sum of widths.
  side_widths: tuple[int, ...] = (128, 128, 256, 256)  # Channels of side projections; D is the sum.
  comparison: str = "after_and_absolute_difference"  # Of the dates' features, with data.before.
  epsilon: float = 1e-5  # Added to norms and maxima before dividing.

  def __post_init__(self):
    one_of("model.trunk", self.trunk, TRUNKS)
    one_of("model.first_trainable_stage", self.first_trainable_stage, (1, 2, 3, 4, 5))
    one_of("model.depthwise", self.depthwise, ("auto", "conv", "shift"))
    one_of("model.precision", self.precision, ("float32", "bfloat16"))
    one_of("model.pooling", self.pooling, ("average", "top"))
    one_of("model.comparison", self.comparison, COMPARISONS)
    fits = len(self.top_fractions) > 0 and all(0 < f <= 1 for f in self.top_fractions)
    require(fits, "model.top_fractions", self.top_fractions, "give shares in (0, 1].")
    positive("model", self, "head_width", "epsilon")
    fits = len(self.decoder_widths) == 3 and all(w > 0 for w in self.decoder_widths)
    require(fits, "model.decoder_widths", self.decoder_widths, "give three positive widths.")
    fits = len(self.anchor_taps) > 0 and set(self.anchor_taps) <= {1, 2, 3, 4}
    require(fits, "model.anchor_taps", self.anchor_taps, "name taps among 1, 2, 3 and 4.")
    fits = len(self.side_widths) == 4 and all(w > 0 for w in self.side_widths)
    require(fits, "model.side_widths", self.side_widths, "give four positive widths.")

  @property
  def index_bands(self) -> tuple[int, ...]:
    """The bands of colour indices: red, green and blue, or near infrared, red and green."""
    return (self.nir_band, *self.rgb_bands[:2]) if self.nir_band else self.rgb_bands


@dataclasses.dataclass(frozen=True)
class SolConfig:
  """Structure-aware object locating."""

  background_factor: float = 0.5  # Scales the background's overlap before the argmax.
  rounds: int = 2  # Times that seeds closer to the background's anchor than their own are dropped.
  block_rows: int = 128  # Rows of the structure matrix that are in memory at a time.

  def __post_init__(self):
    positive("sol", self, "background_factor")
    not_negative("sol", self, "rounds")
    at_most("sol", self, _MAX_ROUNDS, "rounds")  # A stranger's may take any time.
    positive("sol", self, "block_rows")


@dataclasses.dataclass(frozen=True)
class GaaConfig:
  """Global anchor aggregation: cross-attention from cells to global anchors."""

  heads: int = 1

  def __post_init__(self):
    positive("gaa", self, "heads")


@dataclasses.dataclass(frozen=True)
class BankConfig:
  """The memory bank of local anchors, and the global anchors made of them."""

  slots: int = 500  # Per class.
  centres: int = 20  # Global anchors per class.
  min_confidence: float = 0.7  # A foreground anchor enters when sigmoid(score) exceeds this.
  lloyd_steps: int = 10  # Of k-means, at each refresh.
  refresh_every: int = 0  # Steps between refreshes of the global anchors; 0 is once per epoch.

  def __post_init__(self):
    positive("bank", self, "slots", "centres", "lloyd_steps")
    require(
      self.slots >= self.centres, "bank.slots", self.slots,
      f"must be at least bank.centres={self.centres}.",
    )
    fraction("bank", self, "min_confidence")
    not_negative("bank", self, "refresh_every")


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Weights of the hybrid loss."""

  contrast_weight: float = 0.01
  contrast_temperature: float = 0.07
  contrast_from_epoch: int = 1  # Counted from 0: the second epoch.
  contrast_samples: int = 500  # Bank entries per class that a step contrasts with; 0 takes all.
  consistency_weight: float = 0.1
  auxiliary_weight: float = 1.0  # Of the label terms on the fused features' class activation.
  negative_pixel_weight: float = 1.0  # On images without the class, every pixel is background.
  # On images with the class, the pixels that masks know. 0: masks of training images are not read.
  # For masks of what a person has drawn (--mode=review), not for inventories that labels replace.
  drawn_pixel_weight: float = 0.0

  def __post_init__(self):
    not_negative("loss", self, *(field.name for field in dataclasses.fields(self)))
    positive("loss", self, "contrast_temperature")

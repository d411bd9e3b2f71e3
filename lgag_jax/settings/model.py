"""The network and its parts: trunk, class activation, SOL, GAA, the memory bank, the losses."""

import dataclasses

from lgag_jax.settings.checks import fraction, not_negative, one_of, positive, require

METHODS = ("class_activation", "sol", "lgag", "segmentation")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The network, but for SOL and GAA."""

  method: str = "lgag"  # "class_activation", "sol", "lgag"; "segmentation" learns from masks.
  trunk: str = "efficientnet_lite0"  # Or "resnet50".
  weights: str = "packaged"  # "packaged", "random", or a .safetensors, .npz or .pth file.
  rgb_bands: tuple[int, ...] = (1, 2, 3)  # From 1: what the weights, and pictures, take as colours.
  first_trainable_stage: int = 5  # 1 trains all but the stem, 5 freezes the whole trunk.
  depthwise: str = "auto"  # "conv", "shift" (fast on CPU), or "auto": by platform.
  precision: str = "float32"  # Of matrix products and convolutions; or "bfloat16".
  classifier: str = "head"  # "linear": 1x1 on x4, as published. "head": 3x3 over all taps. "decoder".
  head_width: int = 128
  grid_stride: int = 16  # Of the maps with classifier="head"; 8 or 4 are finer.
  decoder_widths: tuple[int, ...] = (128, 64, 32)  # "decoder": at strides 16, 8 and 4.
  pooling: str = "top"  # "average" over space, or the mean of the "top" share of pixels.
  top_fraction: float = 0.08
  anchor_features: str = "taps"  # g: the taps as they are, or "sides", projections of all four.
  anchor_taps: tuple[int, ...] = (1, 2, 3)  # "taps": which; D is the sum of their widths.
  side_widths: tuple[int, ...] = (128, 128, 256, 256)  # "sides": D is their sum.
  stop_gradient_sides: bool = False  # Keep side projections from shaping the trunk.
  epsilon: float = 1e-5  # Added to norms and maxima before dividing.

  def __post_init__(self):
    one_of("model.method", self.method, METHODS)
    one_of("model.trunk", self.trunk, ("efficientnet_lite0", "resnet50"))
    one_of("model.first_trainable_stage", self.first_trainable_stage, (1, 2, 3, 4, 5))
    one_of("model.depthwise", self.depthwise, ("auto", "conv", "shift"))
    one_of("model.precision", self.precision, ("float32", "bfloat16"))
    one_of("model.classifier", self.classifier, ("linear", "head", "decoder"))
    one_of("model.grid_stride", self.grid_stride, (16, 8, 4))
    require(
      self.classifier == "head" or self.grid_stride == 16, "model.grid_stride", self.grid_stride,
      f"classifier={self.classifier!r} has a grid of its own: use 16.",
    )
    one_of("model.pooling", self.pooling, ("average", "top"))
    require(0 < self.top_fraction <= 1, "model.top_fraction", self.top_fraction, "in (0, 1].")
    positive("model.head_width", self.head_width)
    positive("model.epsilon", self.epsilon)
    fits = len(self.decoder_widths) == 3 and all(w > 0 for w in self.decoder_widths)
    require(fits, "model.decoder_widths", self.decoder_widths, "give three positive widths.")
    one_of("model.anchor_features", self.anchor_features, ("taps", "sides"))
    fits = len(self.anchor_taps) > 0 and set(self.anchor_taps) <= {1, 2, 3, 4}
    require(fits, "model.anchor_taps", self.anchor_taps, "name taps among 1, 2, 3 and 4.")
    fits = len(self.side_widths) == 4 and all(w > 0 for w in self.side_widths)
    require(fits, "model.side_widths", self.side_widths, "give four positive widths.")


@dataclasses.dataclass(frozen=True)
class SolConfig:
  """Structure-aware object locating."""

  seed_features: str = "head"  # What the structure is read from: "x4", "g" or "head".
  background_factor: float = 0.5  # Scales the background's overlap before the argmax.
  seeding: str = "argmax"  # Or "weighted": anchors weighted by the overlap.
  rounds: int = 2  # Seeds closer to the background's anchor are given up, this many times over.
  block_rows: int = 128  # Rows of the structure held at a time.

  def __post_init__(self):
    one_of("sol.seed_features", self.seed_features, ("x4", "g", "head"))
    one_of("sol.seeding", self.seeding, ("argmax", "weighted"))
    positive("sol.background_factor", self.background_factor)
    not_negative("sol.rounds", self.rounds)
    positive("sol.block_rows", self.block_rows)


@dataclasses.dataclass(frozen=True)
class GaaConfig:
  """Global anchor aggregation: the cross-attention and the activation after it."""

  attention: bool = True  # Off: the bank is filled and contrasted, features pass unchanged.
  fusion: str = "residual"  # Or "concat".
  heads: int = 1
  normalise: str = "anchors"  # Softmax over "anchors", over "pixels" (ablation), or "none".
  activation_head: str = "cosine"  # Or "conv": 3x3, relu, 1x1.
  activation_head_width: int = 256
  global_activation: float = 0.0  # Share of the activation taken from the global anchors.

  def __post_init__(self):
    one_of("gaa.fusion", self.fusion, ("concat", "residual"))
    one_of("gaa.normalise", self.normalise, ("anchors", "pixels", "none"))
    one_of("gaa.activation_head", self.activation_head, ("cosine", "conv"))
    positive("gaa.heads", self.heads)
    positive("gaa.activation_head_width", self.activation_head_width)
    fraction("gaa.global_activation", self.global_activation)


@dataclasses.dataclass(frozen=True)
class BankConfig:
  """The memory bank of anchors and its global anchors."""

  slots: int = 500  # A class.
  centres: int = 20  # Global anchors a class.
  min_confidence: float = 0.7  # A foreground anchor enters when sigmoid(score) exceeds this.
  policy: str = "fifo"  # Or "moving_average" of the most similar slot.
  momentum: float = 0.99  # Of the moving average.
  lloyd_steps: int = 10
  refresh_every: int = 0  # Steps between refreshes of the global anchors; 0 is once an epoch.

  def __post_init__(self):
    for name in ("slots", "centres", "lloyd_steps"):
      positive(f"bank.{name}", getattr(self, name))
    require(
      self.slots >= self.centres, "bank.slots", self.slots,
      f"must be at least bank.centres={self.centres}.",
    )
    fraction("bank.min_confidence", self.min_confidence)
    one_of("bank.policy", self.policy, ("fifo", "moving_average"))
    fraction("bank.momentum", self.momentum)
    not_negative("bank.refresh_every", self.refresh_every)


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Weights of the hybrid loss."""

  contrast_weight: float = 0.01
  contrast_temperature: float = 0.07
  contrast_from_epoch: int = 1  # Counted from 0: the second epoch.
  contrast_samples: int = 500  # Entries of the bank a class that a step contrasts with; 0 takes all.
  consistency_weight: float = 0.1
  auxiliary_weight: float = 1.0  # Of the label terms of the fused features' class activation.
  negative_pixel_weight: float = 1.0  # On images of no class every pixel is background.
  background_pixel_weight: float = 0.0  # So is, on positives, the lower share of the pixels.
  background_pixel_fraction: float = 0.5

  def __post_init__(self):
    for field in dataclasses.fields(self):
      not_negative(f"loss.{field.name}", getattr(self, field.name))
    positive("loss.contrast_temperature", self.contrast_temperature)
    fraction("loss.background_pixel_fraction", self.background_pixel_fraction)

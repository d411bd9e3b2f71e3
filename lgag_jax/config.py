"""Everything that does not change during a run: typed, frozen, checked when built.

A config file builds a `ConfigDict` with `config_dict()`, assigns to its fields and returns it; the
program reads it back with `from_mapping()`. Names are checked both ways, so a typo in a file, on the
command line or in code is an error with a suggestion, never a new field.
"""

import dataclasses
import difflib
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, get_type_hints

import ml_collections


def _require(condition: bool, name: str, value: Any, remedy: str) -> None:
  if not condition:
    raise ValueError(f"config.{name}={value!r}: {remedy}")


def _one_of(name: str, value: Any, choices: tuple) -> None:
  _require(value in choices, name, value, f"must be one of {', '.join(map(repr, choices))}.")


def _positive(name: str, value: float) -> None:
  _require(0 < value < math.inf, name, value, "must be positive, and finite.")


def _not_negative(name: str, value: float) -> None:
  _require(0 <= value < math.inf, name, value, "must not be negative, nor infinite.")


def _fraction(name: str, value: float) -> None:
  _require(0.0 <= value <= 1.0, name, value, "must lie in [0, 1].")


RULES = ("negatives", "otsu", "argmax", "agreement")  # For thresholds, from image labels alone.
# What makes a config that of a segmentation network, trained on masks: given ones, or pseudo-masks.
SEGMENTATION = {
  "model.method": "segmentation", "model.classifier": "decoder", "model.grid_stride": 16,
  "model.top_fraction": 0.01, "optim.name": "adamw", "optim.learning_rate": 2e-4,
  "localize.map": "best", "localize.class_activation": "probability",
  "localize.threshold_rule": "otsu", "refine.method": "none",
}
METHODS = ("class_activation", "sol", "lgag", "segmentation")


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Where examples come from and what the model sees of them."""

  source: str = "folder"  # "tfds", "folder" (a folder a class) or "patches" (images with masks).
  directory: str = ""  # The data's root; for "tfds" the data_dir ("" is TFDS's own default).
  builder: str = ""  # "tfds": a registered name, or a folder with a *_dataset_builder.py.
  original: str = ""  # "tfds": the data set as published: a folder, an archive or its address.
  manifest: str = ""  # A CSV of images, masks ("patches") and splits; "" is <directory>/manifest.csv.
  pseudo_masks: str = ""  # A folder that --mode=pseudo wrote: training takes its masks from there.
  train_split: str = "train"  # TFDS syntax: "train", "train[:80%]", "train[:40%]+train[60%:]".
  validation_split: str = "validation"
  validation_fraction: float = 0.2  # Where the data names no splits: the share held out, by name.
  block_size: int = 0  # "patches": that share is of blocks, their side in source pixels; 0: of images.
  block_buffer: int = 0  # Source pixels around a validation block that no training tile may touch.
  classes: tuple[str, ...] = ("landslide",)  # Foreground classes; folder names for "folder".
  background: str = "non-landslide"  # "folder": the folder of images without any class.
  channels: int = 3
  image_size: int = 256  # Side in pixels of what the model sees.
  tile_size: int = 0  # Side in source pixels of the tiles cut from images; 0 takes images whole.
  gsd: float = 0.0  # Metres a source pixel; 0 reads it from georeferenced images, where they are.
  min_mask_pixels: int = 1  # A tile is positive when its mask has at least this many pixels ...
  min_mask_fraction: float = 0.0  # ... and at least this share of its area.
  mask_ignore: int = -1  # Mask value that means unknown: kept out of labels and metrics.
  normalise: str = "trunk"  # "train": by the training images' own mean and std; "given": by these.
  max_value: float = 0.0  # "trunk": pixel value that maps to 1; 0 takes the data type's largest.
  mean: tuple[float, ...] = ()  # Per channel, "trunk": of images in [0, 1], () takes the trunk's.
  std: tuple[float, ...] = ()
  balance: bool = True  # Draw positives and negatives equally often.
  augment: str = "features"  # Flips and quarter turns of trunk outputs, of the "image", or "none".
  colour_jitter: float = 0.0  # Strength of brightness and contrast jitter; needs augment="image".
  scale_jitter: float = 0.0  # Random zoom in [1, 1 + this]; needs augment="image".
  on_bad_image: str = "error"  # "error" or "skip".
  max_bad_images: int = 20  # With "skip": more than this many is an error all the same.
  decoded_cache_gib: float = 1.0  # Decoded images are kept in memory up to this size.
  feature_cache_gib: float = 6.0  # Frozen trunk outputs are kept on disk up to this size; 0: never.
  feature_cache_directory: str = ""  # "" is <workdir>/features.

  def __post_init__(self):
    _one_of("data.source", self.source, ("tfds", "folder", "patches"))
    fits = self.source == "tfds" or not self.original
    _require(fits, "data.original", self.original, "only builders (data.source='tfds') take one.")
    _require(len(self.classes) > 0, "data.classes", self.classes, "name at least one class.")
    for name in ("channels", "image_size"):
      _positive(f"data.{name}", getattr(self, name))
    for name in ("tile_size", "gsd", "min_mask_pixels", "max_value", "colour_jitter", "scale_jitter"):
      _not_negative(f"data.{name}", getattr(self, name))
    caches = ("decoded_cache_gib", "feature_cache_gib")
    for name in ("block_size", "block_buffer", "max_bad_images", *caches):
      _not_negative(f"data.{name}", getattr(self, name))
    fits = self.block_size == 0 or 0 < self.tile_size <= self.block_size
    _require(
      fits and (self.source == "patches" or self.block_size == 0), "data.block_size", self.block_size,
      f"needs data.source='patches' and a data.tile_size from 1 to this, not {self.tile_size}.",
    )
    fits = self.block_size > 0 or self.block_buffer == 0
    _require(fits, "data.block_buffer", self.block_buffer, "set data.block_size, or 0 here.")
    _fraction("data.min_mask_fraction", self.min_mask_fraction)
    _fraction("data.validation_fraction", self.validation_fraction)
    _one_of("data.augment", self.augment, ("none", "image", "features"))
    _one_of("data.on_bad_image", self.on_bad_image, ("error", "skip"))
    for name, value in (("mean", self.mean), ("std", self.std)):
      fits = len(value) in (0, self.channels)
      _require(fits, f"data.{name}", value, f"give one value for each of {self.channels} channels.")
    _require(all(s > 0 for s in self.std), "data.std", self.std, "must be positive.")
    fits = {"trunk": True, "train": not (self.mean or self.std or self.max_value),
            "given": self.mean and self.std and not self.max_value}
    _require(bool(fits.get(self.normalise)), "data.normalise", self.normalise, (
      "must be 'trunk', 'train' without data.mean, std and max_value, or 'given' with mean and std."))
    fits = self.augment == "image" or not (self.colour_jitter or self.scale_jitter)
    _require(fits, "data.augment", self.augment, (
      "colour_jitter and scale_jitter change the image: set it to 'image'."))


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
    _one_of("model.method", self.method, METHODS)
    _one_of("model.trunk", self.trunk, ("efficientnet_lite0", "resnet50"))
    _one_of("model.first_trainable_stage", self.first_trainable_stage, (1, 2, 3, 4, 5))
    _one_of("model.depthwise", self.depthwise, ("auto", "conv", "shift"))
    _one_of("model.precision", self.precision, ("float32", "bfloat16"))
    _one_of("model.classifier", self.classifier, ("linear", "head", "decoder"))
    _one_of("model.grid_stride", self.grid_stride, (16, 8, 4))
    _require(
      self.classifier == "head" or self.grid_stride == 16, "model.grid_stride", self.grid_stride,
      f"classifier={self.classifier!r} has a grid of its own: use 16.",
    )
    _one_of("model.pooling", self.pooling, ("average", "top"))
    _require(0 < self.top_fraction <= 1, "model.top_fraction", self.top_fraction, "in (0, 1].")
    _positive("model.head_width", self.head_width)
    _positive("model.epsilon", self.epsilon)
    fits = len(self.decoder_widths) == 3 and all(w > 0 for w in self.decoder_widths)
    _require(fits, "model.decoder_widths", self.decoder_widths, "give three positive widths.")
    _one_of("model.anchor_features", self.anchor_features, ("taps", "sides"))
    fits = len(self.anchor_taps) > 0 and set(self.anchor_taps) <= {1, 2, 3, 4}
    _require(fits, "model.anchor_taps", self.anchor_taps, "name taps among 1, 2, 3 and 4.")
    fits = len(self.side_widths) == 4 and all(w > 0 for w in self.side_widths)
    _require(fits, "model.side_widths", self.side_widths, "give four positive widths.")


@dataclasses.dataclass(frozen=True)
class SolConfig:
  """Structure-aware object locating."""

  seed_features: str = "head"  # What the structure is read from: "x4", "g" or "head".
  background_factor: float = 0.5  # Scales the background's overlap before the argmax.
  seeding: str = "argmax"  # Or "weighted": anchors weighted by the overlap.
  rounds: int = 2  # Seeds closer to the background's anchor are given up, this many times over.
  block_rows: int = 128  # Rows of the structure held at a time.

  def __post_init__(self):
    _one_of("sol.seed_features", self.seed_features, ("x4", "g", "head"))
    _one_of("sol.seeding", self.seeding, ("argmax", "weighted"))
    _positive("sol.background_factor", self.background_factor)
    _not_negative("sol.rounds", self.rounds)
    _positive("sol.block_rows", self.block_rows)


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
    _one_of("gaa.fusion", self.fusion, ("concat", "residual"))
    _one_of("gaa.normalise", self.normalise, ("anchors", "pixels", "none"))
    _one_of("gaa.activation_head", self.activation_head, ("cosine", "conv"))
    _positive("gaa.heads", self.heads)
    _positive("gaa.activation_head_width", self.activation_head_width)
    _fraction("gaa.global_activation", self.global_activation)


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
      _positive(f"bank.{name}", getattr(self, name))
    _require(
      self.slots >= self.centres, "bank.slots", self.slots,
      f"must be at least bank.centres={self.centres}.",
    )
    _fraction("bank.min_confidence", self.min_confidence)
    _one_of("bank.policy", self.policy, ("fifo", "moving_average"))
    _fraction("bank.momentum", self.momentum)
    _not_negative("bank.refresh_every", self.refresh_every)


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
      _not_negative(f"loss.{field.name}", getattr(self, field.name))
    _positive("loss.contrast_temperature", self.contrast_temperature)
    _fraction("loss.background_pixel_fraction", self.background_pixel_fraction)


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """Optimiser and schedule."""

  name: str = "sgd"  # Or "adamw".
  learning_rate: float = 0.01  # Of the trunk.
  new_multiplier: float = 10.0  # Times this for everything that is not the trunk.
  momentum: float = 0.9  # "sgd" only.
  weight_decay: float = 1e-4
  clip_norm: float = 1.0  # Of the gradient, over all parameters; 0 clips nothing.
  decay_power: float = 0.9  # Of the polynomial decay to zero at the last step.
  warmup_steps: int = 0

  def __post_init__(self):
    _one_of("optim.name", self.name, ("sgd", "adamw"))
    for field in dataclasses.fields(self):
      if field.name != "name":
        _not_negative(f"optim.{field.name}", getattr(self, field.name))
    _positive("optim.learning_rate", self.learning_rate)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The loop."""

  seed: int = 0
  epochs: int = 15
  min_steps: int = 300  # In all: an epoch goes several times round a data set too small for it.
  batch_size: int = 32  # Over all devices and processes.
  accumulate: int = 1  # Parts that a batch is worked through in, to save memory.
  shard_state: bool = False  # Split parameters and optimiser state over devices, to save memory.
  log_every: int = 20  # Steps.
  checkpoint_every: int = 200  # Steps; the last one is always saved.
  keep_checkpoints: int = 3
  max_skipped: int = 20  # More steps than this in a row whose loss or gradient is not finite: an error.
  evaluate_every: int = 1  # Epochs; 0 evaluates at the end only.

  def __post_init__(self):
    _not_negative("train.seed", self.seed)
    _not_negative("train.min_steps", self.min_steps)
    for name in ("epochs", "batch_size", "accumulate", "log_every", "checkpoint_every"):
      _positive(f"train.{name}", getattr(self, name))
    _positive("train.keep_checkpoints", self.keep_checkpoints)
    _not_negative("train.max_skipped", self.max_skipped)
    _not_negative("train.evaluate_every", self.evaluate_every)
    _require(
      self.batch_size % self.accumulate == 0, "train.batch_size", self.batch_size,
      f"must be a multiple of train.accumulate={self.accumulate}.",
    )


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
    _require(valid, "localize.scales", self.scales, "give at least one positive scale.")
    _one_of("localize.map", self.map, ("best", "anchor_guided", "class_activation"))
    _one_of("localize.class_activation", self.class_activation, ("probability", "normalised"))
    _one_of("localize.compare", self.compare, ("difference", "softmax"))
    _one_of("localize.turns", self.turns, ("none", "flip", "all"))
    _one_of("localize.threshold_rule", self.threshold_rule, RULES)
    _fraction("localize.agreement_fraction", self.agreement_fraction)
    _fraction("localize.blend", self.blend)
    _fraction("localize.gate", self.gate)
    _one_of("localize.anchor_stride", self.anchor_stride, (16, 8, 4))
    _fraction("localize.negative_quantile", self.negative_quantile)
    _positive("localize.batch_size", self.batch_size)
    _not_negative("localize.calibration_images", self.calibration_images)


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
    _one_of("refine.method", self.method, ("guided_filter", "pixel_adaptive", "dense_crf", "none"))
    for name in ("stride", "radius", "epsilon", "steps", "contrast", "colour"):
      _positive(f"refine.{name}", getattr(self, name))
    valid = len(self.dilations) > 0 and all(d > 0 for d in self.dilations)
    _require(valid, "refine.dilations", self.dilations, "give at least one positive distance.")
    _not_negative("refine.weight", self.weight)
    _fraction("refine.ignore_band", self.ignore_band)


@dataclasses.dataclass(frozen=True)
class Config:
  """All of a run's settings."""

  data: DataConfig = DataConfig()
  model: ModelConfig = ModelConfig()
  sol: SolConfig = SolConfig()
  gaa: GaaConfig = GaaConfig()
  bank: BankConfig = BankConfig()
  loss: LossConfig = LossConfig()
  optim: OptimConfig = OptimConfig()
  train: TrainConfig = TrainConfig()
  localize: LocalizeConfig = LocalizeConfig()
  refine: RefineConfig = RefineConfig()

  def __post_init__(self):
    _require(
      self.model.classifier != "linear" or self.sol.seed_features != "head",
      "sol.seed_features", self.sol.seed_features, "needs model.classifier='head' or 'decoder'.",
    )
    _require(
      self.sol.seeding == "argmax" or self.sol.rounds == 0, "sol.rounds", self.sol.rounds,
      "weighted seeds cannot be given up: set 0.",
    )
    rgb, bands = self.model.rgb_bands, range(1, self.data.channels + 1)
    fits = self.data.channels < 3 or (len(rgb) == len(set(rgb)) == 3 and set(rgb) <= set(bands))
    _require(fits, "model.rgb_bands", rgb, f"name three of {self.data.channels} bands, from 1.")
    _require(
      len(set(self.data.classes)) == len(self.data.classes), "data.classes", self.data.classes,
      "names a class twice.",
    )
    _require(
      self.model.method == "segmentation" or not self.data.pseudo_masks, "data.pseudo_masks",
      self.data.pseudo_masks, "only model.method='segmentation' learns from masks.",
    )
    frozen = self.model.first_trainable_stage == 5
    _require(
      frozen or self.data.augment != "features", "data.augment", self.data.augment,
      "'features' needs a frozen trunk (model.first_trainable_stage=5): use 'image'.",
    )


def config_dict(config: Config = Config()) -> ml_collections.ConfigDict:
  """Returns `config` as a locked ConfigDict: what a config file changes and returns."""
  result = ml_collections.ConfigDict(dataclasses.asdict(config))
  result.lock()
  return result


def from_mapping(mapping: Mapping[str, Any] | ml_collections.ConfigDict) -> Config:
  """Builds a Config; raises ValueError or TypeError that names an unknown, missing or wrong field."""
  if isinstance(mapping, ml_collections.ConfigDict):
    mapping = mapping.to_dict()
  return _build(Config, mapping, "config")


def load(path: pathlib.Path) -> Config:
  """Reads a config written as JSON; raises ValueError naming the file when it is not a config.

  A field that the file's writer, an older version, did not know yet has its default.
  """
  try:
    mapping = json.loads(path.read_text())
    if not isinstance(mapping, dict):
      raise ValueError("it holds no JSON object.")
    for group, fields in dataclasses.asdict(Config()).items():
      if isinstance(mapping.get(group), dict):
        mapping[group] = {**fields, **mapping[group]}
    return from_mapping(mapping)
  except FileNotFoundError:
    raise FileNotFoundError(f"{path} is missing: is its folder the workdir of a training?") from None
  except (ValueError, TypeError, RecursionError, OverflowError) as error:
    raise ValueError(f"{path} is no valid config: {error} Mend it, or take a copy's.") from error


def _build(cls: type, mapping: Mapping[str, Any], path: str) -> Any:
  types = get_type_hints(cls)
  for name in mapping:
    if name not in types:
      close = difflib.get_close_matches(name, types, n=1)
      hint = f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(types)}."
      raise ValueError(f"{path}.{name} is unknown.{hint}")
  missing = [name for name in types if name not in mapping]
  if missing:
    raise ValueError(f"{path} lacks {', '.join(missing)}: take them from config_dict().")
  return cls(**{n: _value(mapping[n], kind, f"{path}.{n}") for n, kind in types.items()})


def _value(value: Any, kind: Any, path: str) -> Any:
  if dataclasses.is_dataclass(kind):
    if not isinstance(value, Mapping):
      raise TypeError(f"{path} must be a group of fields, not {value!r}.")
    return _build(kind, value, path)
  if hasattr(kind, "__args__"):  # A tuple[X, ...]; JSON has lists only.
    if not isinstance(value, tuple | list):
      raise TypeError(f"{path} must be a tuple, not {value!r}.")
    return tuple(_value(v, kind.__args__[0], f"{path}[{i}]") for i, v in enumerate(value))
  if kind is float and type(value) is int:
    return float(value)
  if type(value) is not kind:
    raise TypeError(f"{path} must be {kind.__name__}, not {value!r}.")
  return value

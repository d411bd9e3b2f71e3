"""The whole network: a trunk, divided into a frozen and a trained part, and the head on its taps."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from lgag_jax.config import Config
from lgag_jax.method import pairs, registry
from lgag_jax.method.head import Head
from lgag_jax.method.method import Method, Outputs
from lgag_jax.state import MemoryBank
from lgag_jax.trunks import pretrained
from lgag_jax.trunks.resnet import ResNet50

TRAINING_STRIDE = 16  # Of the grid of anchors and guided maps.
_INIT_SIDE = 64  # No parameter's shape depends on the image's size.
# Of ImageNet's photographs in [0, 1], red, green and blue: what all trunks were trained on.
_IMAGENET_MEAN, _IMAGENET_STD = np.array(ResNet50.MEAN), np.array(ResNet50.STD)


@runtime_checkable
class Evidence(Protocol):
  """What is known of pixels and images besides the network's outputs (inference/colour_evidence.py)."""

  def __call__(self, scores: Array, image: Array) -> Array:
    """Returns scores f32[B, H, W, C] with the evidence of images f32[B, H, W, E] added."""
    ...

  def image_probabilities(self, probabilities: Array, image: Array) -> Array:
    """Returns the probabilities f32[B, C] that images hold each class, for those of the network."""
    ...

  def digest(self) -> str:
    """Returns what tells this evidence from any other."""
    ...


@dataclasses.dataclass(frozen=True)
class Network:
  """Pure functions of parameters {"trunk", "head"} and the trunk's stored statistics."""

  trunk: nn.Module
  head: Head
  first_trainable_stage: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  evidence: Evidence | None = None  # What the colours of the pixels say.
  comparison: str = ""  # Of the features of two dates; "" for images of one date.
  bands: tuple[int, ...] = ()  # Of an image that the trunk sees, from 1; () for all.

  def frozen(self, params: Any, statistics: Any, images: Float[Array, "B H W C"]) -> tuple:
    """Normalises scaled images and runs the stages that are not trained; no gradient passes.

    Returns the outputs of stages 1 to first_trainable_stage - 1, or of the stem where all train. Of
    pairs, those of both dates: see `pairs`.
    """
    images = images.astype(jnp.float32)
    if self.comparison:
      images = pairs.apart(pairs.matched(images))
    if self.bands:
      images = images[..., np.array(self.bands) - 1]
    x = (images - jnp.array(self.mean)) / jnp.array(self.std)
    variables = {"params": params["trunk"], "batch_stats": statistics}
    outputs = self.trunk.apply(variables, x, first=0, last=self.first_trainable_stage - 1)
    outputs = outputs if self.first_trainable_stage == 1 else outputs[1:]
    if self.comparison:
      outputs = jax.tree.map(pairs.together, outputs)
    return jax.lax.stop_gradient(outputs)

  def taps(self, params: Any, statistics: Any, frozen: tuple) -> tuple:
    """Returns the four taps, running the trained stages on what `frozen` returned.

    Of pairs, the taps of both dates compared.
    """
    frozen = tuple(x.astype(jnp.float32) for x in frozen)
    if not self.comparison:
      return self._taps(params, statistics, frozen)
    taps = self._taps(params, statistics, tuple(map(pairs.apart, frozen)))
    return tuple(pairs.compare(pairs.together(tap), self.comparison) for tap in taps)

  def _taps(self, params: Any, statistics: Any, frozen: tuple) -> tuple:
    first = self.first_trainable_stage
    if first == 5:
      return frozen
    variables = {"params": params["trunk"], "batch_stats": statistics}
    trained = self.trunk.apply(variables, frozen[-1], first=first, last=4)
    if first == 1:
      return trained
    # A Vision Transformer continues from more channels than a tap has.
    return (*frozen[:-1], frozen[-1][..., : self.trunk.WIDTHS[first - 2]], *trained)

  def __call__(
    self, params: Any, statistics: Any, frozen: tuple, bank: MemoryBank,
    labels: Float[Array, "B C"] | None = None,
  ) -> Outputs:
    """Computes the head's outputs; `labels` None is inference."""
    taps = self.taps(params, statistics, frozen)
    return cast(Outputs, self.head.apply({"params": params["head"]}, taps, bank, labels))

  def init_trunk(self, key: jax.Array, channels: int) -> dict:
    """Returns random trunk variables, "params" and "batch_stats"; the trunk sees so many channels."""
    return dict(self.trunk.init(key, jnp.zeros((1, _INIT_SIDE, _INIT_SIDE, channels))))

  def init_head(self, key: jax.Array, channels: int, bank: MemoryBank) -> Any:
    """Returns random head params."""
    labels = jnp.ones((1, len(self.head.config.data.classes)))
    return self.head.init(key, self._zero_taps(channels), bank, labels)["params"]

  def anchor_dimension(self, channels: int) -> int:
    """Returns D, the width of the method's anchor features."""
    features, taps = self.method.anchor_features(self.head.config), self._zero_taps(channels)
    make = lambda: features.init_with_output(jax.random.key(0), taps, taps[-1].shape[1:3])[0]
    dimension = jax.eval_shape(make).shape[-1]
    if dimension % self.head.config.gaa.heads:
      raise ValueError(
        f"config.gaa.heads={self.head.config.gaa.heads}: must divide the anchors' {dimension} numbers."
      )
    return dimension

  @property
  def method(self) -> Method:
    return self.head.method

  def _zero_taps(self, channels: int) -> tuple[Array, ...]:
    shapes = _tap_shapes(self.trunk, channels)
    if self.comparison:
      compared = lambda x: pairs.compare(jnp.concatenate([x, x], axis=-1), self.comparison)
      shapes = [jax.eval_shape(compared, shape) for shape in shapes]
    return tuple(jnp.zeros(s.shape, s.dtype) for s in shapes)


@functools.lru_cache(maxsize=8)  # Tracing a trunk takes most of a second.
def _tap_shapes(trunk: nn.Module, channels: int) -> tuple[jax.ShapeDtypeStruct, ...]:
  image = jnp.zeros((1, _INIT_SIDE, _INIT_SIDE, channels))
  outputs, _ = jax.eval_shape(trunk.init_with_output, jax.random.key(0), image)
  return outputs[1:]


def full_precision(function: Callable) -> Callable:
  """Has float32 products computed as such: TPUs round their inputs to bfloat16 unless told not to.

  Products in bfloat16, which model.precision asks for, stay what they are.
  """

  @functools.wraps(function)
  def wrapped(*arguments):
    with jax.default_matmul_precision("highest"):
      return function(*arguments)

  return wrapped


def build(config: Config, platform: str = "") -> Network:
  """Builds a config's network for "cpu", "cuda", "tpu", "any" of them, or "", where JAX runs."""
  kind = pretrained.TRUNKS[config.model.trunk]
  options: dict[str, Any] = {"dtype": jnp.dtype(config.model.precision)}
  if config.model.trunk == "efficientnet_lite0":
    options["depthwise"] = depthwise_form(config.model.depthwise, platform or jax.default_backend())
  head = Head(registry.method_of(config), config, anchor_stride=TRAINING_STRIDE)
  mean, std = normalisation_of(kind, config)
  return Network(
    trunk=kind(**options), head=head, first_trainable_stage=config.model.first_trainable_stage,
    mean=mean, std=std, comparison=config.model.comparison if config.data.paired else "",
    bands=config.trunk_bands if config.model.evidence_bands else (),
  )


def normalisation_of(kind: type, config: Config) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns a trunk's mean and deviation per band that it sees, for images from `scaling.normalise`."""
  data, mean, std = config.data, np.array(kind.MEAN), np.array(kind.STD)
  if data.normalise != "trunk":
    # Bands come with mean 0 and deviation 1; the trunk wants them spread as what it has learned from.
    mean, std = (mean - _IMAGENET_MEAN) / _IMAGENET_STD, std / _IMAGENET_STD
  dealt_mean, dealt_std = (
    tuple(pretrained.of_bands(x, len(config.trunk_bands), config.trunk_rgb_bands).tolist())
    for x in (mean, std)
  )
  if data.normalise != "trunk":
    return dealt_mean, dealt_std
  given_mean, given_std = (
    tuple(x[band - 1] for band in config.trunk_bands) if x else () for x in (data.mean, data.std)
  )
  return given_mean or dealt_mean, given_std or dealt_std


def depthwise_form(setting: str, platform: str) -> str:
  """Resolves "auto": XLA's grouped convolution is slow on CPU and right on accelerators."""
  if setting != "auto":
    return setting
  return {"cpu": "shift", "any": "by_platform"}.get(platform, "conv")


def at_anchor_stride(network: Network, stride: int) -> Network:
  """Returns the same network, of the same parameters, with anchors and guided maps at `stride`."""
  return dataclasses.replace(network, head=network.head.clone(anchor_stride=stride))

"""Class activation from a trunk's taps, and the image scores pooled from it.

Each classifier is a module of the taps to logits f32[B, h, w, C] and the features under them.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lgag_jax.config import Config
from lgag_jax.method.memory_bank import to_unit_length
from lgag_jax.settings.model import ModelConfig
from lgag_jax.trunks.layers import dense, matmul, resize

Activation = tuple[Float[Array, "B h w C"], Float[Array, "B h w E"]]  # Logits, and features under them.


def tap_classifier(config: Config) -> nn.Module:
  """Builds the default classifier."""
  model, classes = config.model, len(config.data.classes)
  return TapClassifier(
    classes, model.head_width, model.epsilon, jnp.dtype(model.precision), name="classifier"
  )


def linear_classifier(config: Config) -> nn.Module:
  """Builds the published classifier."""
  dtype = jnp.dtype(config.model.precision)
  return LinearClassifier(len(config.data.classes), dtype, name="classifier")


def decoder(config: Config) -> nn.Module:
  """Builds the segmentation decoder."""
  model, classes = config.model, len(config.data.classes)
  return Decoder(
    classes, model.decoder_widths, model.epsilon, jnp.dtype(model.precision), name="decoder"
  )


def pool(logits: Float[Array, "B h w C"], model: ModelConfig) -> Float[Array, "B C"]:
  """Returns image scores: the mean over space, or over each class's highest cells.

  With several shares of cells, it is the mean of their means: the highest cells are in all of them and
  weigh most, so that landslides of any size move the score.
  """
  if model.pooling == "average":
    return jnp.mean(logits, axis=(1, 2))
  flat = logits.reshape(logits.shape[0], -1, logits.shape[-1])
  # Not top_k, which would gather the batch from all devices; a sort stays on each.
  ordered = jnp.sort(flat, axis=1)
  counts = [max(1, round(fraction * flat.shape[1])) for fraction in model.top_fractions]
  return jnp.mean(jnp.stack([jnp.mean(ordered[:, -n:], axis=1) for n in counts]), axis=0)


class LinearClassifier(nn.Module):
  """A 1x1 convolution of the last tap without bias, as published."""

  classes: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, taps: tuple[Array, ...]) -> Activation:
    shape = (taps[-1].shape[-1], self.classes)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
    logits = matmul(taps[-1].astype(self.dtype), kernel.astype(self.dtype))
    return logits.astype(jnp.float32), taps[-1]


class TapClassifier(nn.Module):
  """All taps: 1x1 to one width, summed on the last tap's grid, then 3x3 (the features), then 1x1."""

  classes: int
  width: int
  epsilon: float
  dtype: DTypeLike

  @nn.compact
  def __call__(self, taps: tuple[Array, ...]) -> Activation:
    size, total = taps[-1].shape[1:3], 0.0
    for i, tap in enumerate(taps, start=1):
      scaled = _scaled(tap, self.epsilon)
      # Resizing and projecting commute: the smaller grid is projected.
      if tap.shape[1] > size[0]:
        scaled = resize(scaled, size, antialias=True)
      lateral = dense(nn.Dense(self.width, dtype=self.dtype, name=f"lateral{i}"), scaled)
      total = total + resize(lateral, size, antialias=False)
    hidden = nn.relu(total)
    features = nn.relu(nn.Conv(self.width, (3, 3), dtype=self.dtype, name="conv")(hidden))
    logits = dense(nn.Dense(self.classes, dtype=self.dtype, name="logits"), features)
    return logits.astype(jnp.float32), features


class Decoder(nn.Module):
  """A decoder that ends at stride 4: from stride 16 upwards each finer tap is added and mixed in."""

  classes: int
  widths: tuple[int, ...]  # At strides 16, 8 and 4.
  epsilon: float
  dtype: DTypeLike

  @nn.compact
  def __call__(self, taps: tuple[Array, ...]) -> Activation:
    scaled = [_scaled(tap, self.epsilon) for tap in taps]
    linear = lambda width, name, x: dense(nn.Dense(width, dtype=self.dtype, name=name), x)
    total = linear(self.widths[0], "lateral4", scaled[3])
    for tap, number, width in zip(scaled[2::-1], (3, 2, 1), self.widths, strict=True):
      if number < 3:
        total = resize(linear(width, f"up{number}", total), tap.shape[1:3], antialias=False)
      total = nn.relu(total + linear(width, f"lateral{number}", tap))
      total = nn.relu(nn.Conv(width, (3, 3), dtype=self.dtype, name=f"conv{number}")(total))
    return linear(self.classes, "logits", total).astype(jnp.float32), total


def _scaled(tap: Float[Array, "B h w E"], epsilon: float) -> Float[Array, "B h w E"]:
  """Brings each cell to unit variance: taps differ in scale by orders of magnitude."""
  return to_unit_length(tap.astype(jnp.float32), epsilon) * jnp.sqrt(tap.shape[-1])

"""Class activation from all of a trunk's taps: one grid, or a decoder that ends at stride 4."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lgag_jax.method.memory_bank import unit
from lgag_jax.trunks.layers import dense, resize


class TapClassifier(nn.Module):
  """Class activation from all taps: 1x1 to one width, summed on the grid, then 3x3 (`features`)."""

  classes: int
  width: int
  epsilon: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, taps: tuple[Array, ...], size: tuple[int, int]
  ) -> tuple[Float[Array, "B h w C"], Float[Array, "B h w E"]]:
    total = 0.0
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
  """Class activation at stride 4: from stride 16 upwards, each finer tap is added and mixed in."""

  classes: int
  widths: tuple[int, int, int]  # At strides 16, 8 and 4.
  epsilon: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, taps: tuple[Array, ...]
  ) -> tuple[Float[Array, "B h w C"], Float[Array, "B h w E"]]:
    taps = [_scaled(tap, self.epsilon) for tap in taps]
    linear = lambda width, name, x: dense(nn.Dense(width, dtype=self.dtype, name=name), x)
    total = linear(self.widths[0], "lateral4", taps[3])
    for tap, number, width in zip(taps[2::-1], (3, 2, 1), self.widths, strict=True):
      if number < 3:
        total = resize(linear(width, f"up{number}", total), tap.shape[1:3], antialias=False)
      total = nn.relu(total + linear(width, f"lateral{number}", tap))
      total = nn.relu(nn.Conv(width, (3, 3), dtype=self.dtype, name=f"conv{number}")(total))
    return linear(self.classes, "logits", total).astype(jnp.float32), total


def _scaled(tap: Float[Array, "B h w E"], epsilon: float) -> Float[Array, "B h w E"]:
  """Brings each cell to unit variance: taps differ in scale by orders of magnitude."""
  return unit(tap.astype(jnp.float32), epsilon) * jnp.sqrt(tap.shape[-1])

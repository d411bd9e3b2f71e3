"""What trunks and head are made of, in forms that are fast on CPU: convolutions, products, resizing.

A trunk's batch norm always uses stored statistics, so it is one factor and one shift a channel. The
factor goes into the kernel and no pass over the activations is spent on it, forward or backward;
gradients reach its parameters all the same.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

# Stored statistics start at (0, 1) and are never updated, so only the kernels set the scale of an
# untrained trunk: fan-in scaling keeps it.
init_kernel = nn.initializers.he_normal()


_TOP_SHARE = 0.1  # Of the cells with the highest values of a channel: what covers little of an image.


class Affine(NamedTuple):
  """What a batch norm comes to: x * factor + shift."""

  factor: jax.Array  # f32[width].
  shift: jax.Array  # f32[width].


class StoredNorm(nn.Module):
  """Holds a batch norm's parameters and stored statistics, and returns them as an Affine."""

  epsilon: float

  @nn.compact
  def __call__(self, width: int) -> Affine:
    scale = self.param("scale", nn.initializers.ones_init(), (width,))
    bias = self.param("bias", nn.initializers.zeros_init(), (width,))
    mean = self.variable("batch_stats", "mean", jnp.zeros, (width,)).value
    variance = self.variable("batch_stats", "var", jnp.ones, (width,)).value
    factor = scale * lax.rsqrt(variance + self.epsilon)
    return Affine(factor, bias - mean * factor)


class Pointwise(nn.Module):
  """A 1x1 convolution and its norm: f32 out of products in `dtype`."""

  width: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"], norm: Affine) -> Float[Array, "B H W D"]:
    kernel = self.param("kernel", init_kernel, (x.shape[-1], self.width))
    kernel = (kernel * norm.factor).astype(self.dtype)
    return matmul(x.astype(self.dtype), kernel) + norm.shift


class Conv(nn.Module):
  """A k x k convolution and its norm: f32 out of products in `dtype`."""

  width: int
  kernel: int
  stride: int
  padding: Any  # As lax.conv takes it: "SAME", or pairs.
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"], norm: Affine) -> Float[Array, "B h w D"]:
    shape = (self.kernel, self.kernel, x.shape[-1], self.width)
    kernel = (self.param("kernel", init_kernel, shape) * norm.factor).astype(self.dtype)
    y = lax.conv_general_dilated(
      x.astype(self.dtype), kernel, (self.stride, self.stride), self.padding,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y + norm.shift


def product(spec: str, a: Array, b: Array, dtype: Any) -> Array:
  """Contracts as einsum does, in `dtype`; returns f32."""
  return jnp.einsum(spec, a.astype(dtype), b.astype(dtype)).astype(jnp.float32)


def dense(module: nn.Dense, x: Float[Array, "*rows C"]) -> Float[Array, "*rows D"]:
  """Applies a dense layer to the rows of x, all leading axes as one: see `matmul`."""
  return module(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], module.features)


def matmul(x: Float[Array, "*rows C"], kernel: Float[Array, "C D"]) -> Float[Array, "*rows D"]:
  """Multiplies the rows of x, all leading axes as one.

  XLA's CPU back end takes the kernel's gradient several times faster from two axes than from four.
  """
  return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[1])


def max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
  """Takes maxima 3x3 with stride 2 and padding 1 of values that are not negative.

  As maxima of slices: the gradient of XLA's own window is several times slower on CPU.
  """
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  for axis in (1, 2):
    count = (x.shape[axis] - 1) // 2
    first, middle, last = (
      lax.slice_in_dim(x, start, start + 2 * count - 1, 2, axis) for start in range(3)
    )
    x = jnp.maximum(jnp.maximum(first, middle), last)
  return x


def resize(x: Float[Array, "B h w E"], size: tuple[int, ...], *, antialias: bool) -> Array:
  """Resizes bilinearly; antialias=False is what torch does."""
  if x.shape[1:3] == size:
    return x
  return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear", antialias=antialias)


def run_stages(x: Array, first: int, last: int, make: Callable[[int], nn.Module]) -> tuple[Array, ...]:
  """Returns the outputs of a trunk's stages `first` to `last`; ValueError unless both lie in 0 to 4."""
  if not 0 <= first <= last <= 4:
    raise ValueError(f"stages {first} to {last} asked for; they must be ordered and in 0 to 4")
  outputs = []
  for number in range(first, last + 1):
    x = make(number)(x)
    outputs.append(x)
  return tuple(outputs)


def turned(x: Shaped[Array, "B h w *rest"], number: int) -> Array:
  """Applies one of the eight flips and quarter turns; 0 changes nothing."""
  x = jnp.rot90(x, number % 4, axes=(1, 2))
  return jnp.flip(x, 2) if number >= 4 else x


def pooled(tap: Float[Array, "B h w E"]) -> Float[Array, "B E2"]:
  """Returns a summary of each image: the mean and the mean of the highest tenth of each channel."""
  cells = tap.reshape(tap.shape[0], -1, tap.shape[-1])
  count = max(1, round(_TOP_SHARE * cells.shape[1]))
  top = jax.lax.top_k(jnp.moveaxis(cells, 1, 2), count)[0].mean(-1)
  return jnp.concatenate([cells.mean(1), top], axis=-1)

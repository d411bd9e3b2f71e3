"""Refinement: score maps aligned with the edges of the image, by its colours alone. Pure functions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgag_jax.settings.maps import RefineConfig
from lgag_jax.trunks.layers import resize

_TINY = 1e-6  # Keeps flat images, whose variance is zero, from dividing by it.


def refine(
  scores: Float[Array, "B H W C"], image: Float[Array, "B H W E"], config: RefineConfig
) -> Float[Array, "B H W C"]:
  """Refines score maps in [0, 1] by the image that they are of; returns them in [0, 1].

  The filter is fitted on a grid of `stride` pixels; its result has the image's own detail.
  """
  if config.method == "none":
    return scores
  size = tuple(max(1, side // config.stride) for side in image.shape[1:3])
  centred = image - jnp.mean(image, axis=(1, 2), keepdims=True)
  guide, coarse = (resize(x, size, antialias=True) for x in (centred, scores))
  radius = max(1, round(config.radius * size[0]))
  slope, offset = guided_filter(coarse, guide, radius=radius, epsilon=config.epsilon)
  slope = resize(slope.reshape(*slope.shape[:3], -1), image.shape[1:3], antialias=False)
  slope = slope.reshape(*image.shape, scores.shape[-1])
  refined = jnp.einsum("bhwe,bhwec->bhwc", centred, slope)
  refined = refined + resize(offset, image.shape[1:3], antialias=False)
  return jnp.clip(refined, 0.0, 1.0)


def guided_filter(
  scores: Float[Array, "B h w C"], guide: Float[Array, "B h w E"], *, radius: int, epsilon: float
) -> tuple[Float[Array, "B h w E C"], Float[Array, "B h w C"]]:
  """Returns slope a and offset b of the scores as a + b of the colours around each cell.

  He, Sun and Tang 2013, with a colour guide: a ridge regression of the scores on the colours in each
  window, then the mean over the windows that contain a cell. `epsilon`, the ridge, is in units of the
  image's mean variance, so that dull and vivid images are treated alike. The refined score of a pixel
  of colour I is a . I + b.
  """
  channels, classes = guide.shape[-1], scores.shape[-1]
  mean = lambda x: _window_mean(x, radius)
  products = lambda x, y: (x[..., :, None] * y[..., None, :]).reshape(*x.shape[:3], -1)
  mean_guide, mean_scores = mean(guide), mean(scores)
  shape = (*guide.shape[:3], channels)
  covariance = mean(products(guide, guide)) - products(mean_guide, mean_guide)
  covariance = covariance.reshape(*shape, channels)
  with_scores = mean(products(guide, scores)) - products(mean_guide, mean_scores)
  variance = jnp.mean(jnp.var(guide, axis=(1, 2)), axis=-1)  # B
  ridge = (epsilon * variance + _TINY)[:, None, None, None, None] * jnp.eye(channels)
  slope = _solve(covariance + ridge, with_scores.reshape(*shape, classes))
  offset = mean_scores - jnp.einsum("bhwe,bhwec->bhwc", mean_guide, slope)
  slope = mean(slope.reshape(*shape[:3], -1)).reshape(slope.shape)
  return slope, mean(offset)


def _solve(a: Float[Array, "... E E"], b: Float[Array, "... E C"]) -> Float[Array, "... E C"]:
  """Solves a x = b for positive definite a. LAPACK is slower, and deadlocks on several CPU devices."""
  rows = jnp.arange(a.shape[-1])[:, None]
  left = jnp.concatenate([a, b], axis=-1)
  for k in range(a.shape[-1]):  # Each round eliminates one column.
    pivot = left[..., k, 1:] / left[..., k, :1]
    rest = left[..., 1:] - left[..., :1] * pivot[..., None, :]
    left = jnp.where(rows == k, pivot[..., None, :], rest)
  return left


def _window_mean(x: Float[Array, "B h w F"], radius: int) -> Float[Array, "B h w F"]:
  """Returns means over the square window around each cell; at borders, over its part in the image."""
  for axis in (1, 2):
    size = x.shape[axis]
    total = jnp.cumsum(x, axis=axis)
    total = jnp.concatenate([jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis)), total], axis)
    cells = jnp.arange(size)
    first, last = jnp.maximum(cells - radius, 0), jnp.minimum(cells + radius + 1, size)
    count = (last - first).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    x = (jnp.take(total, last, axis=axis) - jnp.take(total, first, axis=axis)) / count
  return x

"""Refinement: score maps drawn to the edges of the image, from its colours alone. Pure functions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgag_jax.config import RefineConfig
from lgag_jax.trunks.layers import resize

_TINY = 1e-6  # Keeps flat images, whose variance is zero, from dividing by it.


def refine(
  scores: Float[Array, "B H W C"], image: Float[Array, "B H W E"], config: RefineConfig
) -> Float[Array, "B H W C"]:
  """Refines score maps in [0, 1] by the image that they are of; returns them in [0, 1].

  The work is done on a grid of `stride` pixels; the guided filter's result has the image's own detail.
  """
  if config.method == "none":
    return scores
  size = tuple(max(1, side // config.stride) for side in image.shape[1:3])
  centred = image - jnp.mean(image, axis=(1, 2), keepdims=True)
  guide, coarse = (resize(x, size, antialias=True) for x in (centred, scores))
  radius = max(1, round(config.radius * size[0]))
  if config.method == "guided_filter":
    slope, offset = guided_filter(coarse, guide, radius=radius, epsilon=config.epsilon)
    slope = resize(slope.reshape(*slope.shape[:3], -1), image.shape[1:3], antialias=False)
    slope = slope.reshape(*image.shape, scores.shape[-1])
    refined = jnp.einsum("bhwe,bhwec->bhwc", centred, slope)
    refined = refined + resize(offset, image.shape[1:3], antialias=False)
  else:
    if config.method == "pixel_adaptive":
      refined = pixel_adaptive(
        coarse, guide, dilations=config.dilations, contrast=config.contrast, steps=config.steps
      )
    else:
      refined = dense_crf(
        coarse, guide, radius=radius, colour=config.colour, weight=config.weight, steps=config.steps
      )
    refined = resize(refined, image.shape[1:3], antialias=False)
  return jnp.clip(refined, 0.0, 1.0)


def guided_filter(
  scores: Float[Array, "B h w C"], guide: Float[Array, "B h w E"], *, radius: int, epsilon: float
) -> tuple[Float[Array, "B h w E C"], Float[Array, "B h w C"]]:
  """Returns slope a and offset b of the scores as a + b of the colours around each cell.

  He, Sun and Tang 2013, colour guide: in every window the ridge regression of the scores on the
  colours, then the mean over the windows that a cell lies in. `epsilon`, the ridge, is in units of the
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
  """Solves a x = b for symmetric, positive definite a, by elimination.

  LAPACK is slower for matrices as small as these, and waits for ever on several CPU devices.
  """
  rows = jnp.arange(a.shape[-1])[:, None]
  left = jnp.concatenate([a, b], axis=-1)
  for k in range(a.shape[-1]):  # Each round ends with one column less, a unit vector's.
    pivot = left[..., k, 1:] / left[..., k, :1]
    rest = left[..., 1:] - left[..., :1] * pivot[..., None, :]
    left = jnp.where(rows == k, pivot[..., None, :], rest)
  return left


def _window_mean(x: Float[Array, "B h w F"], radius: int) -> Float[Array, "B h w F"]:
  """Means over the square windows around each cell; at borders over what there is of them."""
  for axis in (1, 2):
    size = x.shape[axis]
    total = jnp.cumsum(x, axis=axis)
    total = jnp.concatenate([jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis)), total], axis)
    cells = jnp.arange(size)
    first, last = jnp.maximum(cells - radius, 0), jnp.minimum(cells + radius + 1, size)
    count = (last - first).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    x = (jnp.take(total, last, axis=axis) - jnp.take(total, first, axis=axis)) / count
  return x


def pixel_adaptive(
  scores: Float[Array, "B h w C"], guide: Float[Array, "B h w E"], *, dilations: tuple[int, ...],
  contrast: float, steps: int,
) -> Float[Array, "B h w C"]:
  """Returns the scores after repeated averaging with neighbours of like colour.

  Pixel-adaptive refinement (PAMR; Araslanov and Roth 2020): a cell's weights are a softmax over its
  neighbours of minus the squared colour distance, in units of the colours' spread around it.
  """
  offsets = [
    (row * d, col * d) for d in dilations for row in (-1, 0, 1) for col in (-1, 0, 1) if row or col
  ]
  around = jnp.stack([_shifted(guide, offset) for offset in offsets])  # O B h w E
  spread = contrast * jnp.std(around, axis=0) + _TINY
  weights = jax.nn.softmax(-jnp.mean(((around - guide) / spread) ** 2, axis=-1), axis=0)  # O B h w

  def average(_, values):
    parts = (w[..., None] * _shifted(values, o) for w, o in zip(weights, offsets, strict=True))
    return sum(parts)

  return jax.lax.fori_loop(0, steps, average, scores)


def _shifted(x: Float[Array, "B h w F"], offset: tuple[int, int]) -> Float[Array, "B h w F"]:
  """Returns each cell's neighbour at `offset`; past a border the border's own cell."""
  for axis, by in zip((1, 2), offset, strict=True):
    size = x.shape[axis]
    outside = min(abs(by), size)
    if not outside:
      continue
    kept, edge = ((outside, size), (size - 1, size)) if by > 0 else ((0, size - outside), (0, 1))
    inner, border = (jax.lax.slice_in_dim(x, *part, axis=axis) for part in (kept, edge))
    border = jnp.broadcast_to(border, (*x.shape[:axis], outside, *x.shape[axis + 1 :]))
    x = jnp.concatenate([inner, border] if by > 0 else [border, inner], axis=axis)
  return x


def dense_crf(
  scores: Float[Array, "B h w C"], guide: Float[Array, "B h w E"], *, radius: int, colour: float,
  weight: float, steps: int, block: int = 512,
) -> Float[Array, "B h w C"]:
  """Returns the scores after mean-field steps of a fully connected CRF, a class against the rest.

  Krähenbühl and Koltun 2011 with the bilateral kernel alone, its sums taken exactly, `block` cells at a
  time. A cell's neighbours count by weights that add up to one: standard deviations are `radius` / 2
  cells and `colour` image standard deviations.
  """
  batch, height, width, classes = scores.shape
  count = height * width
  spread = jnp.sqrt(jnp.mean(jnp.var(guide, axis=(1, 2)), axis=-1) + _TINY)[:, None, None]
  colours = guide.reshape(batch, count, -1) / (colour * spread)
  places = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), axis=-1)
  places = jnp.broadcast_to(places.reshape(count, 2) / (radius / 2.0), (batch, count, 2))
  features = jnp.concatenate([colours, places], axis=-1)
  norms = jnp.sum(features**2, axis=-1)  # B N
  likely = jnp.clip(scores.reshape(batch, count, classes), 1e-4, 1.0 - 1e-4)
  unary = jnp.log(likely) - jnp.log1p(-likely)
  block = min(block, count)
  padding = -count % block
  rows = jnp.pad(features, ((0, 0), (0, padding), (0, 0))).reshape(batch, -1, block, features.shape[-1])

  def messages(values):
    def of_block(part):
      # A softmax over j does not see what depends on i alone: of |f_i - f_j|^2 two terms are left.
      closeness = jnp.einsum("bif,bjf->bij", part, features) - norms[:, None] / 2.0
      return jnp.einsum("bij,bjc->bic", jax.nn.softmax(closeness, axis=-1), values)

    parts = jax.lax.map(of_block, jnp.moveaxis(rows, 1, 0))
    return jnp.moveaxis(parts, 0, 1).reshape(batch, -1, classes)[:, :count]

  step = lambda _, logits: unary + weight * (2.0 * messages(jax.nn.sigmoid(logits)) - 1.0)
  return jax.nn.sigmoid(jax.lax.fori_loop(0, steps, step, unary)).reshape(scores.shape)

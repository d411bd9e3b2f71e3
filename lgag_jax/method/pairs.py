"""Images before and after an event: one trunk sees both, and their features are compared.

The image of a pair is f32[B, H, W, 2 E]: the bands after the event, then those before. So are features
of both dates. The functions here are pure.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

_FLAT = 1e-3  # Of the bands' range: a band that varies less has no contrast to match.


def apart(x: Float[Array, "B h w E2"]) -> Float[Array, "B2 h w E"]:
  """Returns the dates as images of their own: after and before of each pair in turn."""
  batch, height, width, both = x.shape
  x = x.reshape(batch, height, width, 2, both // 2)
  return jnp.moveaxis(x, 3, 1).reshape(2 * batch, height, width, both // 2)


def together(x: Float[Array, "B2 h w E"]) -> Float[Array, "B h w E2"]:
  """Returns pairs of what `apart` returned."""
  both, height, width, bands = x.shape
  x = jnp.moveaxis(x.reshape(both // 2, 2, height, width, bands), 1, 3)
  return x.reshape(both // 2, height, width, 2 * bands)


def matched(images: Float[Array, "B H W E2"]) -> Float[Array, "B H W E2"]:
  """Gives each band before the event the mean and the deviation that it has after.

  Season, light and haze change an image as a whole. What is left are changes of places.
  """
  after, before = jnp.split(images, 2, axis=-1)
  moments = [
    (jnp.mean(x, axis=(1, 2), keepdims=True), jnp.std(x, axis=(1, 2), keepdims=True))
    for x in (after, before)
  ]
  (mean, std), (own_mean, own_std) = moments
  return jnp.concatenate([after, (before - own_mean) * (std / (own_std + _FLAT)) + mean], axis=-1)


def compare(features: Float[Array, "B h w E2"], comparison: str) -> Float[Array, "B h w D"]:
  """Returns the features by which pairs are judged, as model.comparison says."""
  after, before = jnp.split(features, 2, axis=-1)
  match comparison:
    case "concatenation":
      return features
    case "difference":
      return after - before
    case "absolute_difference":
      return jnp.abs(after - before)
    case "after_and_difference":
      return jnp.concatenate([after, after - before], axis=-1)
    case "after_and_absolute_difference":
      return jnp.concatenate([after, jnp.abs(after - before)], axis=-1)
  raise ValueError(f"model.comparison={comparison!r} is unknown.")

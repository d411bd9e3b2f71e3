"""Augmentation in TensorFlow without state: the same seed gives the same image."""

from typing import Any

from lgag_jax.config import DataConfig
from lgag_jax.runtime.host_tensorflow import tf


def augment(image: Any, mask: Any, seed: tf.Tensor, config: DataConfig):
  """Returns image [H, W, C] and mask [H, W] after random flips, quarter turns, zoom and colour jitter.

  The image is scaled already. Imagery taken from above has no preferred direction, so all eight flips
  and turns are equally likely. `seed` is int32[2].
  """
  seeds = tf.random.split(seed, 3)
  image, mask = _zoom(image, mask, seeds[0], config.scale_jitter)
  turn: Any = tf.random.stateless_uniform((), seeds[1], 0, 8, tf.int32)
  stacked = tf.concat([image, tf.cast(mask, image.dtype)[..., None]], axis=-1)
  stacked = tf.image.rot90(stacked, turn % 4)
  stacked = tf.cond(turn >= 4, lambda: tf.reverse(stacked, [1]), lambda: stacked)
  image, mask = stacked[..., :-1], tf.cast(stacked[..., -1], mask.dtype)
  if config.colour_jitter > 0:
    contrast, brightness = tf.unstack(
      tf.random.stateless_uniform((2,), seeds[2], -1.0, 1.0) * config.colour_jitter
    )
    mean = tf.reduce_mean(image)
    image = (image - mean) * (1.0 + contrast) + mean + brightness
    if config.normalise == "trunk":
      image = tf.clip_by_value(image, 0.0, 1.0)
  return image, mask


def _zoom(image, mask, seed, strength):
  if strength == 0:
    return image, mask
  side = tf.cast(tf.shape(image)[0], tf.float32)
  random = tf.random.stateless_uniform((3,), seed)
  crop = tf.cast(side / (1.0 + strength * random[0]), tf.int32)
  positions = tf.cast(tf.shape(image)[0] - crop + 1, tf.float32)
  top, left = tf.cast(random[1] * positions, tf.int32), tf.cast(random[2] * positions, tf.int32)
  size = tf.shape(image)[:2]
  image_part = image[top : top + crop, left : left + crop]
  mask_part = mask[top : top + crop, left : left + crop, None]
  image = tf.image.resize(image_part, size, antialias=True)
  return image, tf.image.resize(mask_part, size, method="nearest")[..., 0]

"""Bands that only the evidence uses: the trunk is the one of images without them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lgag_jax import config as configs
from lgag_jax.method import network as networks
from lgag_jax.trunks import pretrained


class Echo(nn.Module):
  """A trunk whose outputs are what it sees."""

  def __call__(self, x, first, last):
    return x, x


def trunk_input(config, image):
  """What the trunk sees of images, and the kernel of its stem."""
  network = networks.build(config)
  init = functools.partial(network.init_trunk, channels=len(config.trunk_bands))
  shapes = jax.eval_shape(init, jax.random.key(0))
  trunk = pretrained.load_trunk(
    "efficientnet_lite0", pretrained.packaged_weights("efficientnet_lite0"), shapes,
    config.trunk_rgb_bands)
  seen = dataclasses.replace(network, trunk=Echo()).frozen({"trunk": {}}, {}, jnp.asarray(image))[0]
  return np.asarray(seen), np.asarray(jax.tree.leaves(trunk["params"]["stem"]["conv"])[0])


@pytest.mark.parametrize(("before", "statistics"), [("", False), ("before", True)])
def test_the_trunk_does_not_see_them(small_config, before, statistics):
  small_config.data.before = before
  if statistics:
    small_config.data.mean, small_config.data.std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
  plain = configs.from_mapping(small_config)
  small_config.data.channels = 5
  small_config.model.rgb_bands, small_config.model.evidence_bands = (5, 2, 3), (4, 1)
  if statistics:
    small_config.data.mean, small_config.data.std = (9, 0.5, 0.6, 9, 0.4), (9, 0.2, 0.3, 9, 0.1)
  config = configs.from_mapping(small_config)
  assert (config.trunk_bands, config.trunk_rgb_bands) == ((2, 3, 5), (3, 1, 2))
  rng = np.random.default_rng(0)
  image, other = (rng.uniform(size=(2, 64, 64, 3)).astype(np.float32) for _ in range(2))
  more = np.stack([
    other[..., 0], image[..., 1], image[..., 2], other[..., 1], image[..., 0]], axis=-1)
  if before:
    image, more = (np.concatenate([x, x[::-1]], axis=-1) for x in (image, more))
  (seen, kernel), (ours, own_kernel) = trunk_input(plain, image), trunk_input(config, more)
  order = [1, 2, 0, 4, 5, 3][: seen.shape[-1]]  # Of pairs, both dates.
  np.testing.assert_allclose(ours, seen[..., order], rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(own_kernel, kernel[:, :, [1, 2, 0]])

"""Class activation from all taps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax.method import classifiers


@pytest.fixture
def taps(rng):
  shapes = ((16, 24), (8, 40), (4, 112), (4, 320))
  return tuple(jnp.asarray(rng.normal(size=(2, s, s, w)), jnp.float32) for s, w in shapes)


def test_decoder_ends_at_stride_4_and_reads_every_tap(taps):
  decoder = classifiers.Decoder(3, (16, 8, 8), 1e-5, jnp.float32)
  params = decoder.init(jax.random.key(0), taps)
  logits, features = decoder.apply(params, taps)
  assert logits.shape == (2, 16, 16, 3)
  assert features.shape == (2, 16, 16, 8)
  gradients = jax.grad(lambda x: jnp.sum(decoder.apply(params, x)[0] ** 2))(taps)
  assert all(np.any(g != 0) for g in gradients)


def test_a_taps_scale_does_not_matter(taps):
  decoder = classifiers.Decoder(1, (16, 8, 8), 1e-9, jnp.float32)
  params = decoder.init(jax.random.key(0), taps)
  scaled = (*taps[:3], taps[3] * 1000.0)
  np.testing.assert_allclose(
    decoder.apply(params, taps)[0], decoder.apply(params, scaled)[0], rtol=1e-3, atol=1e-4
  )

"""GELU and attention, and their gradients, against plain forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax.trunks import attention


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-7), ("bfloat16", 1e-2)])
def test_gelu_and_its_gradient_are_the_exact_ones(dtype, tolerance):
  x = np.array([-40, -6, -3, -1, -0.1, 0, 1e-3, 0.5, 2, 5, 40])
  values, gradients = jax.jit(jax.vmap(jax.value_and_grad(attention.gelu)))(jnp.array(x, dtype))
  assert values.dtype == gradients.dtype == jnp.dtype(dtype)
  share = np.array([(1 + math.erf(value / 2**0.5)) / 2 for value in x])
  density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
  np.testing.assert_allclose(np.float64(values), x * share, rtol=tolerance, atol=tolerance)
  np.testing.assert_allclose(np.float64(gradients), share + x * density, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
  ("scale", "dtype", "tolerance"),
  # At 100 the weights are 0 and 1.
  [(0.1, "float32", 1e-5), (3.0, "float32", 1e-5), (100.0, "float32", 1e-5), (1.0, "bfloat16", 3e-2)],
)
def test_attention_has_the_values_and_gradients_of_softmax(scale, dtype, tolerance):
  query, key, value, pull = jax.random.normal(jax.random.key(0), (4, 2, 9, 3, 8))
  inputs = [x.astype(dtype) for x in (scale * query, key, value)]

  def plain(query, key, value):
    scores = jnp.einsum("bthd,bshd->bhts", query, key, precision="highest") / math.sqrt(8)
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), value, precision="highest")

  expected, expected_pull = jax.vjp(plain, *(x.astype(jnp.float32) for x in inputs))
  got, got_pull = jax.vjp(jax.jit(attention.attend), *inputs)
  pairs = zip((got, *got_pull(pull.astype(dtype))), (expected, *expected_pull(pull)), strict=True)
  for array, reference in pairs:
    assert array.dtype == jnp.dtype(dtype)
    largest = np.abs(reference).max()
    np.testing.assert_allclose(np.float32(array), reference, atol=tolerance * max(1.0, largest))

"""The trunks' layers against flax's own, values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax.trunks import layers


class Folded(nn.Module):
  kernel: int
  stride: int

  @nn.compact
  def __call__(self, x):
    norm = layers.StoredNorm(1e-3, name="norm")(6)
    if self.kernel == 1:
      return layers.Pointwise(6, jnp.float32, name="conv")(x, norm)
    pads = ((self.kernel // 2,) * 2,) * 2
    return layers.Conv(6, self.kernel, self.stride, pads, jnp.float32, name="conv")(x, norm)


class Plain(nn.Module):
  kernel: int
  stride: int

  @nn.compact
  def __call__(self, x):
    if self.kernel == 1:
      x = nn.Dense(6, use_bias=False, name="conv")(x)
    else:
      pads = ((self.kernel // 2,) * 2,) * 2
      shape = (self.kernel, self.kernel)
      x = nn.Conv(6, shape, self.stride, padding=pads, use_bias=False, name="conv")(x)
    return nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="norm")(x)


def drawn(shapes, seed):
  random = np.random.default_rng(seed)
  return jax.tree.map(lambda s: jnp.float32(random.uniform(0.5, 1.5, s.shape)), shapes)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (7, 2)])
def test_a_folded_norm_is_flax_s_norm_with_the_same_variables_and_gradients(kernel, stride):
  x = drawn(jax.ShapeDtypeStruct((2, 9, 12, 5), jnp.float32), 0)
  folded, plain = Folded(kernel, stride), Plain(kernel, stride)
  shapes = jax.eval_shape(plain.init, jax.random.key(0), x)
  assert jax.tree.structure(shapes) == jax.tree.structure(
    jax.eval_shape(folded.init, jax.random.key(0), x)
  )
  variables = drawn(shapes, 1)

  def value_and_gradients(module):
    def loss(params, x):
      y = module.apply({**variables, "params": params}, x)
      return jnp.sum(jnp.sin(y)), y

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], x)

  (_, got), got_gradients = value_and_gradients(folded)
  (_, expected), gradients = value_and_gradients(plain)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
  for a, b in zip(jax.tree.leaves(got_gradients), jax.tree.leaves(gradients), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3 * float(jnp.max(jnp.abs(b))))


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (7, 5)])
def test_max_pool_takes_the_maxima_that_flax_takes(size):
  x = jax.nn.relu(jax.random.normal(jax.random.key(0), (2, *size, 3)))
  pool = lambda x: nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
  np.testing.assert_array_equal(layers.max_pool(x), pool(x))
  # No two values are equal but zeros, whose gradient the relu before it stops.
  weight = jax.random.normal(jax.random.key(1), pool(x).shape)
  gradient = lambda f: jax.grad(lambda x: jnp.sum(f(x) * weight))(x) * (x > 0)
  np.testing.assert_allclose(gradient(layers.max_pool), gradient(pool), rtol=1e-5)


def test_products_are_in_the_type_asked_for_and_come_back_in_single_precision():
  a, b = (jax.random.normal(jax.random.key(i), (4, 4)) for i in range(2))
  half = layers.product("ab,bc->ac", a, b, jnp.bfloat16)
  assert half.dtype == jnp.float32
  np.testing.assert_allclose(layers.product("ab,bc->ac", a, b, jnp.float32), a @ b, rtol=1e-5)
  assert 0 < float(jnp.max(jnp.abs(half - a @ b))) < 0.1

"""GAA's cross-attention against the literal form: Q, K, V, attention, output and fusion in turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax.method.gaa import GlobalAnchorAggregation

BATCH, CELLS, ANCHORS, WIDTH = 2, 5, 6, 8
CASES = [(residual, heads) for residual in (False, True) for heads in (1, 4)]


def softmax(x, axis):
  e = np.exp(x - x.max(axis=axis, keepdims=True))
  return e / e.sum(axis=axis, keepdims=True)


def literal(params, g, anchors, *, residual, heads):
  """Q = g Wq + bq and so on, each product taken as it stands, one image and one head at a time."""
  p = {name: np.asarray(value, np.float64) for name, value in params.items()}
  width = g.shape[-1]
  size = width // heads
  result = []
  anchors = np.asarray(anchors, np.float64)
  for image in np.asarray(g, np.float64):
    read = []
    for head in range(heads):
      query = image @ p["query_kernel"][:, head] + p["query_bias"][head]  # N e
      key = anchors @ p["key_kernel"][:, head] + p["key_bias"][head]  # A e
      value = anchors @ p["value_kernel"][:, head] + p["value_bias"][head]
      logits = query @ key.T / np.sqrt(size)  # N A
      read.append(softmax(logits, axis=1) @ value)
    out = np.concatenate(read, axis=1) @ p["output_kernel"].reshape(width, width)
    out = out + p["output_bias"]
    if residual:
      result.append(image + out)
    else:
      kernel = p["fuse_kernel"].reshape(2 * width, width)
      result.append(np.concatenate([image, out], axis=1) @ kernel + p["fuse_bias"])
  return np.stack(result)


def setup(seed=0, **options):
  """The module, parameters that all matter, features and anchors."""
  rng = np.random.default_rng(seed)
  module = GlobalAnchorAggregation(**options)
  g = jnp.float32(rng.normal(size=(BATCH, CELLS, WIDTH)))
  anchors = jnp.float32(rng.normal(size=(ANCHORS, WIDTH)))
  ready = jnp.array(True)
  shapes = jax.eval_shape(module.init, jax.random.key(0), g, anchors, ready)["params"]
  params = jax.tree.map(lambda s: jnp.array(rng.normal(0, 0.4, s.shape), jnp.float32), shapes)
  return module, params, g, anchors


@pytest.mark.parametrize(("residual", "heads"), CASES)
def test_reassociated_products_equal_the_literal_form(residual, heads):
  options = {"residual": residual, "heads": heads}
  module, params, g, anchors = setup(**options)
  value = jax.jit(module.apply)({"params": params}, g, anchors, jnp.array(True))
  expected = literal(params, g, anchors, **options)
  assert value.shape == g.shape
  np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("residual", [False, True])
def test_without_global_anchors_features_pass_exactly(residual, heads):
  module, params, g, anchors = setup(residual=residual, heads=heads)
  for tried in (anchors, jnp.zeros_like(anchors)):
    value = module.apply({"params": params}, g, tried, jnp.array(False))
    np.testing.assert_array_equal(value, g)


def test_without_global_anchors_gradients_are_those_of_the_identity():
  module, params, g, _ = setup(residual=False, heads=1)
  gradient_params, gradient_g = jax.jit(jax.grad(
    lambda p, x: jnp.sum(
      module.apply({"params": p}, x, jnp.zeros((ANCHORS, WIDTH)), jnp.array(False)) * g
    ), argnums=(0, 1),
  ))(params, g)
  np.testing.assert_array_equal(gradient_g, g)
  assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient_params))


def test_every_parameter_takes_part():
  """A parameter that the result does not depend on would never be trained."""
  for residual in (False, True):
    module, params, g, anchors = setup(residual=residual, heads=2)
    gradient = jax.jit(jax.grad(
      lambda p, apply=module.apply, g=g, anchors=anchors: jnp.sum(
        jnp.square(apply({"params": p}, g, anchors, jnp.array(True)))
      )
    ))(params)
    # A bias of all keys adds the same to each anchor's logit, which a softmax takes away again.
    idle = {k for k, v in gradient.items() if np.abs(v).max() < 1e-3}
    assert idle == {"key_bias"}


def test_order_of_the_anchors_does_not_matter():
  module, params, g, anchors = setup(residual=False, heads=4)
  apply = jax.jit(module.apply)
  value = apply({"params": params}, g, anchors, jnp.array(True))
  other = apply({"params": params}, g, anchors[::-1], jnp.array(True))
  np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-5)


def test_a_cell_does_not_see_its_neighbours():
  module, params, g, anchors = setup(residual=False, heads=1)
  apply = jax.jit(module.apply)
  changed = np.array(g)
  changed[:, 1:] += 1.0
  value = apply({"params": params}, g, anchors, jnp.array(True))[:, 0]
  other = apply({"params": params}, changed, anchors, jnp.array(True))[:, 0]
  np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-4)


def test_a_fresh_residual_starts_from_the_features_themselves():
  module, _, g, anchors = setup(residual=True, heads=2)
  variables = jax.jit(module.init)(jax.random.key(1), g, anchors, jnp.array(True))
  value = jax.jit(module.apply)(variables, g, anchors, jnp.array(True))
  np.testing.assert_array_equal(value, g)


def test_a_fresh_concatenation_has_the_spread_of_its_input():
  """Kernels are initialised for the number of inputs that they really have."""
  width = 64
  module = GlobalAnchorAggregation(residual=False, heads=4)
  g = jax.random.normal(jax.random.key(0), (1, 200, width))
  anchors = jax.random.normal(jax.random.key(1), (1, width))
  params = jax.jit(module.init)(jax.random.key(2), g, anchors, jnp.array(True))["params"]
  for name, inputs in (
    ("query_kernel", width), ("key_kernel", width), ("value_kernel", width),
    ("output_kernel", width), ("fuse_kernel", 2 * width),
  ):
    assert float(jnp.var(params[name])) == pytest.approx(1 / inputs, rel=0.15), name

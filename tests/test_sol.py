"""SOL against the N x N form written out in loops, and the memory that blocks save."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax.config import SolConfig
from lgag_jax.method import sol

EPSILON = 1e-5
overlap = jax.jit(sol.overlap, static_argnames=("block_rows", "epsilon"))


@pytest.fixture
def optimised():
  """Compiles as in production, where memory matters."""
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", True)


def literal_overlap(features, maps):
  """A_i^k = I / U, with the whole structure S held, in double precision."""
  result = np.zeros(maps.shape)
  for b in range(len(features)):
    f = features[b].astype(np.float64)
    length = np.sqrt(np.sum(f * f, axis=1))
    count = len(f)
    structure = np.zeros((count, count))
    for i in range(count):
      for j in range(count):
        product = length[i] * length[j]
        structure[i, j] = max(float(f[i] @ f[j]) / product, 0.0) if product else 0.0
    for k in range(maps.shape[2]):
      m = maps[b, :, k].astype(np.float64)
      for i in range(count):
        intersection = sum(structure[i, j] * m[j] for j in range(count))
        union = sum(structure[i]) + sum(m) - intersection
        result[b, i, k] = intersection / union if union > 0 else 0.0
  return result


def draw(rng, batch, count, width=6, classes=3):
  features = rng.normal(size=(batch, count, width)).astype(np.float32)
  maps = rng.uniform(size=(batch, count, classes)).astype(np.float32)
  return jnp.array(features), jnp.array(maps)


@pytest.mark.parametrize("block_rows", [1, 5, 8, 21, 64])
def test_overlap_is_the_literal_form(rng, block_rows):
  features, maps = draw(rng, 2, 21)
  value = overlap(features, maps, block_rows=block_rows, epsilon=EPSILON)
  expected = literal_overlap(np.asarray(features), np.asarray(maps))
  np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


def test_overlap_by_hand():
  # Two like cells and one at a right angle; the map covers the first cell alone.
  features = jnp.array([[[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]])
  maps = jnp.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
  value = overlap(features, maps, block_rows=9, epsilon=EPSILON)
  # Rows of S: (1 1 0), (1 1 0), (0 0 1).
  expected = [[1 / 2, 1 / 3], [1 / 2, 1 / 3], [0.0, 1 / 2]]
  np.testing.assert_allclose(value[0], expected, atol=1e-4)


def test_opposite_features_do_not_count():
  features = jnp.array([[[1.0, 0.0], [-1.0, 0.0]]])
  maps = jnp.array([[[0.0], [1.0]]])
  value = overlap(features, maps, block_rows=9, epsilon=EPSILON)
  np.testing.assert_allclose(value[0, :, 0], [0.0, 1.0], atol=1e-4)


@pytest.mark.parametrize("block_rows", [8, 64])
def test_overlap_knows_directions_only(rng, block_rows):
  features, maps = draw(rng, 1, 21)
  lengths = jnp.array(10.0 ** rng.uniform(-2, 4, size=(1, 21, 1)), jnp.float32)
  value = overlap(features, maps, block_rows=block_rows, epsilon=EPSILON)
  scaled = overlap(features * lengths, maps, block_rows=block_rows, epsilon=EPSILON)
  np.testing.assert_allclose(scaled, value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block_rows", [1, 7, 20, 21])
def test_gradients_do_not_depend_on_the_blocks(rng, block_rows):
  features, maps = draw(rng, 2, 21)
  weights = jnp.array(rng.normal(size=maps.shape), jnp.float32)

  def total(features, maps, rows):
    return jnp.sum(weights * overlap(features, maps, block_rows=rows, epsilon=EPSILON))

  gradient = jax.jit(jax.grad(total, argnums=(0, 1)), static_argnums=2)
  for part, whole in zip(
    gradient(features, maps, block_rows), gradient(features, maps, 999), strict=True
  ):
    assert np.abs(whole).max() > 1e-3
    np.testing.assert_allclose(part, whole, rtol=1e-4, atol=1e-6)


def test_overlap_gradient_by_finite_differences(rng):
  features, maps = draw(rng, 1, 6, classes=2)
  direction = rng.normal(size=features.shape)
  gradient = jax.grad(
    lambda f: jnp.sum(overlap(f, maps, block_rows=4, epsilon=EPSILON))
  )(features)
  step = 1e-5
  ends = [
    literal_overlap(np.asarray(features, np.float64) + sign * step * direction, np.asarray(maps))
    for sign in (1, -1)
  ]
  slope = (ends[0].sum() - ends[1].sum()) / (2 * step)
  assert float(np.sum(gradient * direction)) == pytest.approx(slope, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("block_rows", [4, 99])
def test_zero_features_have_finite_gradients(block_rows):
  maps = jnp.zeros((1, 9, 2))
  gradient = jax.grad(
    lambda f: jnp.sum(overlap(f, maps, block_rows=block_rows, epsilon=EPSILON))
  )(jnp.zeros((1, 9, 4)))
  assert np.all(np.isfinite(gradient))


def test_seeds_are_among_the_classes_present(rng):
  overlaps = jnp.array(rng.uniform(size=(2, 50, 3)), jnp.float32)
  present = jnp.array([[True, False, True], [True, False, False]])
  value = sol.seeds(overlaps, present, background_factor=0.5)
  for b in range(2):
    for i in range(50):
      scores = {k: float(overlaps[b, i, k]) * (0.5 if k == 0 else 1.0) for k in range(3)}
      allowed = {k: s for k, s in scores.items() if present[b, k]}
      assert int(value[b, i]) == max(allowed, key=allowed.get)
  assert set(np.unique(value[0])) == {0, 2}


def test_a_class_present_without_any_overlap_still_beats_an_absent_one():
  value = sol.seeds(
    jnp.array([[[0.0, 0.9]]]), jnp.array([[True, False]]), background_factor=0.5
  )
  assert int(value[0, 0]) == 0


@pytest.mark.parametrize(("factor", "expected"), [(0.5, 1), (0.8, 0), (1.0, 0)])
def test_background_factor_scales_the_background(factor, expected):
  value = sol.seeds(
    jnp.array([[[0.5, 0.3]]]), jnp.array([[True, True]]), background_factor=factor
  )
  assert int(value[0, 0]) == expected


def test_local_anchors_are_means_of_the_seeded_cells(rng):
  features = rng.normal(size=(2, 12, 4)).astype(np.float32)
  seeds = rng.integers(0, 2, size=(2, 12))
  one_hot = jax.nn.one_hot(jnp.array(seeds), 3)
  anchors = sol.local_anchors(jnp.array(features), one_hot)
  for b in range(2):
    for k in range(2):
      cells = [features[b, i] for i in range(12) if seeds[b, i] == k]
      np.testing.assert_allclose(anchors[b, k], sum(cells) / len(cells), rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(anchors[:, 2], 0.0)


def test_small_weights_make_the_same_mean():
  features = jnp.array([[[2.0], [6.0], [100.0]]])
  weights = jnp.array([[[0.3], [0.1], [0.0]]])
  np.testing.assert_allclose(sol.local_anchors(features, weights), [[[3.0]]], rtol=1e-6)


def test_class_maps_by_hand():
  logits = jnp.array([[[[-1.0, 2.0], [4.0, 1.0]]]])
  maps = sol.class_maps(logits, jnp.ones((1, 2)), epsilon=1e-9)
  np.testing.assert_allclose(maps[0, 0], [[0.0, 0.0, 1.0], [0.0, 1.0, 0.5]], atol=1e-6)
  maps = sol.class_maps(logits[..., :1], jnp.ones((1, 1)), epsilon=1e-9)
  np.testing.assert_allclose(maps[0, 0], [[1.0, 0.0], [0.0, 1.0]], atol=1e-6)


def test_denied_classes_have_no_map():
  logits = jnp.array([[[[-1.0, 2.0], [4.0, 1.0]]]])
  maps = sol.class_maps(logits, jnp.array([[1.0, 0.0]]), epsilon=1e-9)
  np.testing.assert_array_equal(maps[..., 2], 0.0)
  np.testing.assert_allclose(maps[0, 0, :, 1], [0.0, 1.0], atol=1e-6)


def test_class_maps_of_a_dead_class_are_finite():
  value, gradient = jax.value_and_grad(
    lambda x: jnp.sum(sol.class_maps(x, jnp.ones((1, 1)), epsilon=EPSILON)[..., 1])
  )(jnp.full((1, 3, 3, 1), -1.0))
  assert value == 0
  assert np.all(np.isfinite(gradient))


def test_cosine_maps_by_hand():
  features = jnp.array([[[3.0, 4.0], [-3.0, -4.0], [0.0, 0.0]]])
  anchors = jnp.array([[[5.0, 0.0], [0.0, 0.0]]])
  value = sol.cosine_maps(features, anchors)
  np.testing.assert_allclose(value[0], [[0.6, 0.0], [0.0, 0.0], [0.0, 0.0]], atol=1e-5)


@functools.cache
def temporary_bytes(side, weighted):
  """Memory besides arguments and results that SOL's gradient takes on a grid of this side."""
  present = jnp.ones((1, 2), bool)

  def loss(structure, g, maps):
    overlaps = sol.overlap(structure, maps, block_rows=ROWS, epsilon=EPSILON)
    if weighted:
      weights = overlaps
    else:
      weights = jax.nn.one_hot(sol.seeds(overlaps, present, background_factor=0.5), 2)
    guided = sol.cosine_maps(g, sol.local_anchors(g, weights))
    return jnp.mean(jnp.abs(maps - guided))

  cells = side * side
  arrays = [jax.ShapeDtypeStruct((1, cells, n), jnp.float32) for n in (64, 64, 2)]
  compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*arrays).compile()
  return compiled.memory_analysis().temp_size_in_bytes


ROWS = SolConfig().block_rows
# Below, the compiler still finds shortcuts that save an array or two of one number a cell.
SIDES = [(64, 128), pytest.param(128, 256, marks=pytest.mark.slow)]


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("side", "double"), SIDES)
def test_memory_grows_with_cells_not_with_pairs(optimised, side, double, weighted):
  # The double side has four times the cells, and sixteen times the pairs.
  small, large = temporary_bytes(side, weighted), temporary_bytes(double, weighted)
  assert large <= 4.4 * small, f"{small} bytes at {side}, {large} at {double}"


@pytest.mark.parametrize("weighted", [True, False])
def test_memory_is_far_below_one_structure_of_all_pairs(optimised, weighted):
  assert temporary_bytes(128, weighted) < 4 * 128**4 / 10


def test_drop_spilled_seeds_is_lloyd_within_the_first_seeds(rng):
  """A literal loop: seeds nearer the background's mean direction than their own's are given up."""
  features = rng.normal(size=(2, 40, 6))
  first = rng.integers(0, 3, (2, 40))
  one_hot = jax.nn.one_hot(jnp.array(first), 3)
  value = sol.drop_spilled_seeds(jnp.array(features, jnp.float32), one_hot, rounds=3)
  for b in range(2):
    rows = features[b] / np.linalg.norm(features[b], axis=-1, keepdims=True)
    seeds = first[b].copy()
    for _ in range(3):
      means = [rows[seeds == k].sum(axis=0) for k in range(3)]
      means = [m / max(np.linalg.norm(m), 1e-9) for m in means]
      for i in range(40):
        own = first[b][i]
        seeds[i] = own if rows[i] @ means[own] > rows[i] @ means[0] else 0
    np.testing.assert_array_equal(np.argmax(value[b], axis=-1), seeds)

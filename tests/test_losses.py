"""Loss terms against numbers worked out by hand and loops over images, pixels and bank entries."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax.config import BankConfig
from lgag_jax.method import losses, memory_bank

LOG2 = math.log(2.0)
contrast = jax.jit(losses.contrast)


def bank_of(entries, slots, width):
  """A bank whose class k holds the given unit vectors, in its last slots."""
  bank = memory_bank.empty(
    BankConfig(slots=slots, centres=1), classes=len(entries), dimension=width
  )
  features, valid = np.zeros(bank.features.shape, np.float32), np.zeros(bank.valid.shape, bool)
  for k, vectors in enumerate(entries):
    for i, vector in enumerate(vectors):
      features[k, slots - 1 - i] = vector
      valid[k, slots - 1 - i] = True
  return bank.replace(features=jnp.array(features), valid=jnp.array(valid))


def contrast_loop(anchors, exists, entries, temperature):
  """-log(e^{z.p/t} / (e^{z.p/t} + sum_n e^{z.n/t})), mean over p, then over existing anchors."""
  result = []
  for image in range(len(anchors)):
    terms = []
    for k in range(len(entries)):
      if not exists[image][k] or len(entries[k]) == 0:
        continue
      z = np.asarray(anchors[image][k], np.float64)
      z = z / math.sqrt(float(z @ z))
      others = sum(
        math.exp(float(z @ n) / temperature)
        for other in range(len(entries)) if other != k for n in entries[other]
      )
      each = []
      for p in entries[k]:
        own = math.exp(float(z @ p) / temperature)
        each.append(-math.log(own / (own + others)))
      terms.append(sum(each) / len(each))
    result.append(sum(terms) / len(terms) if terms else 0.0)
  return result


def random_bank(rng, counts=(4, 2, 3), slots=6, width=5):
  entries = []
  for count in counts:
    vectors = rng.normal(size=(count, width))
    entries.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
  return entries, bank_of(entries, slots, width)


def test_classification_by_hand():
  # -log(sigmoid(0)) = log 2; -log(sigmoid(log 3)) = log 4/3; -log(1 - sigmoid(log 3)) = log 4.
  scores = jnp.array([[0.0, math.log(3)], [math.log(3), 100.0]])
  labels = jnp.array([[1.0, 1.0], [0.0, 1.0]])
  expected = [(LOG2 + math.log(4 / 3)) / 2, math.log(4) / 2]
  np.testing.assert_allclose(losses.classification(scores, labels), expected, rtol=1e-6)


def test_classification_stays_finite_far_out():
  far = losses.classification(jnp.array([[-1e4], [1e4]]), jnp.array([[1.0], [0.0]]))
  np.testing.assert_allclose(far, [1e4, 1e4])


def test_contrast_by_hand():
  # z = (1, 0): one positive at cosine 1, one negative at cosine 0, temperature 1.
  bank = bank_of([[[0.0, 1.0]], [[1.0, 0.0]]], slots=3, width=2)
  anchors = jnp.array([[[0.0, 0.0], [7.0, 0.0]]])
  exists = jnp.array([[False, True]])
  value = contrast(anchors, exists, bank, temperature=1.0)
  np.testing.assert_allclose(value, [-math.log(math.e / (math.e + 1.0))], rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_contrast_against_loops(rng, temperature):
  entries, bank = random_bank(rng)
  anchors = rng.normal(size=(4, 3, 5)).astype(np.float32)
  exists = np.array([[True, True, True], [True, False, True], [False] * 3, [False, True, False]])
  value = contrast(
    jnp.array(anchors), jnp.array(exists), bank, temperature=temperature
  )
  expected = contrast_loop(anchors, exists, entries, temperature)
  np.testing.assert_allclose(value, expected, rtol=2e-4, atol=1e-5)
  assert value[2] == 0


def test_contrast_leaves_out_a_class_that_the_bank_lacks(rng):
  entries, bank = random_bank(rng, counts=(3, 0, 2))
  anchors = rng.normal(size=(2, 3, 5)).astype(np.float32)
  exists = np.ones((2, 3), bool)
  value = contrast(jnp.array(anchors), jnp.array(exists), bank, temperature=0.5)
  np.testing.assert_allclose(value, contrast_loop(anchors, exists, entries, 0.5), rtol=1e-4)


def test_contrast_of_an_empty_bank_is_zero_with_finite_gradients(rng):
  _, bank = random_bank(rng, counts=(0, 0, 0))
  anchors = jnp.array(rng.normal(size=(2, 3, 5)), jnp.float32)
  exists = jnp.ones((2, 3), bool)
  value = contrast(anchors, exists, bank, temperature=0.07)
  gradient = jax.grad(
    lambda a: jnp.sum(contrast(a, exists, bank, temperature=0.07))
  )(anchors)
  np.testing.assert_array_equal(value, 0.0)
  np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("exist", [True, False])
def test_contrast_of_zero_anchors_has_finite_gradients(rng, exist):
  _, bank = random_bank(rng)
  gradient = jax.grad(
    lambda a: jnp.sum(contrast(a, jnp.full((2, 3), exist), bank, temperature=0.07))
  )(jnp.zeros((2, 3, 5)))
  assert np.all(np.isfinite(gradient))
  assert np.any(gradient != 0) == exist


def test_contrast_draws_anchors_to_their_class_and_leaves_the_bank_alone(rng):
  _, bank = random_bank(rng)
  anchors = jnp.array(rng.normal(size=(2, 3, 5)), jnp.float32)
  exists = jnp.ones((2, 3), bool)

  def total(anchors, features):
    changed = bank.replace(features=features)
    return jnp.sum(contrast(anchors, exists, changed, temperature=0.07))

  to_anchors, to_bank = jax.grad(total, argnums=(0, 1))(anchors, bank.features)
  np.testing.assert_array_equal(to_bank, 0.0)
  moved = total(anchors - 1e-3 * to_anchors, bank.features)
  assert moved < total(anchors, bank.features)


def test_consistency_by_hand():
  activation = jnp.array([[[[0.0, 1.0], [0.5, 0.5]]], [[[1.0, 1.0], [1.0, 1.0]]]])
  guided = jnp.array([[[[0.2, 0.4], [0.5, 1.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
  np.testing.assert_allclose(
    losses.consistency(activation, guided), [(0.2 + 0.6 + 0.0 + 0.5) / 4, 0.0], rtol=1e-6
  )


def test_negative_pixels_by_hand():
  # Two classes; softplus(0) = log 2, softplus(log 3) = log 4. Affirmed classes do not count.
  logits = jnp.array([[[[0.0, 9.0], [math.log(3), 9.0]]]] * 3)
  labels = jnp.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
  mean = (LOG2 + math.log(4)) / 2
  expected = [mean / 2, 0.0, (mean + np.logaddexp(0, 9.0)) / 2]
  np.testing.assert_allclose(losses.negative_pixels(logits, labels), expected, rtol=1e-6)


def test_drawn_pixels_by_hand():
  """One row of two cells, of 2 x 2 pixels each; logits of log 3 and of 0."""
  logits = jnp.array([[[[math.log(3)], [0.0]]]] * 4)
  masks = jnp.array([
    [[1, 1, 0, 255], [1, 1, 255, 255]], [[0, 0, 255, 255], [1, 255, 255, 255]],
    [[0] * 4] * 2, [[255] * 4] * 2,
  ], jnp.uint8)
  labels = jnp.array([[1.0], [1.0], [0.0], [1.0]])
  right, wrong = math.log(4 / 3), math.log(4)  # Of the cell with a logit of log 3.
  # A whole cell and a quarter; three quarters, which count as a whole cell; no class; nothing known.
  expected = [(right + LOG2 / 4) / 1.25, wrong / 2 + right / 4, 0.0, 0.0]
  np.testing.assert_allclose(losses.drawn_pixels(logits, masks, labels), expected, rtol=1e-5)


def test_drawn_pixels_of_one_class_deny_the_others():
  logits = jnp.array([[[[math.log(3), 0.0]]]])
  value = lambda number, label: losses.drawn_pixels(
    logits, jnp.full((1, 2, 2), number, jnp.uint8), jnp.array([label])
  )[0]
  np.testing.assert_allclose(value(1, [1.0, 1.0]), (math.log(4 / 3) + LOG2) / 2, rtol=1e-5)
  np.testing.assert_allclose(value(2, [1.0, 0.0]), math.log(4) / 2, rtol=1e-5)


def test_cells_need_not_divide_a_mask():
  masks = jnp.array([[[1, 1, 1, 0, 0]] * 5], jnp.uint8)
  of_class, other = losses.known_shares(masks, (2, 2), 1)
  np.testing.assert_allclose(of_class[0, :, :, 0], [[1, 1 / 3]] * 2, atol=1e-6)
  np.testing.assert_allclose(of_class + other, 1.0)


def test_segmentation_ignores_unknown_pixels():
  masks = jnp.array([[[0, 1], [255, 1]], [[255, 255], [255, 255]]], jnp.uint8)
  logits = jnp.array([[[0.0, math.log(3)], [50.0, -math.log(3)]], [[9.0, 9.0], [9.0, 9.0]]])
  value = losses.segmentation(logits[..., None], masks, masks != 255)
  np.testing.assert_allclose(value, [(LOG2 + math.log(4 / 3) + math.log(4)) / 3, 0.0], rtol=1e-6)


def test_segmentation_tells_classes_apart():
  logits = jnp.full((1, 1, 2, 2), math.log(3))
  masks = jnp.array([[[1, 2]]])
  value = losses.segmentation(logits.at[0, 0, 0, 1].set(0.0), masks, masks > 0)
  # Pixel 0: class 1 right, class 2 even; pixel 1: class 1 wrong, class 2 right.
  expected = ((math.log(4 / 3) + LOG2) + (math.log(4) + math.log(4 / 3))) / 4
  np.testing.assert_allclose(value, [expected], rtol=1e-6)


def test_every_term_is_one_number_an_image(rng):
  """Each image's number is the same alone as in company: a batch may be split."""
  _, bank = random_bank(rng, counts=(4, 2), width=3)
  draw = lambda *shape: jnp.array(rng.normal(size=(5, *shape)), jnp.float32)
  labels = jnp.array([[1.0], [0.0], [1.0], [0.0], [1.0]])
  masks = jnp.array(rng.integers(0, 2, (5, 4, 4)))
  exists = jnp.concatenate([jnp.ones((5, 1)), labels], axis=1) > 0
  terms = [
    (losses.classification, (draw(1), labels)),
    (lambda a, e: contrast(a, e, bank, temperature=0.1), (draw(2, 3), exists)),
    (losses.consistency, (draw(4, 4, 2), draw(4, 4, 2))),
    (losses.negative_pixels, (draw(4, 4, 1), labels)),
    (losses.segmentation, (draw(4, 4, 1), masks, masks >= 0)),
  ]
  for term, arrays in terms:
    term = jax.jit(term)
    whole = term(*arrays)
    assert whole.shape == (5,)
    alone = [term(*(a[i : i + 1] for a in arrays))[0] for i in range(5)]
    np.testing.assert_allclose(whole, alone, rtol=1e-5, atol=1e-6)

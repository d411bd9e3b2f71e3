"""Score maps and the thresholds that no mask is needed for."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from lgag_jax import config as configs
from lgag_jax.evaluation import colour_index, metrics, threshold_rules
from lgag_jax.evaluation.index_rule import ColourIndex
from lgag_jax.inference import localize
from lgag_jax.method import head, memory_bank
from lgag_jax.method import network as networks
from lgag_jax.method.method import Outputs
from lgag_jax.runtime import sharding
from lgag_jax.training import optimizer, train_step


@pytest.fixture
def config(small_config):
  return configs.from_mapping(small_config)


def outputs(guided, logits):
  return Outputs(
    scores=jnp.zeros((1, 1)), logits=logits, activation=guided, seeds=jnp.zeros((1, 1, 2), int),
    anchors=jnp.zeros((1, 2, 4)), exists=jnp.ones((1, 2), bool), guided=guided, fused_logits=logits,
  )


def with_localize(config, **changes):
  return dataclasses.replace(config, localize=dataclasses.replace(config.localize, **changes))


def test_guided_score_compares_with_the_background(config):
  guided = jnp.array([[[[0.2, 0.8], [1.0, 0.0]]]])  # Background, class.
  found = outputs(guided, jnp.zeros((1, 1, 2, 1)))
  scores = head.guided_scores(found, with_localize(config, blend=0.0))
  np.testing.assert_allclose(scores[0, 0, :, 0], [0.8, 0.0], atol=1e-6)


def test_the_fused_activation_joins_the_blend_where_it_is_trained(config):
  guided = jnp.array([[[[0.5, 0.5], [0.5, 0.5]]]])
  found = outputs(guided, jnp.zeros((1, 1, 2, 1)))
  found = found.replace(fused_logits=jnp.array([[[[0.0], [2.0]]]]))
  config = with_localize(config, blend=1.0)
  scores = head.fused_guided_scores(found, config)[0, 0, :, 0]
  np.testing.assert_allclose(scores, np.sqrt(0.5 / (1 + np.exp([0.0, -2.0]))), atol=1e-6)
  untrained = dataclasses.replace(config, loss=dataclasses.replace(config.loss, auxiliary_weight=0.0))
  np.testing.assert_allclose(head.fused_guided_scores(found, untrained), 0.5, atol=1e-6)


def test_blend_is_a_geometric_mean(config):
  guided = jnp.array([[[[0.0, 1.0], [0.5, 0.5]]]])
  found = outputs(guided, jnp.array([[[[0.0], [2.0]]]]))
  scores = head.guided_scores(found, with_localize(config, blend=0.5))[0, 0, :, 0]
  sigmoid = 1 / (1 + np.exp(-2.0))
  np.testing.assert_allclose(scores, [np.sqrt(0.5), np.sqrt(0.5 * sigmoid)], atol=1e-6)


@functools.cache
def trained(config):
  mesh = sharding.make_mesh()
  network = networks.build(config)
  transform = optimizer.make_optimizer(config, 1)
  return mesh, network, train_step.init_state(network, config, transform, mesh)


def test_maps_have_the_images_size_at_every_scale(config):
  mesh, network, state = trained(config)
  config = with_localize(config, scales=(0.5, 1.5))
  maps = jax.eval_shape(
    localize.make_localize(network, config, mesh), state, {"image": jnp.zeros((4, 64, 64, 3))}
  )
  assert [x.shape for x in maps.scores.values()] == [(4, 64, 64, 1)] * 2


def test_gate_blackens_what_the_scores_deny(config):
  maps = localize.Maps(
    probabilities=jnp.array([[0.4], [0.6]]), scores={"class_activation": jnp.ones((2, 2, 2, 1))},
    seeds=jnp.zeros((2, 1, 1), int),
  )
  gated = localize.gated(maps, "class_activation", config)
  assert gated[0].max() == 0.0
  assert gated[1].min() == 1.0


def test_thresholds_never_see_a_mask_and_follow_their_rules(config):
  """Scores of negative images are uniform below 0.8; those of positive images split at 0.5."""
  random = np.random.default_rng(0)
  quiet = random.uniform(0.0, 0.8, (2, 32, 32, 1))
  slide = np.where(random.uniform(size=(2, 32, 32, 1)) < 0.3, 0.9, 0.1)
  scores = jnp.asarray(np.concatenate([quiet, slide]), jnp.float32)
  maps = localize.Maps(
    probabilities=jnp.array([[0.1], [0.1], [0.9], [0.9]]), seeds=jnp.zeros((4, 2, 2), int),
    scores={"class_activation": scores, "anchor_guided": scores},
  )
  batch = {
    "image": np.zeros((4, 8, 8, 3), np.float32), "weight": np.ones(4, np.float32),
    "label": np.array([[0], [0], [1], [1]], np.float32),
  }
  batches = (b for b in [batch])
  config = with_localize(config, agreement_fraction=0.2)
  found = threshold_rules.thresholds(lambda *_: maps, None, batches, sharding.make_mesh(), config)
  rules = found["class_activation"]
  assert 0.1 < rules["otsu"][0] < 0.9
  assert found["anchor_guided"]["argmax"] == [0.5]
  # Midway between 0.64, which a fifth of a quiet image exceeds, and the slides' 0.9.
  assert rules["agreement"][0] == pytest.approx(0.77, abs=0.02)


def literal_agreement(scores, labels, fractions, mapped=None):
  """Goes through all fractions and thresholds; `scores` and an index's maps are [n, h, w]."""
  levels, thresholds = np.sort(scores.reshape(len(scores), -1), axis=1), np.arange(1024) / 1024
  best = np.zeros((3, 1024))  # Of any fraction: balanced accuracy, sensitivity, specificity.
  for fraction in fractions:
    reached = levels[:, -max(1, int(np.ceil(fraction * levels.shape[1] - 1e-9)))]
    for i, threshold in enumerate(thresholds):
      called = reached >= threshold
      hit, rejected = called[labels].mean(), 1 - called[~labels].mean()
      if (hit + rejected) / 2 > best[0, i]:
        best[:, i] = (hit + rejected) / 2, hit, rejected
  top, variance = best[0].argmax(), 0.0
  for rate, count in zip(best[1:, top], (labels.sum(), (~labels).sum()), strict=True):
    rate = (rate * count + 1) / (count + 2)
    variance += rate * (1 - rate) / (count + 2)
  tolerated = 3 * np.sqrt(variance) / 2
  lack = (best[0, top] - best[0]) / tolerated
  cells = scores[labels].reshape(labels.sum(), 8, 4, 10, 4).mean((2, 4))
  angles = np.arcsin(np.sqrt(cells))
  steepness = np.hypot(*np.gradient(angles, axis=(1, 2)))
  means = []  # Weighted by the distance of a cell's angle to the threshold's.
  for threshold in thresholds:
    weights = np.exp(-0.5 * ((angles - np.arcsin(np.sqrt(threshold))) / 0.03) ** 2)
    means.append((weights * steepness).sum() / max(weights.sum(), 1e-9))
  result = np.log(np.array(means) + 1e-9) - lack**2 / 2
  if mapped is not None:
    share = mapped[labels].reshape(labels.sum(), 8, 4, 10, 4).mean((2, 4))
    weight = min(1, (tolerated / 0.11) ** 4)
    for i, threshold in enumerate(thresholds):
      above = cells >= threshold
      iou = share[above].sum() / (above.sum() + share[~above].sum())
      result[i] += weight * np.log(iou + 1e-9)
  return result


@pytest.mark.parametrize(("side", "index_side"), [(4, 0), (12, 0), (24, 0), (12, 12), (12, 20)])
def test_the_threshold_is_where_maps_are_steepest_and_labels_agree(config, side, index_side):
  """A landslide of 0.8 in a halo of 0.4, which labels alone cannot tell from the landslide.

  A colour index that maps the halo, too, lowers the threshold a little.
  """
  random = np.random.default_rng(3)
  images = 40
  labels = np.arange(images) % 2 == 0
  scores = random.uniform(0.1, 0.2, (images, 32, 40))
  scores[labels, : side + 8] += np.linspace(0.25, 0.15, side + 8)[:, None]
  scores[labels, :side] = random.uniform(0.75, 0.85, (labels.sum(), side, 40))
  scores = scipy.ndimage.gaussian_filter(scores, (0, 3, 3))  # Maps are smooth.
  maps = localize.Maps(
    probabilities=jnp.full((images, 1), 0.9), seeds=jnp.zeros((images, 2, 2), int),
    scores={
      name: jnp.asarray(scores[..., None], jnp.float32)
      for name in ("class_activation", "anchor_guided")
    },
  )
  batch = {
    "image": np.full((images, 32, 40, 3), 0.2, np.float32), "weight": np.ones(images, np.float32),
    "label": labels[:, None].astype(np.float32),
  }
  batch["image"][:, :index_side] = 0.8
  index = ColourIndex("brightness", 1, 0.5, 0.1)
  found = threshold_rules.thresholds(
    lambda *_: maps, None, (b for b in [batch]), sharding.make_mesh(), config,
    [index] if index_side else [],
  )["anchor_guided"]["agreement"][0]
  mapped = batch["image"][..., 0] > 0.5 if index_side else None
  literal = literal_agreement(scores, labels, colour_index.SHARES, mapped)
  assert literal[round(found * 1024)] >= literal.max() - 0.05
  assert 0.4 < found < 0.75


def test_an_index_counts_the_more_the_fewer_images_are_labelled():
  """The labels agree with every threshold, and the maps are steepest at the highest scores."""
  positive, negative, steep = np.ones((2, 1024)), np.zeros((2, 1024)), np.linspace(1.0, 3.0, 1024)
  negative[:, 0] = 1
  cells = np.ones(1024)
  index = np.where(np.arange(1024) > 512, 1.0, 0.0)
  threshold = lambda images, index: threshold_rules._agreement(
    positive * images, negative * images, steep, index, cells
  )
  assert threshold(5, np.zeros(1024)) > 0.9  # It maps nothing: it has no say.
  assert threshold(5, index) == pytest.approx(0.5, abs=0.05)
  assert threshold(5, index) < threshold(1000, index) < threshold(1000, np.zeros(1024))


def test_images_of_which_an_index_maps_too_little_count_as_unmapped(config):
  images = np.zeros((2, 16, 16, 3), np.float32)
  images[0, :8], images[1, :1] = 1.0, 1.0
  found = threshold_rules._index_maps(images, [ColourIndex("brightness", 1, 0.5, 0.1)], config)
  assert found.shape == (2, 4, 4, 1)
  np.testing.assert_array_equal(found[0, :, 0, 0], [1, 1, 0, 0])
  assert not found[1].any()


def test_few_images_leave_more_to_the_maps_than_many():
  """Nine of ten images: less than two standard errors below all, but not so of a thousand images."""
  positive, negative = np.zeros((2, 2, 1024))
  none, flat = np.zeros(1024), np.ones(1024)
  positive[:, 0] = negative[:, 0] = 10
  positive[0, 1:600], positive[1, 1:300], positive[1, 300:700] = 10, 9, 9
  steep = np.where(np.arange(1024) > 650, 2.0, 1.0)
  steep[900:] = 9.0
  assert 650 / 1024 < threshold_rules._agreement(positive, negative, steep, none, flat) < 700 / 1024
  many = 100.0
  assert threshold_rules._agreement(positive * many, negative * many, steep, none, flat) < 600 / 1024


def test_bank_makes_a_difference_once_it_is_ready(config):
  _, network, state = trained(config)
  random = np.random.default_rng(1)
  image = random.uniform(size=(4, 64, 64, 3)).astype(np.float32)
  size = (4, 2, state.bank.centres.shape[-1])
  bank = memory_bank.push(
    state.bank, jnp.array(random.normal(size=size), jnp.float32), jnp.ones((4, 2), bool)
  )
  ready = memory_bank.refresh(bank, config.bank)
  assert bool(ready.ready)
  gaa = jax.tree.map(lambda x: x + 0.05, state.params["head"]["gaa"])
  params = {**state.params, "head": {**state.params["head"], "gaa": gaa}}

  @jax.jit
  def run(params, statistics, bank):
    frozen = network.frozen(params, statistics, jnp.asarray(image))
    return network(params, statistics, frozen, bank, jnp.ones((4, 1)))

  before, after = (run(params, state.statistics, b) for b in (bank, ready))
  np.testing.assert_array_equal(before.activation, after.activation)
  assert not np.allclose(before.guided, after.guided, atol=1e-4)


def test_score_histogram_counts_every_pixel_once():
  scores = jnp.array([[[0.0, 0.5], [1.0, 0.25]]])
  counts = metrics.score_histogram(scores, jnp.ones(scores.shape, bool))
  assert counts.sum() == 4
  assert counts[0, metrics.BINS - 1] == 1  # 1.0 falls into the last bin.

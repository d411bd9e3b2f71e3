"""Score maps and the thresholds that no mask is needed for."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax import config as configs
from lgag_jax.evaluation import colour_index, metrics, threshold_rules
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
  found = threshold_rules.thresholds(lambda *_: maps, None, batches, sharding.make_mesh(), config)
  rules = found["class_activation"]
  assert 0.1 < rules["otsu"][0] < 0.9
  assert found["anchor_guided"]["argmax"] == [0.5]
  # Midway between 0.64, which a fifth of a quiet image exceeds, and the slides' 0.9.
  assert rules["agreement"][0] == pytest.approx(0.77, abs=0.02)


def literal_agreement(levels, labels, fractions):
  """Goes through all fractions and thresholds; `levels[i]` are the sorted scores of image i."""
  best = []
  for fraction in fractions:
    reached = np.array([s[-max(1, int(np.ceil(fraction * len(s) - 1e-9)))] for s in levels])
    rows = []
    for threshold in np.arange(1024) / 1024:
      called = reached >= threshold
      hit, rejected = called[labels].mean(), 1 - called[~labels].mean()
      error = np.sqrt(hit * (1 - hit) / labels.sum() + rejected * (1 - rejected) / (~labels).sum()) / 2
      rows.append(((hit + rejected) / 2, error))
    best.append(np.array(rows))
  top = max(range(len(best)), key=lambda f: best[f][:, 0].max())
  limit = best[top][:, 0].max() - 2 * best[top][best[top][:, 0].argmax(), 1]
  chosen = max(f for f in range(len(best)) if best[f][:, 0].max() >= limit - 1e-9)
  even = np.flatnonzero(best[chosen][:, 0] >= best[chosen][:, 0].max() - 1e-9)
  return fractions[chosen], even[len(even) // 2] / 1024


@pytest.mark.parametrize("covered", [0.01, 0.1, 0.4])
def test_labels_choose_the_fraction_that_landslides_cover(config, covered):
  """Negative images have single bright pixels; landslides are larger, in a dim and a bright half."""
  random = np.random.default_rng(3)
  images, pixels = 80, 1000
  labels = np.arange(images) % 2 == 0
  scores = random.uniform(0.0, 0.6, (images, pixels))
  scores[:, : int(covered * pixels / 2)] += 0.3 * (random.uniform(size=(images, 1)) < 0.8)
  slide = int(covered * pixels)
  scores[labels, :slide] = random.uniform(0.55, 0.95, (labels.sum(), slide))
  scores = np.floor(scores * 1024 + 0.5) / 1024 + 1 / 4096  # Inside a bin of the histograms.
  maps = localize.Maps(
    probabilities=jnp.full((images, 1), 0.9), seeds=jnp.zeros((images, 2, 2), int),
    scores={
      name: jnp.asarray(scores.reshape(images, 25, 40, 1), jnp.float32)
      for name in ("class_activation", "anchor_guided")
    },
  )
  batch = {
    "image": np.zeros((images, 8, 8, 3), np.float32), "weight": np.ones(images, np.float32),
    "label": labels[:, None].astype(np.float32),
  }
  found = threshold_rules.thresholds(
    lambda *_: maps, None, (b for b in [batch]), sharding.make_mesh(), config
  )
  fraction, threshold = literal_agreement(np.sort(scores, axis=1), labels, colour_index.SHARES)
  assert found["anchor_guided"]["agreement"][0] == pytest.approx(threshold, abs=1e-6)
  assert covered / 4 <= fraction <= 2 * covered


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

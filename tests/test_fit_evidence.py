"""How much a network's map counts: by what colours and the trunk's features say of left-out labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax import config as configs
from lgag_jax.evaluation import evaluate, fit_evidence, ranking
from lgag_jax.evaluation.index_rule import ColourIndex
from lgag_jax.inference import colour_evidence, colour_histograms
from lgag_jax.inference.colour_evidence import BINS, SHARES
from lgag_jax.inference.localize import Maps
from lgag_jax.inputs.split import Split
from lgag_jax.runtime import sharding
from tests.test_colour_evidence import blocks, evidence_of, slow_index


@pytest.mark.parametrize("labels", [
  np.float32([[1], [0]] * 10), np.float32([[0, 0], [1, 0], [1, 1], [0, 1], [1, 1]] * 7),
  np.float32([[1]] * 4 + [[0]] * 26),
])
def test_each_fold_has_its_share_of_every_kind_in_runs(labels):
  folds = fit_evidence.folds_of(labels)
  for kind in np.unique(labels, axis=0):
    of_kind = folds[(labels == kind).all(axis=1)]
    assert (np.diff(of_kind) >= 0).all()  # Neighbours stay together.
    counts = np.bincount(of_kind, minlength=3)
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(("trunk", "colours", "positives", "negatives", "weight"), [
  (0.93, 0.95, 40, 60, 0.2),  # Colours tell more than the trunk.
  (0.82, 0.78, 70, 30, 0.2),  # As much, within the error of so few images.
  (0.94, 0.82, 28, 72, 1.0),
  (0.94, 0.64, 52, 48, 1.0),
  (0.82, 0.78, 7000, 3000, 1.0),  # The same difference is certain of many images.
  (0.47, 0.60, 40, 4, 1.0),  # Neither tells anything.
])
def test_the_network_counts_less_where_colours_predict_as_well(
  trunk, colours, positives, negatives, weight
):
  assert fit_evidence._weight(trunk, colours, positives, negatives) == weight


def test_levels_are_those_of_a_sort_by_the_other_folds_colours(rng):
  image, given = blocks(rng, 4), evidence_of(rng, classes=2)
  counts = rng.random((3, 2, 2, BINS**3))
  fold = np.int32([2, 0, 1, 2])
  levels = jax.jit(fit_evidence._fold_levels(given, counts))
  value = np.asarray(levels(None, {"image": jnp.asarray(image)}, jnp.asarray(fold)))
  assert value.shape == (4, 2, len(SHARES))
  for i in range(4):
    of_others = sum(counts[k] for k in range(3) if k != fold[i])
    index = slow_index(image[i], given).ravel()
    for c in range(2):
      table = colour_histograms.conclude(given, of_others).log_ratio[c].ravel()
      ordered = np.sort(table[index])[::-1]
      for share, level in zip(SHARES, value[i, c], strict=True):
        assert level == pytest.approx(ordered[max(1, round(share * 64)) - 1], abs=1e-6)


def test_only_pairs_of_one_fold_are_compared():
  labels, folds = np.array([1, 0, 1, 0, 1, 0]), np.array([0, 0, 1, 1, 1, 2])
  scores = np.array([0.1, 0.0, 9.0, 8.0, 7.0, 99.0])
  assert ranking.area_within_folds(scores, labels, folds) == pytest.approx((1 + 1) / 3)
  assert ranking.area_within_folds(scores, np.ones(6), folds) == 0.5


@dataclasses.dataclass(frozen=True)
class Network:
  """Maps that know every label, and features that tell them where `informed` is set."""

  informed: bool
  evidence: object = None

  def frozen(self, params, statistics, image):
    return image

  def taps(self, params, statistics, image):
    red = image[:, ::16, ::16, :1]  # Of a corner pixel: see `examples`.
    return (red,) if self.informed else (red * 0,)


class Source:
  def __init__(self, labels):
    self.labels = labels


def examples(rng, colours_tell, count=60):
  """Images of which positives have a spot, reddish or not; the label is also in their corner pixels."""
  label = np.float32([[1], [0]] * (count // 2))
  image = rng.normal(0.4, 0.02, (count, 64, 64, 3)).astype(np.float32)
  spot = np.s_[20:36, 20:36]
  image[:, *spot, 0] += 0.2 * label[:, :, None] if colours_tell else 0.2 * rng.random((count, 1, 1))
  image[:, ::16, ::16, 0] = 0.3 + 0.1 * label[:, :, None]
  scores = np.full((count, 64, 64, 1), 0.02, np.float32)
  scores[:, *spot] = np.where(label > 0, 0.98, 0.02)[:, None, None]
  return {
    "image": image, "label": label, "weight": np.ones(count, np.float32), "index": np.arange(count),
    "scores": scores,
  }


@pytest.mark.parametrize(("colours_tell", "informed", "weight"), [
  (True, True, 0.2), (True, False, 0.2), (False, True, 1.0),
])
def test_a_network_s_weight_follows_what_the_labels_say(
  rng, monkeypatch, small_config, colours_tell, informed, weight
):
  config, batch = configs.from_mapping(small_config), examples(rng, colours_tell)
  maps = Maps(
    probabilities=batch["label"], seeds=None, scores={"anchor_guided": jnp.asarray(batch["scores"])}
  )
  monkeypatch.setattr(colour_histograms, "make_localize", lambda *_: lambda state, inputs: maps)
  monkeypatch.setattr(
    Split, "eval_batches", lambda self, config, at_most: (each for each in [batch])
  )
  state = dataclasses.make_dataclass("State", ["params", "statistics"])(0, 0)
  jax.tree_util.register_dataclass(type(state), ["params", "statistics"], [])
  found = fit_evidence.fit(
    Network(informed), state, Split(Source(batch["label"]), None, None), config,
    sharding.make_mesh(), [None],
  )
  assert found.network_weight.tolist() == [np.float32(weight)]
  doubtful = np.full((len(batch["label"]), 1), 0.5, np.float32)
  chances = np.asarray(found.image_probabilities(doubtful, batch["image"]))
  if weight == 1.0:
    np.testing.assert_array_equal(chances, doubtful)
  else:  # The colours know which images have the class.
    np.testing.assert_array_equal(chances > 0.5, batch["label"] > 0)


def test_weights_are_kept_and_older_evidence_has_none(rng, tmp_path, small_config):
  config, older = configs.from_mapping(small_config), colour_evidence.no_image_weights(1)
  for weight, of_images in ((0.2, older + 0.3), (0.2, older), (1.0, older)):
    evidence = evidence_of(rng, network_weight=np.float32([weight]), image_weights=of_images)
    evidence.save(tmp_path)
    loaded = colour_evidence.load(tmp_path, config, evidence.digest())
    assert loaded.network_weight == evidence.network_weight
    np.testing.assert_array_equal(loaded.image_weights, of_images)
  arrays = dict(np.load(tmp_path / colour_evidence.FILE))
  del arrays["network_weight"], arrays["image_weights"]  # As earlier releases wrote it.
  np.savez(tmp_path / colour_evidence.FILE, **arrays)
  loaded = colour_evidence.load(tmp_path, config, evidence.digest())
  assert loaded.network_weight == [1.0] and not loaded.image_weights.any()


def test_the_index_helps_to_choose_thresholds_where_colours_tell_as_much(rng):
  indices = [ColourIndex("brightness", 1, 0.5, 0.1), ColourIndex("excess green", -1, 0.1, 0.3)]
  some = evidence_of(rng, classes=2, network_weight=np.float32([1.0, 0.2]))
  assert evaluate.telling_indices(some, indices) == [None, indices[1]]
  pairs = dataclasses.replace(some, paired=True)
  standardised = dataclasses.replace(some, in_unit_range=False)
  for evidence in (None, pairs, standardised):  # The index is not one of their colours.
    assert not any(evaluate.telling_indices(evidence, indices))

"""Metrics against hand-made counts, pair counting and searches through every threshold."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax.evaluation import metrics, ranking
from lgag_jax.evaluation.metrics import BINS


def counts(tp, fp, fn, tn):
  return {"true_positive": tp, "false_positive": fp, "false_negative": fn, "true_negative": tn}


def random_histograms(rng):
  """Positive and negative pixels over all bins, most bins empty."""
  positive, negative = np.zeros(BINS), np.zeros(BINS)
  for histogram, low, high in ((positive, 300, 1000), (negative, 0, 800)):
    for _ in range(40):
      histogram[rng.integers(low, high)] += rng.integers(1, 50)
  return positive, negative


def test_rates_by_hand():
  value = metrics.rates(counts(6, 2, 4, 88))
  assert value["precision"] == pytest.approx(0.75)
  assert value["recall"] == pytest.approx(0.6)
  assert value["f1"] == pytest.approx(2 * 0.75 * 0.6 / 1.35)
  assert value["iou"] == pytest.approx(0.5)
  assert value["accuracy"] == pytest.approx(0.94)
  # Chance: both say landslide 8 % x 10 %, both say background 92 % x 90 %.
  chance = 0.08 * 0.10 + 0.92 * 0.90
  assert value["kappa"] == pytest.approx((0.94 - chance) / (1 - chance))
  assert (value["pixels"], value["landslide_pixels"]) == (100, 10)


def test_rates_pool_counts_before_dividing():
  pooled = metrics.rates(counts(np.array([1, 9]), np.array([1, 0]), np.array([0, 3]), [8, 8]))
  assert pooled == metrics.rates(counts(10, 1, 3, 16))


@pytest.mark.parametrize(
  "empty", [(0, 0, 0, 0), (0, 0, 0, 5), (0, 3, 0, 5), (0, 0, 3, 5), (7, 0, 0, 0)]
)
def test_rates_are_finite_without_pixels_of_a_kind(empty):
  assert all(math.isfinite(v) for v in metrics.rates(counts(*empty)).values())


def test_rates_of_large_counts_are_exact():
  value = metrics.rates(counts(*(np.int64(n) for n in (3 * 10**10, 10**10, 0, 10**12))))
  assert value["iou"] == pytest.approx(0.75, rel=1e-12)
  assert abs(value["kappa"]) <= 1


def test_histogram_counts_pixels_where_told():
  scores = jnp.array([[[0.0, 0.5], [1.0, 0.5]], [[0.25, 0.25], [0.25, 0.999999]]])
  where = jnp.array([[[True, True], [True, False]], [[True, True], [True, True]]])
  value = np.asarray(metrics.score_histogram(scores, where))
  assert value.shape == (2, BINS)
  assert {int(i): value[0, i] for i in np.flatnonzero(value[0])} == {0: 1, 512: 1, 1023: 1}
  assert {int(i): value[1, i] for i in np.flatnonzero(value[1])} == {256: 3, 1023: 1}


@pytest.mark.parametrize("threshold", [0.0, 1 / 1024, 0.25, 0.3, 0.5, 1023 / 1024, 1.0])
def test_confusion_against_pixels(rng, threshold):
  """Scores at the bins' starts, where the histogram loses nothing."""
  scores = rng.integers(0, BINS, size=(2, 20, 20)) / BINS
  truth = rng.uniform(size=scores.shape) < 0.3
  scores_f32 = jnp.array(scores, jnp.float32)
  positive = np.asarray(metrics.score_histogram(scores_f32, jnp.array(truth)))
  negative = np.asarray(metrics.score_histogram(scores_f32, jnp.array(~truth)))
  value = metrics.confusion(positive, negative, threshold)
  for image in range(2):
    called = scores[image] >= threshold
    assert value["true_positive"][image] == np.sum(called & truth[image])
    assert value["false_positive"][image] == np.sum(called & ~truth[image])
    assert value["false_negative"][image] == np.sum(~called & truth[image])
    assert value["true_negative"][image] == np.sum(~called & ~truth[image])


def test_oracle_against_every_threshold(rng):
  positive, negative = random_histograms(rng)
  threshold, value = metrics.oracle(positive, negative)
  best = 0.0
  for cut in range(BINS):
    tp, fp = positive[cut:].sum(), negative[cut:].sum()
    fn = positive[:cut].sum()
    best = max(best, tp / (tp + fp + fn))
  assert value["iou"] == pytest.approx(best, rel=1e-12)
  at = metrics.rates(metrics.confusion(positive, negative, threshold))
  assert at["iou"] == pytest.approx(best, rel=1e-12)


def test_oracle_without_positive_pixels():
  threshold, value = metrics.oracle(np.zeros(BINS), np.ones(BINS))
  assert 0 <= threshold <= 1
  assert value["iou"] == 0


def test_otsu_against_every_split(rng):
  positive, negative = random_histograms(rng)
  histogram = positive + negative
  centres = (np.arange(BINS) + 0.5) / BINS
  spreads = np.full(BINS + 1, -1.0)
  for cut in range(1, BINS):
    low, high = histogram[:cut], histogram[cut:]
    if low.sum() and high.sum():
      mean_low = (low * centres[:cut]).sum() / low.sum()
      mean_high = (high * centres[cut:]).sum() / high.sum()
      share = low.sum() / histogram.sum()
      spreads[cut] = share * (1 - share) * (mean_high - mean_low) ** 2
  cut = round(metrics.otsu(histogram) * BINS)
  assert spreads[cut] == pytest.approx(spreads.max(), rel=1e-9)


def test_otsu_cuts_in_the_middle_between_two_groups():
  histogram = np.zeros(BINS)
  histogram[[99, 100, 103]] = 5, 5, 2
  # Cuts before bins 101, 102 and 103 part the groups alike.
  assert metrics.otsu(histogram) == pytest.approx(102 / BINS, abs=1e-9)
  assert metrics.otsu(np.where(np.arange(BINS) < 512, 3.0, 3.0)) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("bins", [[], [17], [0], [BINS - 1]])
def test_otsu_of_one_group_or_none_is_a_threshold_all_the_same(bins):
  histogram = np.zeros(BINS)
  histogram[bins] = 3.0
  assert 0 <= metrics.otsu(histogram) <= 1


def pairs(scores, labels):
  """The share of pairs in the right order; a tie counts half."""
  won = [
    1.0 if p > n else 0.5 if p == n else 0.0
    for p in scores[labels > 0] for n in scores[labels == 0]
  ]
  return sum(won) / len(won)


def test_area_under_curve_counts_pairs(rng):
  labels = (rng.uniform(size=60) < 0.4).astype(np.float32)
  for scores in (rng.normal(size=60) + labels, rng.integers(0, 4, 60).astype(np.float32)):
    value = ranking.area_under_curve(scores, labels)
    assert value == pytest.approx(pairs(scores, labels), rel=1e-12)


def test_area_under_curve_ends():
  labels = np.array([0, 0, 1, 1])
  assert ranking.area_under_curve(np.array([0.1, 0.2, 0.3, 0.4]), labels) == 1.0
  assert ranking.area_under_curve(np.array([0.4, 0.3, 0.2, 0.1]), labels) == 0.0
  assert ranking.area_under_curve(np.full(4, 0.5), labels) == 0.5
  assert ranking.area_under_curve(np.ones(3), np.ones(3)) is None
  assert ranking.area_under_curve(np.ones(3), np.zeros(3)) is None


def test_image_rates_by_hand():
  probabilities = np.array([0.9, 0.5, 0.6, 0.1, 0.2, 0.8])
  labels = np.array([1, 1, 0, 0, 0, 1])
  value = metrics.image_rates(probabilities, labels, gate=0.5)
  # Called: images 0, 2 and 5. Exactly at the gate is not above it.
  assert value["accuracy"] == pytest.approx(4 / 6)
  assert value["f1"] == pytest.approx(2 / 3)
  assert value["auc"] == pytest.approx(8 / 9)
  assert (value["images"], value["false_alarms"], value["missed"]) == (6, 1, 1)


def calibration_by_loop(probabilities, labels):
  rows, error, brier = [], 0.0, 0.0
  for number in range(10):
    low, high = number / 10, (number + 1) / 10
    inside = [
      (float(p), float(y > 0)) for p, y in zip(probabilities, labels, strict=True)
      if low <= p < high or (number == 9 and p == 1.0)
    ]
    if inside:
      mean, share = (sum(column) / len(inside) for column in zip(*inside, strict=True))
      rows.append({"from": low, "images": len(inside), "probability": mean, "positive": share})
      error += len(inside) / len(labels) * abs(mean - share)
  for p, y in zip(probabilities, labels, strict=True):
    brier += (float(p) - float(y > 0)) ** 2 / len(labels)
  return {"expected_calibration_error": error, "brier": brier, "reliability": rows}


@pytest.mark.parametrize("power", [0.3, 1.0, 4.0])
def test_calibration_against_a_loop(rng, power):
  probabilities = np.concatenate([rng.uniform(size=80) ** power, [0.0, 1.0, 0.5]])
  labels = (rng.uniform(size=83) < probabilities).astype(np.float32)
  value, expected = (f(probabilities, labels) for f in (metrics.calibration, calibration_by_loop))
  for name in ("expected_calibration_error", "brier"):
    assert value[name] == pytest.approx(expected[name], abs=1e-12)
  for row, other in zip(value["reliability"], expected["reliability"], strict=True):
    assert row == pytest.approx(other, abs=1e-12)


def test_calibration_by_hand_and_in_any_order(rng):
  probabilities, labels = np.array([0.25, 0.25, 0.25, 0.25, 1.0, 1.0]), np.array([0, 1, 0, 0, 1, 0])
  value = metrics.calibration(probabilities, labels)
  assert value["reliability"] == [
    {"from": 0.2, "images": 4, "probability": 0.25, "positive": 0.25},
    {"from": 0.9, "images": 2, "probability": 1.0, "positive": 0.5},
  ]
  assert value["expected_calibration_error"] == pytest.approx(2 / 6 * 0.5)
  assert value["brier"] == pytest.approx((3 * 0.25**2 + 0.75**2 + 1) / 6)
  order = rng.permutation(6)
  assert metrics.calibration(probabilities[order], labels[order]) == value
  empty = {"expected_calibration_error": 0, "brier": 0, "reliability": []}
  assert metrics.calibration(np.zeros(0), np.zeros(0)) == empty


def test_image_rates_count_both_kinds_of_errors():
  value = metrics.image_rates(np.array([0.9, 0.2, 0.7, 0.1, 0.3]), np.array([1, 1, 0, 0, 0]), 0.5)
  assert (value["positives"], value["negatives"]) == (2, 3)
  assert (value["missed_rate"], value["false_alarm_rate"]) == (1 / 2, 1 / 3)
  one_kind = metrics.image_rates(np.array([0.9]), np.array([1]), 0.5)
  assert (one_kind["auc"], one_kind["false_alarm_rate"]) == (None, 0.0)


def pixels(mapped, truth=0, known=10_000):
  """An image of 100 x 100 pixels."""
  return {"mapped": mapped, "truth": truth, "known": known, "all": 10_000}


def coverage(*images):
  """Each image is its pixels, its label, and whether the classifier finds the class."""
  counts = {name: np.array([float(x[name]) for x, _, _ in images]) for name in pixels(0)}
  labels, found = (np.array([x[k] for x in images]) for k in (1, 2))
  return metrics.coverage(counts, labels, found > 0)


def test_coverage_counts_black_and_white_without_masks():
  value = coverage(
    (pixels(0, known=0), 1, 0), (pixels(9, known=0), 1, 1), (pixels(10, known=0), 1, 1),
    (pixels(8001, known=0), 1, 1), (pixels(300), 0, 0), (pixels(8001), 0, 1),
  )
  assert value == {
    "positive_images": 4, "black": 2, "black_denied": 1, "found_images": 4, "white": 2,
    "negative_share": pytest.approx(8301 / 20_000), "whole_image_iou": None,
  }


def test_coverage_knows_small_and_large_landslides_from_black_and_white():
  value = coverage((pixels(5, truth=6), 1, 1), (pixels(2, truth=6), 1, 1), (pixels(9999, 9500), 1, 1))
  assert (value["black"], value["white"], value["negative_share"]) == (1, 0, None)


def test_coverage_of_whole_images_against_pixels():
  # Two thirds of the first image are unknown; the last one's label denies what its mask shows.
  value = coverage((pixels(0, 1000, 3000), 1, 1), (pixels(0, 500), 1, 0), (pixels(0, 100), 0, 0))
  assert value["whole_image_iou"] == pytest.approx(1500 / (3000 + 10_000 + 100))

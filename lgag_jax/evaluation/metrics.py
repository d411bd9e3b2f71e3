"""Metrics from pixel counts and score histograms. The class is positive, the rest is negative.

Counts add up over images, batches and processes; ratios are taken at the end.
"""

from collections.abc import Mapping
from typing import Any, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lgag_jax.evaluation import ranking

BINS = 1024  # Of score histograms: the resolution of thresholds is about 0.001.
RELIABILITY_BINS = 10
# A map is black if a smaller share of its pixels is mapped: 8 x 8 pixels in 256 x 256.
BLACK_SHARE = 0.001
WHITE_SHARE = 0.8  # A map is white if a larger share of its pixels is mapped.


def score_histogram(
  scores: Float[Array, "B H W"], where: Bool[Array, "B H W"]
) -> Float[Array, "B bins"]:
  """Returns the number of pixels per image and score bin; scores lie in [0, 1]."""
  index = jnp.clip((scores * BINS).astype(jnp.int32), 0, BINS - 1)
  flat_index = index.reshape(index.shape[0], -1)
  flat_where = where.reshape(index.shape[0], -1).astype(jnp.float32)
  return jax.vmap(lambda i, w: jnp.zeros(BINS).at[i].add(w))(flat_index, flat_where)


def histogram_of(values: np.ndarray) -> np.ndarray:
  """Returns the histogram of all scores as `score_histogram` bins them; uint8 is percent."""
  if values.dtype == np.uint8:
    levels, counts = np.arange(101), np.bincount(values.ravel(), minlength=101)[:101]
    # No two levels share a bin.
    index = np.minimum(levels * BINS // 100, BINS - 1)
    return np.bincount(index, counts, minlength=BINS)
  index = np.clip((values.ravel() * BINS).astype(np.int32), 0, BINS - 1)
  return np.bincount(index, minlength=BINS).astype(np.float64)


def confusion(
  positive: np.ndarray, negative: np.ndarray, threshold: float
) -> dict[str, np.ndarray | np.floating]:
  """Returns counts at a threshold from histograms [..., bins] of positive and negative pixels.

  A pixel is called positive if its bin starts at or above the threshold.
  """
  cut = int(np.ceil(threshold * BINS - 1e-9))
  return {
    "true_positive": positive[..., cut:].sum(-1), "false_negative": positive[..., :cut].sum(-1),
    "false_positive": negative[..., cut:].sum(-1), "true_negative": negative[..., :cut].sum(-1),
  }


def rates(counts: Mapping[str, Any]) -> dict[str, float]:
  """Returns precision, recall, F1, IoU, accuracy and kappa of pooled counts; 0 if undefined."""
  tp, fp, fn, tn = (
    float(np.sum(counts[n]))
    for n in ("true_positive", "false_positive", "false_negative", "true_negative")
  )
  total = tp + fp + fn + tn
  accuracy = _ratio(tp + tn, total)
  chance = _ratio((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn), total * total)
  return {
    "precision": _ratio(tp, tp + fp), "recall": _ratio(tp, tp + fn),
    "f1": _ratio(2 * tp, 2 * tp + fp + fn), "iou": _ratio(tp, tp + fp + fn), "accuracy": accuracy,
    "kappa": _ratio(accuracy - chance, 1.0 - chance), "pixels": total, "landslide_pixels": tp + fn,
  }


def oracle(positive: np.ndarray, negative: np.ndarray) -> tuple[float, dict[str, float]]:
  """Returns the threshold with the highest pooled IoU, and its rates. It uses the masks."""
  # Counts at or above each bin's start.
  tp = np.cumsum(positive[::-1])[::-1]
  fp = np.cumsum(negative[::-1])[::-1]
  iou = tp / np.maximum(fp + positive.sum(), 1)
  best = int(np.argmax(iou)) / BINS
  return best, rates(confusion(positive, negative, best))


def otsu(histogram: np.ndarray) -> float:
  """Returns the threshold that separates the two groups of a histogram best (Otsu 1979)."""
  weights = histogram / max(histogram.sum(), 1.0)
  centres = (np.arange(BINS) + 0.5) / BINS
  below = np.cumsum(weights)
  mean_below = np.cumsum(weights * centres)
  mean = mean_below[-1]
  spread = (mean * below - mean_below) ** 2 / np.maximum(below * (1.0 - below), 1e-12)
  # Between the groups, the best splits often form a plateau. Take its middle.
  best = np.flatnonzero(spread >= spread.max() * (1 - 1e-9))
  return float(best.mean() + 1) / BINS


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> dict:
  """Returns how well probabilities [n] agree with labels [n].

  - expected_calibration_error (Naeini et al. 2015), over ten bins of equal width, in [0, 1];
  - brier, the Brier score (mean squared error), in [0, 1];
  - reliability, a row for each bin with images: its lower edge, the number of images, their mean
    probability and their share of positives.

  The result does not depend on the order of the images, not even in the last bit.
  """
  values, truth = np.asarray(probabilities, np.float64), np.asarray(labels) > 0
  order = np.lexsort((truth, values))
  values, truth = values[order], truth[order]
  index = np.minimum((values * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
  rows = []
  for number in np.unique(index):
    within = index == number
    rows.append({
      "from": number / RELIABILITY_BINS, "images": int(within.sum()),
      "probability": float(values[within].mean()), "positive": float(truth[within].mean()),
    })
  gaps = [row["images"] * abs(row["probability"] - row["positive"]) for row in rows]
  return {
    "expected_calibration_error": _ratio(sum(gaps), len(values)),
    "brier": _ratio(np.sum((values - truth) ** 2), len(values)), "reliability": rows,
  }


def image_rates(probabilities: np.ndarray, labels: np.ndarray, gate: float) -> dict:
  """Returns accuracy, F1, AUC, errors and calibration of one class; both arrays are [n].

  An image is called positive if its probability is above the gate. Calibration is rounded to three
  digits, because the last bits of probabilities depend on the number of devices.
  """
  called, truth = probabilities > gate, labels > 0
  tp, fp = np.sum(called & truth), np.sum(called & ~truth)
  fn, tn = np.sum(~called & truth), np.sum(~called & ~truth)
  calibrated = calibration(probabilities, labels)
  reliability = calibrated.pop("reliability")
  rows = [{name: round(value, 3) for name, value in row.items()} for row in reliability]
  return {
    "accuracy": _ratio(tp + tn, len(labels)), "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    "auc": ranking.area_under_curve(probabilities, labels),
    "images": len(labels), "positives": int(tp + fn),
    "negatives": int(fp + tn), "false_alarms": int(fp), "missed": int(fn),
    "false_alarm_rate": _ratio(fp, fp + tn), "missed_rate": _ratio(fn, tp + fn),
    **{name: round(value, 3) for name, value in calibrated.items()}, "reliability": rows,
  }


def coverage(counts: dict[str, np.ndarray], labels: np.ndarray, called_positive: np.ndarray) -> dict:
  """Returns how much of each image is mapped as one class.

  `counts` holds pixels, [n] each: "mapped" and "all", and of the masks "truth" and "known", which are
  0 for an image without a mask. `labels` and `called_positive`, by the classifier, are [n]. Returns

  - positive_images, by label; black, those with a black map; black_denied, the black ones that the
    classifier calls negative. A map as small as the landslides in the mask is not black;
  - found_images, which the classifier calls positive; white, those with a white map, except where
    landslides fill the image;
  - negative_share, the mapped share of all pixels of negative images; None without such images;
  - whole_image_iou, the pooled IoU if every positive image were mapped as a whole; None without masks.
  """
  positive = labels > 0
  share, truth = (counts[name] / np.maximum(counts["all"], 1) for name in ("mapped", "truth"))
  least = np.where(truth > 0, np.minimum(BLACK_SHARE, truth / 2), BLACK_SHARE)
  black = positive & (share < least)
  white = called_positive & (share > WHITE_SHARE) & (truth <= WHITE_SHARE)
  marked, landslides = counts["known"][positive].sum(), counts["truth"]
  elsewhere = landslides[~positive].sum()
  return {
    "positive_images": int(positive.sum()), "black": int(black.sum()),
    "black_denied": int((black & ~called_positive).sum()),
    "found_images": int(called_positive.sum()), "white": int(white.sum()),
    "negative_share": _ratio(counts["mapped"][~positive].sum(), counts["all"][~positive].sum())
    if np.any(~positive) else None,
    "whole_image_iou": _ratio(landslides[positive].sum(), marked + elsewhere)
    if landslides.sum() else None,
  }


def _ratio(numerator: SupportsFloat, denominator: SupportsFloat) -> float:
  return float(numerator) / float(denominator) if denominator else 0.0


def recall_by_size(landslides: np.ndarray, edges: tuple[int, ...]) -> list[dict]:
  """Returns, per size class, the number of landslides, the share at least half mapped, pixel recall.

  `landslides` is [n, 2] of (pixels, mapped pixels); `edges` are the lower bounds in pixels.
  """
  result = []
  for low, high in zip(edges, (*edges[1:], np.inf), strict=True):
    within = landslides[(landslides[:, 0] >= low) & (landslides[:, 0] < high)]
    result.append({
      "from_pixels": low, "landslides": len(within),
      "found": _ratio(np.sum(within[:, 1] * 2 >= within[:, 0]), len(within)),
      "pixel_recall": _ratio(within[:, 1].sum(), within[:, 0].sum()),
    })
  return result


def objects(
  landslides: np.ndarray, polygons: np.ndarray, least: float, edges: tuple[float | int, ...]
) -> dict:
  """Returns counts, areas and rates of mapped polygons against landslides, in total and by size.

  Both arrays are [n, 2] of (area, share): the share of a landslide that is mapped, and the share of a
  polygon that lies on landslides. A landslide with a share of at least `least` is detected. A polygon
  with a smaller share is a false alarm. `edges` are the lower bounds of areas. A rate is None if
  undefined.
  """
  total = _object_counts(landslides, polygons, least)
  recall = total["detected"] / total["landslides"] if total["landslides"] else None
  precision = total["on_landslides"] / total["polygons"] if total["polygons"] else None
  f1 = None
  if recall is not None and precision is not None:
    f1 = _ratio(2 * precision * recall, precision + recall)
  sizes = []
  for low, high in zip(edges, (*edges[1:], np.inf), strict=True):
    inside = [rows[(rows[:, 0] >= low) & (rows[:, 0] < high)] for rows in (landslides, polygons)]
    sizes.append({"from_area": low, **_object_counts(inside[0], inside[1], least)})
  return {"precision": precision, "recall": recall, "f1": f1, **total, "sizes": sizes}


def _object_counts(landslides: np.ndarray, polygons: np.ndarray, least: float) -> dict:
  counts, areas = {}, {}
  for rows, names in (
    (landslides, ("landslides", "detected", "missed")),
    (polygons, ("polygons", "on_landslides", "false_alarms")),
  ):
    enough = rows[:, 1] >= least
    for name, selected in zip(names, (np.full(len(rows), True), enough, ~enough), strict=True):
      counts[name] = int(selected.sum())
      # An area that could not be measured is NaN and belongs to no size class.
      areas[f"{name}_area"] = float(np.nansum(rows[selected, 0]))
  return counts | areas

"""Pixel counts, histograms of scores and what follows from them. Landslide is the positive class.

Counts are sums until the last line: they add up over images, batches and processes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

BINS = 1024  # Of score histograms: thresholds are known to a thousandth.
RELIABILITY_BINS = 10
# A map with less than this share of its pixels is all but empty: a square of 8 pixels in one of 256.
BLACK = 0.001
WHITE = 0.8  # With more than this it tells no part of the image from any other.


def score_histogram(
  scores: Float[Array, "B H W"], where: Bool[Array, "B H W"]
) -> Float[Array, "B bins"]:
  """Counts pixels a score bin, an image at a time; scores lie in [0, 1]."""
  index = jnp.clip((scores * BINS).astype(jnp.int32), 0, BINS - 1)
  flat_index = index.reshape(index.shape[0], -1)
  flat_where = where.reshape(index.shape[0], -1).astype(jnp.float32)
  return jax.vmap(lambda i, w: jnp.zeros(BINS).at[i].add(w))(flat_index, flat_where)


def histogram_of(values: np.ndarray) -> np.ndarray:
  """Counts scores a bin as `score_histogram` does, f64[bins]; those of uint8 are percent."""
  if values.dtype == np.uint8:
    levels, counts = np.arange(101), np.bincount(values.ravel(), minlength=101)[:101]
    # No two levels share a bin.
    index = np.minimum(levels * BINS // 100, BINS - 1)
    return np.bincount(index, counts, minlength=BINS)
  index = np.clip((values.ravel() * BINS).astype(np.int32), 0, BINS - 1)
  return np.bincount(index, minlength=BINS).astype(np.float64)


def confusion(
  positive: np.ndarray, negative: np.ndarray, threshold: float
) -> dict[str, np.ndarray]:
  """Counts at a threshold from histograms [..., bins] of truly positive and negative pixels.

  A pixel is called positive when its bin starts at or above the threshold.
  """
  cut = int(np.ceil(threshold * BINS - 1e-9))
  return {
    "true_positive": positive[..., cut:].sum(-1), "false_negative": positive[..., :cut].sum(-1),
    "false_positive": negative[..., cut:].sum(-1), "true_negative": negative[..., :cut].sum(-1),
  }


def rates(counts: dict[str, np.ndarray]) -> dict[str, float]:
  """Precision, recall, F1, IoU, accuracy and kappa of pooled counts; 0 where undefined."""
  tp, fp, fn, tn = (
    float(np.sum(counts[n]))
    for n in ("true_positive", "false_positive", "false_negative", "true_negative")
  )
  total = tp + fp + fn + tn
  accuracy = _ratio(tp + tn, total)
  chance = _ratio((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn), total * total)
  return {
    "precision": _ratio(tp, tp + fp), "recall": _ratio(tp, tp + fn),
    "f1": _ratio(2 * tp, 2 * tp + fp + fn), "iou": _ratio(tp, tp + fp + fn),
    "accuracy": accuracy, "kappa": _ratio(accuracy - chance, 1.0 - chance),
    "pixels": total, "landslide_pixels": tp + fn,
  }


def oracle(positive: np.ndarray, negative: np.ndarray) -> tuple[float, dict[str, float]]:
  """Returns the threshold of highest pooled IoU and its rates: it sees the masks, hence the name."""
  # Counts at or above each bin's start.
  tp = np.cumsum(positive[::-1])[::-1]
  fp = np.cumsum(negative[::-1])[::-1]
  iou = tp / np.maximum(fp + positive.sum(), 1)
  best = int(np.argmax(iou)) / BINS
  return best, rates(confusion(positive, negative, best))


def otsu(histogram: np.ndarray) -> float:
  """Returns the threshold between the two groups that a histogram splits into (Otsu 1979)."""
  weights = histogram / max(histogram.sum(), 1.0)
  centres = (np.arange(BINS) + 0.5) / BINS
  below = np.cumsum(weights)
  mean_below = np.cumsum(weights * centres)
  mean = mean_below[-1]
  spread = (mean * below - mean_below) ** 2 / np.maximum(below * (1.0 - below), 1e-12)
  # The best split is often a plateau between the groups: its middle.
  best = np.flatnonzero(spread >= spread.max() * (1 - 1e-9))
  return float(best.mean() + 1) / BINS


def quantile(histogram: np.ndarray, share: float) -> float:
  """Returns the lowest bin edge with at least `share` of a histogram below it."""
  cumulative = np.cumsum(histogram)
  index = int(np.searchsorted(cumulative, share * cumulative[-1] * (1 - 1e-12)))
  return min(index + 1, BINS - 1) / BINS


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float | None:
  """Area under the ROC curve of scores [n] for labels [n]; None when one kind is missing."""
  positive, negative = scores[labels > 0], scores[labels == 0]
  if not len(positive) or not len(negative):
    return None
  order = np.sort(negative)
  below = np.searchsorted(order, positive, "left") + np.searchsorted(order, positive, "right")
  return float(below.mean() / 2.0 / len(negative))


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> dict:
  """Compares probabilities [n] with labels [n]: 0 errors where every value is as often true as it says.

  Returns the expected calibration error (Naeini et al. 2015) over ten bins of equal width, the Brier
  score (mean squared error), both in [0, 1], and a row for each bin that holds images: its lower
  edge, images, their mean probability and the share of them that is positive. The order of the images
  changes no bit of it.
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
  """Image-level accuracy, F1, AUC, errors and calibration of one class; both arrays are [n].

  An image is called positive above the gate. Calibration is given to three digits: with the number of
  devices the last bits of probabilities change.
  """
  called, truth = probabilities > gate, labels > 0
  tp, fp = np.sum(called & truth), np.sum(called & ~truth)
  fn, tn = np.sum(~called & truth), np.sum(~called & ~truth)
  kept = calibration(probabilities, labels)
  rows = [{name: round(value, 3) for name, value in row.items()} for row in kept.pop("reliability")]
  return {
    "accuracy": _ratio(tp + tn, len(labels)), "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    "auc": area_under_curve(probabilities, labels), "images": len(labels),
    "positives": int(tp + fn), "negatives": int(fp + tn),
    "false_alarms": int(fp), "missed": int(fn),
    "false_alarm_rate": _ratio(fp, fp + tn), "missed_rate": _ratio(fn, tp + fn),
    **{name: round(value, 3) for name, value in kept.items()}, "reliability": rows,
  }


def coverage(counts: dict[str, np.ndarray], labels: np.ndarray, found: np.ndarray) -> dict:
  """Tells how much of single images is mapped, of one class.

  `counts` holds pixels, [n] each: "mapped" and "all"; "truth" and "known", of the masks, are 0 where
  there is none. `labels` and `found`, by the image classifier, are [n]. Returns

  - positive_images, and of them black, and of these black_denied, which the classifier denies. A map
    as small as the landslides on the mask is not black;
  - found_images, and of them white, but for those that the landslides fill;
  - negative_share of the pixels of images labelled negative that is mapped, None without such images;
  - whole_image_iou, pooled, of marking all of each image labelled positive, None without masks.
  """
  positive = labels > 0
  share, truth = (counts[name] / np.maximum(counts["all"], 1) for name in ("mapped", "truth"))
  black = positive & (share < np.where(truth > 0, np.minimum(BLACK, truth / 2), BLACK))
  white = found & (share > WHITE) & (truth <= WHITE)
  marked, landslides = counts["known"][positive].sum(), counts["truth"]
  elsewhere = landslides[~positive].sum()
  return {
    "positive_images": int(positive.sum()), "black": int(black.sum()),
    "black_denied": int((black & ~found).sum()),
    "found_images": int(found.sum()), "white": int(white.sum()),
    "negative_share": _ratio(counts["mapped"][~positive].sum(), counts["all"][~positive].sum())
    if np.any(~positive) else None,
    "whole_image_iou": _ratio(landslides[positive].sum(), marked + elsewhere)
    if landslides.sum() else None,
  }


def _ratio(numerator: float, denominator: float) -> float:
  return float(numerator) / float(denominator) if denominator else 0.0


def recall_by_size(landslides: list[np.ndarray], edges: tuple[int, ...]) -> list[dict]:
  """Returns, for each size class, landslides, the share at least half found, and pixel recall.

  `landslides` holds arrays [n, 2] of (pixels, pixels found); `edges` are lower bounds in pixels.
  """
  rows = np.concatenate(landslides) if landslides else np.zeros((0, 2))
  result = []
  for low, high in zip(edges, (*edges[1:], np.inf), strict=True):
    within = rows[(rows[:, 0] >= low) & (rows[:, 0] < high)]
    result.append({
      "from_pixels": low, "landslides": len(within),
      "found": _ratio(np.sum(within[:, 1] * 2 >= within[:, 0]), len(within)),
      "pixel_recall": _ratio(within[:, 1].sum(), within[:, 0].sum()),
    })
  return result


def objects(
  landslides: np.ndarray, polygons: np.ndarray, least: float, edges: tuple[float, ...]
) -> dict:
  """Judges mapped polygons against landslides, in all and by size; figures are None where undefined.

  Both are [n, 2] of (area, share): of a landslide the share that is mapped, of a polygon the share that
  lies on landslides. From `least` on a landslide is detected, and below it a polygon is a false alarm.
  `edges` are lower bounds of areas.
  """
  def count(rows: np.ndarray, names: tuple[str, str, str]) -> dict:
    enough = rows[:, 1] >= least
    kinds = zip(names, (np.ones(len(rows), bool), enough, ~enough), strict=True)
    # An area that could not be measured is NaN, and of no size.
    sums = {name: (int(kind.sum()), float(np.nansum(rows[kind, 0]))) for name, kind in kinds}
    return {n: c for n, (c, _) in sums.items()} | {f"{n}_area": a for n, (_, a) in sums.items()}

  def both(landslides: np.ndarray, polygons: np.ndarray) -> dict:
    return count(landslides, ("landslides", "detected", "missed")) | count(
      polygons, ("polygons", "on_landslides", "false_alarms")
    )

  total = both(landslides, polygons)
  recall = total["detected"] / total["landslides"] if total["landslides"] else None
  precision = total["on_landslides"] / total["polygons"] if total["polygons"] else None
  f1 = None if None in (recall, precision) else _ratio(2 * precision * recall, precision + recall)
  sizes = []
  for low, high in zip(edges, (*edges[1:], np.inf), strict=True):
    inside = [rows[(rows[:, 0] >= low) & (rows[:, 0] < high)] for rows in (landslides, polygons)]
    sizes.append({"from_area": low, **both(*inside)})
  return {"precision": precision, "recall": recall, "f1": f1, **total, "sizes": sizes}

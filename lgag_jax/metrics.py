"""Pixel counts, histograms of scores and what follows from them. Landslide is the positive class.

Counts are sums until the last line: they add up over images, batches and processes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

BINS = 1024  # Of score histograms: thresholds are known to a thousandth.


def score_histogram(
  scores: Float[Array, "B H W"], where: Bool[Array, "B H W"]
) -> Float[Array, "B bins"]:
  """Counts pixels a score bin, an image at a time; scores lie in [0, 1]."""
  index = jnp.clip((scores * BINS).astype(jnp.int32), 0, BINS - 1)
  flat_index = index.reshape(index.shape[0], -1)
  flat_where = where.reshape(index.shape[0], -1).astype(jnp.float32)
  return jax.vmap(lambda i, w: jnp.zeros(BINS).at[i].add(w))(flat_index, flat_where)


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


def image_rates(probabilities: np.ndarray, labels: np.ndarray, gate: float) -> dict[str, float]:
  """Image-level accuracy, F1 and AUC of one class; both arrays are [n]."""
  called, truth = probabilities > gate, labels > 0
  tp, fp = np.sum(called & truth), np.sum(called & ~truth)
  fn, tn = np.sum(~called & truth), np.sum(~called & ~truth)
  return {
    "accuracy": _ratio(tp + tn, len(labels)), "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    "auc": area_under_curve(probabilities, labels), "images": len(labels),
    "false_alarms": int(fp), "missed": int(fn),
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

"""How well scores rank images: the area under the ROC curve, and its standard error.

Imports no JAX: the page of --mode=label starts without it.
"""

import numpy as np


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float | None:
  """Returns the area under the ROC curve of scores [n]; None unless labels [n] have both values."""
  positive, negative = scores[labels > 0], scores[labels == 0]
  if not len(positive) or not len(negative):
    return None
  order = np.sort(negative)
  below = np.searchsorted(order, positive, "left") + np.searchsorted(order, positive, "right")
  return float(below.mean() / 2.0 / len(negative))


def auc_error(auc: float, positives: int, negatives: int) -> float:
  """Returns the standard error of an area under the ROC curve (Hanley and McNeil 1982)."""
  auc = max(auc, 0.5)
  first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
  spread = auc * (1 - auc) + (positives - 1) * (first - auc**2) + (negatives - 1) * (second - auc**2)
  return float(np.sqrt(max(spread, 0.0) / positives / negatives))

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


def area_within_folds(scores: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> float:
  """Returns the area under the ROC curve over pairs of the same fold, i[n] from 0; 0.5 without any.

  Scores of different folds are not compared: a positive image left out lowers the scores of its fold.
  """
  total, pairs = 0.0, 0
  for fold in range(folds.max() + 1):
    here = folds == fold
    count = np.count_nonzero(labels[here]) * np.count_nonzero(labels[here] == 0)
    total += count * (area_under_curve(scores[here], labels[here]) or 0.0)
    pairs += count
  return float(total / pairs) if pairs else 0.5


def smoothed(auc: float, positives: int, negatives: int) -> float:
  """Returns an area with one pair of each order added, so that its error is above 0 for 1, too."""
  pairs = positives * negatives
  return (auc * pairs + 1) / (pairs + 2)


def auc_error(auc: float, positives: int, negatives: int) -> float:
  """Returns the standard error of an area under the ROC curve (Hanley and McNeil 1982)."""
  auc = max(auc, 0.5)
  first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
  spread = auc * (1 - auc) + (positives - 1) * (first - auc**2) + (negatives - 1) * (second - auc**2)
  return float(np.sqrt(max(spread, 0.0) / positives / negatives))

"""A small logistic regression from an image's features to its label, and the estimate of its quality.

Imports no JAX: the page of --mode=label starts without it.
"""

import dataclasses

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from threadpoolctl import threadpool_limits

from lgag_jax.evaluation import ranking

_PENALTY = 0.003  # On the squared length of the weights.
_FOLDS = 5
LEAST = 3  # Answers of each kind, to learn from.
LEAST_AT_RANDOM = 5  # Answers of each kind to tiles drawn at random, to estimate with.
_EARLIER = 2 / 3  # The share of the answers that an earlier estimate is made with.
_RISE = 0.01  # An AUC that rises by less has stopped rising.


@dataclasses.dataclass(frozen=True)
class Estimate:
  """The cross-validated AUC on tiles drawn at random, its standard error, and that of fewer answers."""

  auc: float
  error: float
  earlier: float
  tiles: int

  @property
  def is_flat(self) -> bool:
    """Returns whether the last third of the answers has hardly changed the AUC."""
    return self.auc - self.earlier < _RISE


def fit(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns weights [D + 1] for features f32[n, D] and labels bool[n], of which both kinds occur.

  Both kinds count the same, so that 0.5 is as far from one as from the other.
  """
  positives = np.count_nonzero(labels)
  share = np.where(labels, 0.5 / positives, 0.5 / (len(labels) - positives))
  signs, count = np.where(labels, 1.0, -1.0), features.shape[1]

  def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
    margins = signs * (features @ weights[:-1] + weights[-1])
    slopes = -share * signs * expit(-margins)
    value = np.sum(share * np.logaddexp(0.0, -margins)) + _PENALTY * weights[:-1] @ weights[:-1]
    gradient = np.append(features.T @ slopes + 2 * _PENALTY * weights[:-1], slopes.sum())
    return value, gradient

  begin, options = np.zeros(count + 1), {"maxiter": 100}
  # Rows are few. More threads would wait for each other, on a busy processor for seconds.
  with threadpool_limits(1, "blas"):
    return minimize(loss, begin, jac=True, method="L-BFGS-B", options=options).x


def fit_unscaled(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns weights f64[D + 1] for features as they are; they are fitted on scaled ones."""
  scaler = Scaler(features)
  weights = fit(scaler(features), labels)
  of_features = weights[:-1] * scaler.factor
  return np.append(of_features, weights[-1] - of_features @ scaler.mean)


def chances(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Returns the chance of each tile to be positive, f64[n]."""
  return expit(features @ weights[:-1] + weights[-1])


class Scaler:
  """Gives features mean 0 and deviation 1 per column, divided by the root of the columns' number."""

  def __init__(self, sample: np.ndarray):
    values = sample.astype(np.float32)
    self.mean, spread = values.mean(axis=0), values.std(axis=0)
    self.factor = 1.0 / (np.where(spread > 0, spread, 1.0) * np.sqrt(values.shape[1]))

  def __call__(self, features: np.ndarray) -> np.ndarray:
    return (features.astype(np.float32) - self.mean) * self.factor


def estimate(features: np.ndarray, labels: np.ndarray, at_random: np.ndarray) -> Estimate | None:
  """Estimates the AUC on the tiles that were drawn at random; None if there are too few of them.

  Rows are in the order of the answers. Every tile is scored by weights that have not seen it: those of
  all other folds, and of the answers to tiles that were not drawn at random.
  """
  positives, negatives = int(np.sum(labels & at_random)), int(np.sum(~labels & at_random))
  if min(positives, negatives) < LEAST_AT_RANDOM:
    return None
  folds, count = np.full(len(labels), -1), min(_FOLDS, positives, negatives)
  for kind in (labels & at_random, ~labels & at_random):
    folds[kind] = np.arange(np.count_nonzero(kind)) % count
  early = np.arange(len(labels)) < round(_EARLIER * len(labels))
  value, earlier = (
    cross_validated_auc(features, labels, folds, use) for use in (np.ones(len(labels), bool), early)
  )
  smoothed = ranking.smoothed(value, positives, negatives)
  error = ranking.auc_error(smoothed, positives, negatives)
  return Estimate(value, error, earlier, positives + negatives)


def cross_validated_auc(
  features: np.ndarray, labels: np.ndarray, folds: np.ndarray, use: np.ndarray
) -> float:
  """Returns the image AUC over pairs of the same fold, fitted on `use` elsewhere.

  Features are f[n, D], labels bool[n], folds i[n], -1 for rows that are only fitted on, `use` bool[n].
  """
  margins = np.zeros(len(labels))  # Not chances, which may round to the same number.
  for fold in range(folds.max() + 1):
    here, elsewhere = folds == fold, use & (folds != fold)
    if labels[elsewhere].any() and not labels[elsewhere].all():
      weights = fit(features[elsewhere], labels[elsewhere])
      margins[here] = features[here] @ weights[:-1] + weights[-1]
  return ranking.area_within_folds(margins, labels, folds)

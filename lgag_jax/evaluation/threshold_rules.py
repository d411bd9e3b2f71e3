"""Thresholds from image labels alone: no rule here uses a mask.

The rule in use is localize.threshold_rule; "default" stands for the method's own (method/method.py).
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lgag_jax.config import Config
from lgag_jax.evaluation import metrics
from lgag_jax.evaluation.index_rule import ColourIndex
from lgag_jax.inference import colour_evidence
from lgag_jax.inference.colour_evidence import SHARES
from lgag_jax.inference.localize import Maps, inputs_of
from lgag_jax.method.method import ScoreMap
from lgag_jax.method.registry import method_of
from lgag_jax.runtime import preemption, sharding
from lgag_jax.state import TrainState

# What agreement may lack to the best before it weighs as much as sqrt(e) in steepness: standard errors
# of the best, but at least so much balanced accuracy, which another sample of places may well change.
_ERRORS, _LEAST_LACK = 3.0, 0.04
_LEAST_LACK_WITH_INDEX = 0.06  # Where a colour index has a say, too, the labels need not decide alone.
_LACK_OF_FEW = 0.11  # Where labels may lack so much, the index counts in full: of some 50 images.
_ANGLE = 0.01  # Width in radians of the bins of arcsin(sqrt(score)).
_SMOOTHING = 3.0  # Standard deviation, in those bins.
_EVEN_SCORE = 0.5  # Where the evidence for a class equals that for the background.


def thresholds(
  localize: Callable, state: TrainState, batches: Generator[dict, None, None], mesh: Mesh,
  config: Config, indices: Sequence[ColourIndex | None] = (),
) -> dict[str, dict[str, list[float]]]:
  """Returns {map: {rule: [threshold per class]}} from training images and their labels.

  `indices` are colour indices for some of the classes, which "agreement" asks, too; () for none.

  - "argmax": 0.5, where the evidence for the class equals that for the background. A class
    activation that is normalised by its image's maximum has no such point: Otsu's threshold takes its
    place;
  - "otsu": the split into two groups of the scores on images where the classifier finds the class;
  - "agreement": an image counts as positive if a fraction of its pixels scores above the threshold, and
    the labels say how well that agrees (balanced accuracy). With `localize.agreement_fraction` it is
    the threshold that agrees best. If that is 0, any of SHARES may be the fraction, and many
    thresholds agree nearly as well as the best. So the steepness of the maps of positive images counts
    too: at an outline scores change most. With a colour index, the IoU of its map and the network's on
    positive images counts, the more the fewer labels there are.
  """
  histograms = make_histograms(config, mesh)
  total: dict[str, Any] = {}
  for batch in preemption.until_stopped(batches):
    inputs = inputs_of(batch, config)
    labels = {name: batch[name] for name in ("label", "weight")}
    if any(indices):
      labels["index"] = _index_maps(batch["image"], indices, config)
    inputs, labels = sharding.to_global((inputs, labels), mesh)
    part = histograms(localize(state, inputs), labels)
    part = jax.tree.map(lambda x: np.asarray(x, np.float64), part)
    total = jax.tree.map(np.add, total, part) if total else part
  return {map_.name: _thresholds_by_rule(total[map_.name], map_) for map_ in method_of(config).maps}


def make_histograms(config: Config, mesh: Mesh) -> Callable[[Maps, dict], dict]:
  """Returns the jitted counts of a global batch's scores, summed over its images."""
  return jax.jit(
    lambda maps, batch: _histograms(maps, batch, config),
    out_shardings=sharding.replicated_sharding(mesh),
  )


def _histograms(maps: Maps, batch: dict, config: Config) -> dict:
  """Returns sums over images for each map, f32[C, bins] each. The batch's "index" may be missing.

  "present": counts of the scores on images where the classifier finds the class. "positive" and
  "negative", f32[C, fractions, bins]: images with and without the class that a threshold in that bin
  calls positive. "steepness", "index" and "cells": see `_of_cells`.
  """
  result = {}
  fraction = config.localize.agreement_fraction
  fractions = jnp.array((fraction,) if fraction else SHARES)[:, None]
  present = maps.probabilities > config.localize.gate
  for name, scores in maps.scores.items():
    scores = jnp.moveaxis(scores, -1, 1)  # B C H W
    flat = scores.reshape(-1, *scores.shape[2:])
    counts = metrics.score_histogram(flat, jnp.ones(flat.shape, bool))
    counts = counts.reshape(*scores.shape[:2], -1)  # B C bins
    above = jnp.cumsum(counts[..., ::-1], axis=-1)[..., None, ::-1]  # B C 1 bins
    called = above >= jnp.maximum(fractions * above[..., :1], 1.0)  # B C fractions bins
    label, weight = batch["label"], batch["weight"][:, None]
    # Sums and not products: a TPU would round the counts of a product's operands.
    result[name] = {
      **_of_cells(maps.scores[name], batch.get("index"), label * weight),
      "present": jnp.sum(counts * (present * weight)[..., None], axis=0),
      "positive": jnp.sum(called * (label * weight)[..., None, None], axis=0),
      "negative": jnp.sum(called * ((1.0 - label) * weight)[..., None, None], axis=0),
    }
  return result


def _thresholds_by_rule(histogram: dict[str, np.ndarray], map_: ScoreMap) -> dict[str, list[float]]:
  otsu = [metrics.otsu(h) if h.sum() else _EVEN_SCORE for h in histogram["present"]]
  names = ("positive", "negative", "steepness", "index", "cells")
  classes = zip(*(histogram[name] for name in names), strict=True)
  return {
    "argmax": otsu if map_.normalised else [_EVEN_SCORE] * len(otsu), "otsu": otsu,
    "agreement": [_agreement(*counts) for counts in classes],
  }


def _of_cells(
  scores: Float[Array, "B H W C"], index: Float[Array, "B h w C"] | None, positive: Float[Array, "B C"]
) -> dict[str, Float[Array, "C bins"]]:
  """Returns sums over the cells of positive images by score: "steepness", "index" and "cells".

  Steepness is the gradient of arcsin(sqrt(score)), on whose scale a proportion varies alike everywhere.
  "index" is what the colour index maps of the cells, and "cells" their number.
  """
  cells = colour_evidence.cell_means(jnp.clip(scores, 0.0, 1.0))
  gradient = jnp.hypot(*jnp.gradient(jnp.arcsin(jnp.sqrt(cells)), axis=(1, 2)))
  number = jnp.clip((cells * metrics.BINS).astype(jnp.int32), 0, metrics.BINS - 1)
  weight = jnp.broadcast_to(positive[:, None, None, :], cells.shape)
  add = lambda i, w: jnp.zeros(metrics.BINS).at[i.ravel()].add(w.ravel())
  summed = lambda values: jax.vmap(add, in_axes=-1)(number, values * weight)
  index = jnp.zeros_like(cells) if index is None else index
  return {"steepness": summed(gradient), "index": summed(index), "cells": summed(jnp.ones_like(cells))}


def _index_maps(
  images: np.ndarray, indices: Sequence[ColourIndex | None], config: Config
) -> np.ndarray:
  """Returns the share of each cell that colour indices map, f32[B, h, w, C]; 0 for a class without.

  Images are f32[B, H, W, E] in [0, 1].
  """
  colours = images[..., np.array((*config.model.index_bands, *config.model.evidence_bands)) - 1]
  maps = [
    index.mapped(index.scores(colours)) if index else np.zeros(images.shape[:3], bool)
    for index in indices
  ]
  return np.asarray(colour_evidence.cell_means(jnp.stack(maps, axis=-1).astype(jnp.float32)))


def _agreement(
  positive: np.ndarray, negative: np.ndarray, steepness: np.ndarray, index: np.ndarray,
  cells: np.ndarray,
) -> float:
  """Returns the threshold where maps are steep and which agrees with the labels and a colour index.

  It is the highest of log(steepness) - (d / m)^2 / 2, where d is what balanced accuracy lacks to the
  best and m three standard errors of the best, or 0.04 if that is more. If the index maps anything, m
  is at least 0.06, and the log of the IoU of index and map is added, times (m / 0.11)^4 but at most
  once. Counts of images are f[fractions, bins], the sums over cells f[bins]. With one fraction it is
  the threshold that agrees best, and of equally good ones the middle one.
  """
  positives, negatives = positive[0, 0], negative[0, 0]
  if not positives or not negatives:
    return _EVEN_SCORE
  sensitivity, specificity = positive / positives, 1.0 - negative / negatives
  balanced = (sensitivity + specificity) / 2  # fractions bins
  best, highest = np.unravel_index(np.argmax(balanced), balanced.shape), balanced.max(axis=0)
  if len(balanced) == 1:
    equal = np.flatnonzero(highest >= highest.max() * (1 - 1e-9))
    return float(equal[len(equal) // 2]) / metrics.BINS
  error = np.sqrt(_variance(sensitivity[best], positives) + _variance(specificity[best], negatives)) / 2
  lack = max(_ERRORS * error, _LEAST_LACK_WITH_INDEX if index.any() else _LEAST_LACK)
  of_labels = -(((highest.max() - highest) / lack) ** 2) / 2
  of_index = min(1.0, (lack / _LACK_OF_FEW) ** 4) * _log_iou(index, cells)
  steep = np.log(_mean_by_angle(steepness, cells) + 1e-9)
  return float(np.argmax(steep + of_labels + of_index)) / metrics.BINS


def _log_iou(index: np.ndarray, cells: np.ndarray) -> np.ndarray:
  """Returns the log of the IoU of index and map at each threshold, f[bins]; 0 if the index is empty."""
  if not index.any():
    return np.zeros(len(index))
  both, mapped = (np.cumsum(x[::-1])[::-1] for x in (index, cells))
  return np.log(both / (mapped + index.sum() - both) + 1e-9)


def _mean_by_angle(total: np.ndarray, count: np.ndarray) -> np.ndarray:
  """Returns total / count, f[bins], smoothed on the scale of arcsin(sqrt(score)), at each threshold."""
  angle = lambda score: np.arcsin(np.sqrt(score)) / _ANGLE
  index = angle((np.arange(metrics.BINS) + 0.5) / metrics.BINS).astype(int)
  size = int(np.pi / 2 / _ANGLE) + 1
  smooth = lambda x: scipy.ndimage.gaussian_filter1d(np.bincount(index, x, size), _SMOOTHING)
  mean = smooth(total) / np.maximum(smooth(count), 1e-6)
  return np.interp(angle(np.arange(metrics.BINS) / metrics.BINS), np.arange(size) + 0.5, mean)


def _variance(rate: float, count: float) -> float:
  """Returns the variance of a rate over `count` images, with one of each outcome added.

  Without them a rate of 1 would have none, however few the images (Laplace's rule of succession).
  """
  rate = (rate * count + 1.0) / (count + 2.0)
  return rate * (1.0 - rate) / (count + 2.0)

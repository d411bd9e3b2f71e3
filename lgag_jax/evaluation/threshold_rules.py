"""Thresholds from image labels alone: no rule here uses a mask.

The rule in use is localize.threshold_rule; "default" stands for the method's own (method/method.py).
"""

import dataclasses
import pathlib
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lgag_jax.config import Config
from lgag_jax.evaluation import index_rule, metrics
from lgag_jax.evaluation.index_rule import ColourIndex
from lgag_jax.inference import colour_evidence
from lgag_jax.inference.colour_evidence import SHARES
from lgag_jax.inference.localize import Maps, inputs_of, map_names
from lgag_jax.method.method import ScoreMap
from lgag_jax.method.network import Network
from lgag_jax.method.registry import method_of
from lgag_jax.runtime import preemption, sealed_json, sharding
from lgag_jax.settings.maps import RULES
from lgag_jax.state import TrainState

# What agreement may lack to the best before it weighs as much as sqrt(e) in steepness: standard errors
# of the best, but at least so much balanced accuracy, which another sample of places may well change.
_ERRORS, _LEAST_LACK = 3.0, 0.04
_ANGLE = 0.01  # Width in radians of the bins of arcsin(sqrt(score)).
_SMOOTHING = 3.0  # Standard deviation, in those bins.
_EVEN_SCORE = 0.5  # Where the evidence for a class equals that for the background.


def thresholds(
  localize: Callable, state: TrainState, batches: Generator[dict, None, None], mesh: Mesh,
  config: Config,
) -> dict[str, dict[str, list[float]]]:
  """Returns {map: {rule: [threshold per class]}} from training images and their labels.

  - "argmax": 0.5, where the evidence for the class equals that for the background. A class
    activation that is normalised by its image's maximum has no such point: Otsu's threshold takes its
    place;
  - "otsu": the split into two groups of the scores on images where the classifier finds the class;
  - "agreement": an image counts as positive if a fraction of its pixels scores above the threshold, and
    the labels say how well that agrees (balanced accuracy). With `localize.agreement_fraction` it is
    the threshold that agrees best. If that is 0, any of SHARES may be the fraction, and many
    thresholds agree nearly as well as the best. So the steepness of the maps of positive images counts
    too: at an outline scores change most.
  """
  histograms = make_histograms(config, mesh)
  total: dict[str, Any] = {}
  for batch in preemption.until_stopped(batches):
    inputs = inputs_of(batch, config)
    inputs, labels = sharding.to_global((inputs, {k: batch[k] for k in ("label", "weight")}), mesh)
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
  """Returns sums over images for each map, f32[C, bins] each.

  "present": counts of the scores on images where the classifier finds the class. "positive" and
  "negative", f32[C, fractions, bins]: images with and without the class that a threshold in that bin
  calls positive. "steepness" and "cells": see `_steepness`.
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
    steepness, cells = _steepness(maps.scores[name], label * weight)
    # Sums and not products: a TPU would round the counts of a product's operands.
    result[name] = {
      "steepness": steepness, "cells": cells,
      "present": jnp.sum(counts * (present * weight)[..., None], axis=0),
      "positive": jnp.sum(called * (label * weight)[..., None, None], axis=0),
      "negative": jnp.sum(called * ((1.0 - label) * weight)[..., None, None], axis=0),
    }
  return result


def _thresholds_by_rule(histogram: dict[str, np.ndarray], map_: ScoreMap) -> dict[str, list[float]]:
  otsu = [metrics.otsu(h) if h.sum() else _EVEN_SCORE for h in histogram["present"]]
  names = ("positive", "negative", "steepness", "cells")
  classes = zip(*(histogram[name] for name in names), strict=True)
  return {
    "argmax": otsu if map_.normalised else [_EVEN_SCORE] * len(otsu), "otsu": otsu,
    "agreement": [_agreement(*counts) for counts in classes],
  }


def _steepness(
  scores: Float[Array, "B H W C"], positive: Float[Array, "B C"]
) -> tuple[Float[Array, "C bins"], Float[Array, "C bins"]]:
  """Returns the sum of gradients over the cells of positive images by score, and the number of cells.

  Gradients are of arcsin(sqrt(score)), on whose scale a proportion varies alike everywhere.
  """
  cells = colour_evidence.cell_means(jnp.clip(scores, 0.0, 1.0))
  gradient = jnp.hypot(*jnp.gradient(jnp.arcsin(jnp.sqrt(cells)), axis=(1, 2)))
  index = jnp.clip((cells * metrics.BINS).astype(jnp.int32), 0, metrics.BINS - 1)
  weight = jnp.broadcast_to(positive[:, None, None, :], cells.shape)
  add = lambda i, w: jnp.zeros(metrics.BINS).at[i.ravel()].add(w.ravel())
  over_classes = jax.vmap(add, in_axes=-1)
  return over_classes(index, gradient * weight), over_classes(index, weight)


def _agreement(
  positive: np.ndarray, negative: np.ndarray, steepness: np.ndarray, cells: np.ndarray
) -> float:
  """Returns the threshold where maps are steep and which agrees with the labels.

  It is the highest of log(steepness) - (d / m)^2 / 2, where d is what balanced accuracy lacks to the
  best and m three standard errors of the best, or 0.04 if that is more. Counts of images are
  f[fractions, bins], the sums over cells f[bins]. With one fraction it is the threshold that agrees
  best, and of equally good ones the middle one.
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
  disagreement = (highest.max() - highest) / max(_ERRORS * error, _LEAST_LACK)
  steep = np.log(_mean_by_angle(steepness, cells) + 1e-9)
  return float(np.argmax(steep - disagreement**2 / 2)) / metrics.BINS


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


def chosen_thresholds(thresholds: dict, config: Config) -> dict[str, list[float]]:
  """Returns each map's thresholds, one per class, by the rule in use."""
  rule = method_of(config).rule(config)
  return {name: rules[rule] for name, rules in thresholds.items()}


def load_thresholds(
  workdir: pathlib.Path, config: Config, *, step: int | None = None
) -> dict[str, list[float]]:
  """Returns each map's thresholds; raises FileNotFoundError when training has not finished.

  Raises ValueError when they belong to another step than the one given, or to a rule of an earlier
  release that chose other values than today's.
  """
  path = workdir / "thresholds.json"
  if not path.exists():
    raise FileNotFoundError(f"{path} is missing: let the training finish, or run --mode=eval.")
  content = _read(path, config)
  if step is not None and content["step"] != step:
    raise ValueError(f"{path} is of step {content['step']}, not {step}: run --mode=eval first.")
  maps = content["maps"].values()
  if any(rules.get("negatives", rules["argmax"]) != rules["argmax"] for rules in maps):
    raise ValueError(
      f"{path} has thresholds of the rule 'negatives', which only release 0.1.0 has, above those of "
      "'argmax': run --mode=eval to choose thresholds anew, or map with that release."
    )
  return chosen_thresholds(content["maps"], config)


def load_indices(workdir: pathlib.Path, config: Config) -> list[ColourIndex | None]:
  """Returns each class's colour index, None where labels chose none or a release kept none."""
  path = workdir / "thresholds.json"
  rules = _read(path, config).get("colour_index", [None] * len(config.data.classes))
  try:
    if not isinstance(rules, list) or len(rules) != len(config.data.classes):
      raise ValueError("it is not one rule per class")
    bands = len(config.model.evidence_bands)
    return [None if rule is None else index_rule.from_json(rule, bands) for rule in rules]
  except ValueError as error:
    raise ValueError(
      f"{path} is not what --mode=eval writes: run it again (its colour_index: {error})."
    ) from error


def with_evidence(network: Network, workdir: pathlib.Path, config: Config) -> Network:
  """Returns the network with the colour evidence that a workdir's thresholds were chosen with."""
  digest = _read(workdir / "thresholds.json", config).get("colour_evidence", "")
  return dataclasses.replace(network, evidence=colour_evidence.load(workdir, config, digest))


def _read(path: pathlib.Path, config: Config) -> dict:
  """Reads a step and, for every rule of every map, one threshold per class; ValueError if not."""
  content = sealed_json.read(path, "Run --mode=eval again.")
  names, classes = map_names(config), len(config.data.classes)
  faulty = f"{path} is not what --mode=eval writes: run it again"
  if not isinstance(content, dict) or not sealed_json.is_number(content.get("step"), 0, 1 << 62):
    raise ValueError(f"{faulty} (its step is not a number).")
  maps = content.get("maps")
  if not isinstance(maps, dict) or set(maps) != set(names):
    raise ValueError(f"{faulty} (its maps are not {', '.join(names)}).")
  for name in names:
    for rule in RULES:
      row = maps[name].get(rule) if isinstance(maps[name], dict) else None
      if not isinstance(row, list) or len(row) != classes:
        raise ValueError(f"{faulty} ({name}.{rule} is not one number per class).")
      for value in row:
        if not sealed_json.is_number(value, 0.0, 1.0):
          raise ValueError(f"{faulty} ({name}.{rule} contains {value!r}, not a number from 0 to 1).")
  if not isinstance(content.get("colour_evidence", ""), str):
    raise ValueError(f"{faulty} (colour_evidence is not text).")
  return content

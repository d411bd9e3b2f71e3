"""Thresholds from image labels alone: no rule here ever sees a mask."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.evaluation import metrics
from lgag_jax.inference.localize import Maps, inputs_of, maps_of
from lgag_jax.runtime import files, preemption, sharding
from lgag_jax.settings.maps import RULES
from lgag_jax.state import TrainState

_DRAW = 0.5  # Where a guided score finds class and background level.


def thresholds(
  localize: Callable, state: TrainState, batches: Iterator[dict], mesh: Mesh, config: Config
) -> dict[str, dict[str, list[float]]]:
  """Returns {map: {rule: [a threshold a class]}} from training images and their labels.

  - "negatives": the quantile `localize.negative_quantile` of the scores on images without the
    class, whose every pixel is known to be background; never under 0.5, a draw. A class
    activation normalised image by image says nothing on such images: Otsu's takes its place;
  - "otsu": the split into two groups of the scores on images where the classifier finds the class;
  - "argmax": 0.5, where the class draws level with the background; not for a normalised map either;
  - "agreement": where calling an image positive, because `localize.agreement_fraction` of its pixels
    score higher, agrees best with the labels (the mean of the shares of both kinds called rightly).
  """
  histograms = make_histograms(config, mesh)
  total = None
  for batch in preemption.until_stopped(batches):
    inputs = inputs_of(batch, config)
    inputs, labels = sharding.to_global((inputs, {k: batch[k] for k in ("label", "weight")}), mesh)
    part = histograms(localize(state, inputs), labels)
    part = jax.tree.map(lambda x: np.asarray(x, np.float64), part)
    total = part if total is None else jax.tree.map(np.add, total, part)
  return {name: _rules(total[name], name, config) for name in maps_of(config)}


def make_histograms(config: Config, mesh: Mesh) -> Callable[[Maps, dict], dict]:
  """Returns the jitted counts of a global batch's scores, summed over its images."""
  return jax.jit(
    lambda maps, batch: _histograms(maps, batch, config),
    out_shardings=sharding.replicated_sharding(mesh),
  )


def _histograms(maps: Maps, batch: dict, config: Config) -> dict:
  """Sums over images, f32[C, bins] each.

  Of scores where a class is "denied", and where it is "found"; of images with the class ("right") and
  without ("wrong") that a threshold in that bin still calls positive.
  """
  result = {}
  present = maps.probabilities > config.localize.gate
  for name, scores in maps.scores.items():
    scores = jnp.moveaxis(scores, -1, 1)  # B C H W
    flat = scores.reshape(-1, *scores.shape[2:])
    counts = metrics.score_histogram(flat, jnp.ones(flat.shape, bool))
    counts = counts.reshape(*scores.shape[:2], -1)  # B C bins
    above = jnp.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    called = above >= jnp.maximum(config.localize.agreement_fraction * above[..., :1], 1.0)
    label, weight = batch["label"], batch["weight"][:, None]
    # Sums and not products: a TPU would round the counts of a product's operands.
    summed = lambda values, of, weight=weight: jnp.sum(values * (of * weight)[..., None], axis=0)
    result[name] = {
      "denied": summed(counts, 1.0 - label), "found": summed(counts, present),
      "right": summed(called, label), "wrong": summed(called, 1.0 - label),
    }
  return result


def _rules(histogram: dict[str, np.ndarray], name: str, config: Config) -> dict[str, list[float]]:
  share = config.localize.negative_quantile
  otsu = [metrics.otsu(h) if h.sum() else _DRAW for h in histogram["found"]]
  normalised = name == "class_activation" and config.localize.class_activation == "normalised"
  negatives = [
    # A score under a draw says background, however rare it is on negatives.
    max(metrics.quantile(h, share), _DRAW) if h.sum() else _DRAW for h in histogram["denied"]
  ]
  return {
    "negatives": otsu if normalised else negatives,
    "otsu": otsu,
    "argmax": otsu if normalised else [_DRAW] * len(otsu),
    "agreement": [
      _agreement(right, wrong)
      for right, wrong in zip(histogram["right"], histogram["wrong"], strict=True)
    ],
  }


def _agreement(right: np.ndarray, wrong: np.ndarray) -> float:
  """Returns the threshold of the highest balanced accuracy of images; of equals the middle one."""
  if not right[0] or not wrong[0]:
    return _DRAW
  balanced = right / right[0] + 1.0 - wrong / wrong[0]
  best = np.flatnonzero(balanced >= balanced.max() * (1 - 1e-9))
  return float(best[len(best) // 2]) / metrics.BINS


def chosen_thresholds(thresholds: dict, config: Config) -> dict[str, list[float]]:
  """Returns each map's thresholds, one a class, by the configured rule."""
  return {name: rules[config.localize.threshold_rule] for name, rules in thresholds.items()}


def load_thresholds(
  workdir: pathlib.Path, config: Config, *, step: int | None = None
) -> dict[str, list[float]]:
  """Returns each map's thresholds; raises FileNotFoundError when training has not finished.

  Raises ValueError when they are those of another step than the one given.
  """
  path = workdir / "thresholds.json"
  if not path.exists():
    raise FileNotFoundError(f"{path} is missing: let the training finish, or run --mode=eval.")
  content = files.read_json(path)
  if not _are_thresholds(content, config):
    raise ValueError(f"{path} is not what --mode=eval writes: run it again.")
  if step is not None and content["step"] != step:
    raise ValueError(f"{path} is of step {content['step']}, not {step}: run --mode=eval first.")
  return chosen_thresholds(content["maps"], config)


def _are_thresholds(content: Any, config: Config) -> bool:
  """Whether JSON holds a step, and a list of one number a class for every rule of every map."""
  names, classes = maps_of(config), len(config.data.classes)
  try:
    rows = [content["maps"][name][rule] for name in names for rule in RULES]
    return "step" in content and set(content["maps"]) == set(names) and all(
      len(row) == classes and all(isinstance(value, int | float) for value in row) for row in rows
    )
  except (KeyError, TypeError):
    return False

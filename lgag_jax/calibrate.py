"""Thresholds from image labels alone: no rule here ever sees a mask."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lgag_jax import metrics, partition, preemption
from lgag_jax.config import Config
from lgag_jax.localize import MAPS, Maps
from lgag_jax.state import TrainState

RULES = ("negatives", "otsu", "argmax")
_DRAW = 0.5  # Where a guided score finds class and background level.


def thresholds(
  localize: Callable, state: TrainState, batches: Iterator[dict], mesh: Mesh, config: Config
) -> dict[str, dict[str, list[float]]]:
  """Returns {map: {rule: [a threshold a class]}} from training images and their labels.

  - "negatives": the quantile `localize.negative_quantile` of the scores on images without the
    class, whose every pixel is known to be background; for the guided map never under 0.5. A class
    activation normalised image by image says nothing on such images: Otsu's takes its place;
  - "otsu": the split into two groups of the scores on images where the classifier finds the class;
  - "argmax": 0.5, where the class draws level with the background; not for a normalised map either.
  """
  histograms = make_histograms(config, mesh)
  total = None
  for batch in preemption.until_stopped(batches):
    inputs = {name: batch[name] for name in ("taps", "image") if name in batch}
    inputs, labels = partition.to_global((inputs, {k: batch[k] for k in ("label", "weight")}), mesh)
    part = histograms(localize(state, inputs), labels)
    part = jax.tree.map(lambda x: np.asarray(x, np.float64), part)
    total = part if total is None else jax.tree.map(np.add, total, part)
  return {name: _rules(total[name], name, config) for name in MAPS}


def make_histograms(config: Config, mesh: Mesh) -> Callable[[Maps, dict], dict]:
  """Returns the jitted counts of a global batch's scores, summed over its images."""
  return jax.jit(
    lambda maps, batch: _histograms(maps, batch, config), out_shardings=partition.replicated(mesh)
  )


def _histograms(maps: Maps, batch: dict, config: Config) -> dict:
  """Sums over images: scores where a class is denied, and where it is found, f32[C, bins]."""
  result = {}
  present = maps.probabilities > config.localize.gate
  for name in MAPS:
    scores = jnp.moveaxis(getattr(maps, name), -1, 1)  # B C H W
    flat = scores.reshape(-1, *scores.shape[2:])
    counts = metrics.score_histogram(flat, jnp.ones(flat.shape, bool))
    counts = counts.reshape(*scores.shape[:2], -1)  # B C bins
    weight = batch["weight"][:, None]
    # Sums and not products: a TPU would round the counts of a product's operands.
    result[name] = {
      "denied": jnp.sum(counts * ((1.0 - batch["label"]) * weight)[..., None], axis=0),
      "found": jnp.sum(counts * (present * weight)[..., None], axis=0),
    }
  return result


def _rules(histogram: dict[str, np.ndarray], name: str, config: Config) -> dict[str, list[float]]:
  share = config.localize.negative_quantile
  # A guided score under a draw says background, however rare it is on negatives.
  least = _DRAW if name == "anchor_guided" else 0.0
  otsu = [metrics.otsu(h) if h.sum() else _DRAW for h in histogram["found"]]
  normalised = name == "class_activation" and config.localize.class_activation == "normalised"
  negatives = [
    max(metrics.quantile(h, share), least) if h.sum() else _DRAW for h in histogram["denied"]
  ]
  return {
    "negatives": otsu if normalised else negatives,
    "otsu": otsu,
    "argmax": otsu if normalised else [_DRAW] * len(otsu),
  }

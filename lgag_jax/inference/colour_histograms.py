"""Counts colours of labelled images by a network's maps of them: what colour evidence is made of."""

import dataclasses
import functools
from collections.abc import Generator, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.inference.colour_evidence import (
  BINS,
  COLOURS,
  EDGE,
  ColourEvidence,
  cell_means,
  colour_features,
  no_image_weights,
  parts,
)
from lgag_jax.inference.localize import inputs_of, main_map_name, make_localize
from lgag_jax.method import losses
from lgag_jax.method.network import Network
from lgag_jax.runtime import preemption, processes, sharding
from lgag_jax.state import TrainState

_SMOOTHING = 1.0  # Standard deviation in bins, of the histograms.
_RARE = 1e-7  # Share of a bin that no pixel was seen in.


class Prior(Protocol):
  """What is known of a class before any map is seen (evaluation/colour_index.py)."""

  @property
  def column(self) -> int:
    """The column of the colours that it is of, if it is that of a band beyond them; else 0."""
    ...

  def log_odds(self, colours: np.ndarray) -> np.ndarray:
    """Returns log odds f32[n] of colours f32[n, F] in [0, 1], in the order of the evidence's bands."""
    ...


def begin(
  batches: Generator[dict, None, None], config: Config, priors: Sequence[Prior | None]
) -> ColourEvidence:
  """Returns what is known before any map is seen: the range of the colours, and the priors.

  Priors do not apply to standardised images and to pairs.
  """
  bands = (*config.model.index_bands, *config.model.evidence_bands)
  unit_range = config.data.normalise == "trunk"
  paired = config.data.paired
  features = jax.jit(lambda image: colour_features(image, bands, unit_range, paired)[:, ::2, ::2])
  sample = [
    np.asarray(features(batch["image"]))[batch["weight"] > 0]
    for batch in preemption.until_stopped(batches)
  ]
  sample = processes.gather({"features": np.concatenate(sample).reshape(-1, len(bands))})["features"]
  low, high = np.quantile(sample, (0.002, 0.998), axis=0).astype(np.float32)
  high, classes = np.maximum(high, low + 1e-3), len(config.data.classes)
  of_parts = parts(bands)
  prior = np.zeros((classes, of_parts[-1].stop), np.float32)
  for c, given in enumerate(priors if unit_range and not paired else ()):
    if given:
      part, colours = of_parts[0], _bin_colours(low, high)
      if given.column:
        part, colours = of_parts[given.column - COLOURS + 1], np.zeros((BINS, len(bands)), np.float32)
        colours[:, given.column] = _centres(low, high)[given.column]
      prior[c, part] = given.log_odds(colours)
  weights = np.ones(classes, np.float32), no_image_weights(classes)
  return ColourEvidence(prior, *weights, low, high, bands, unit_range, paired)


def count(
  given: ColourEvidence, network: Network, state: TrainState,
  batches: Generator[dict, None, None], config: Config, mesh: Mesh, folds: np.ndarray,
) -> np.ndarray:
  """Returns counts of landslide and background colours, f64[folds, 2, C, K], of images by their fold.

  The map is the network's main one with what is given. `folds` are i[n] from 0, of the examples'
  numbers. No mask is read, unless the network has learned from drawn pixels.
  """
  network = dataclasses.replace(network, evidence=given)
  localize, name = make_localize(network, config, mesh), main_map_name(config)
  whole = sharding.replicated_sharding(mesh)
  add = jax.jit(functools.partial(_count, given), out_shardings=whole)
  total = np.zeros((folds.max() + 1, 2, *given.log_ratio.shape))
  for batch in preemption.until_stopped(batches):
    inputs = sharding.to_global(inputs_of(batch, config), mesh)
    scores = localize(state, inputs).scores[name]
    for fold, counts in enumerate(total):
      weight = batch["weight"] * (folds[batch["index"]] == fold)
      known = {"label": batch["label"], "weight": weight}
      if config.loss.drawn_pixel_weight:
        known["mask"] = batch["mask"]
      known = sharding.to_global(known, mesh)
      counts += np.asarray(
        add(scores, inputs["image"], known["label"], known["weight"], known.get("mask"))
      )
  return total


def conclude(given: ColourEvidence, counts: np.ndarray) -> ColourEvidence:
  """Returns what is given with the log ratio of the counts f64[2, C, K] added."""
  ratios = np.concatenate([
    [[_log_share(of_class) for of_class in kind] for kind in counts[..., part]]
    for part in parts(given.bands)
  ], axis=-1)
  log_ratio = given.log_ratio + np.float32(ratios[0] - ratios[1])
  return dataclasses.replace(given, log_ratio=log_ratio)


def _bin_colours(low: np.ndarray, high: np.ndarray) -> np.ndarray:
  """Returns red, green and blue of the bins' centres, f32[BINS^3, 3]: `colour_features` undone."""
  centres = _centres(low, high)[:COLOURS]
  red, blue, brightness = (x.ravel() for x in np.meshgrid(*centres, indexing="ij"))
  green = 3 * brightness / (np.exp(red) + 1.0 + np.exp(blue))
  colours = np.stack([green * np.exp(red), green, green * np.exp(blue)], axis=-1)
  return np.maximum(colours - 1 / 255, 0.0).astype(np.float32)


def _centres(low: np.ndarray, high: np.ndarray) -> np.ndarray:
  """Returns the centres of the bins of each feature, f64[F, BINS]."""
  return low[:, None] + (np.arange(BINS) + 0.5) / BINS * (high - low)[:, None]


def _count(evidence, scores, image, label, weight, mask):
  """Returns counts of landslide and background colours, f32[2, C, K], of a batch.

  Of bands beyond the colours, the background is what the map takes for a landslide on images without
  one: most other ground differs in colour already. What a mask u8[B, H, W] knows counts instead of the
  map; it may be None.
  """
  index = evidence.bin_index(image)
  mapped = jnp.clip(cell_means(scores), EDGE, 1.0 - EDGE)  # B h w C
  share = mapped * label[:, None, None, :]
  if mask is not None:
    of_class, other = losses.known_shares(mask, (share.shape[1], share.shape[2]), share.shape[3])
    share = of_class + (1.0 - of_class - other) * share
  false_alarms = jnp.maximum(mapped - share, 0.0)
  of_colours, of_bands = (
    jnp.stack([share, beside]) * weight[:, None, None, None] for beside in (1.0 - share, false_alarms)
  )  # 2 B h w C
  others = index.shape[-1] - 1

  def add(of_colours, of_bands):
    """Counts the cells, each in one bin of each part."""
    weights = [of_colours[..., None], jnp.repeat(of_bands[..., None], others, axis=-1)]
    empty = jnp.zeros(evidence.log_ratio.shape[1])
    return empty.at[index].add(jnp.concatenate(weights, axis=-1))

  return jax.vmap(jax.vmap(add, in_axes=-1))(of_colours, of_bands)


def _log_share(counts: np.ndarray) -> np.ndarray:
  """Returns the log of each bin's share, f64[n], of the counts of one histogram."""
  axes = (BINS, BINS, BINS) if len(counts) > BINS else (BINS,)
  smooth = scipy.ndimage.gaussian_filter(counts.reshape(axes), _SMOOTHING).ravel()
  return np.log(smooth / max(smooth.sum(), 1e-9) + _RARE)

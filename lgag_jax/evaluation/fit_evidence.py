"""Fits a network's colour evidence, and how much the network itself counts beside it.

A network that knows few images by heart is surer of any others than it should be. Only images that it
has not learned from could tell how far to trust it, at the price of more trainings. The features of its
trunk stand in for it: where colours predict the labels of left-out images as well as they do, the
network has little to add. Its log odds count a fifth, and colours decide which images hold the class.
"""

import dataclasses
import logging
from collections.abc import Callable, Generator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lgag_jax.config import Config
from lgag_jax.evaluation import image_classifier, ranking
from lgag_jax.inference import colour_histograms
from lgag_jax.inference.colour_evidence import ColourEvidence, no_image_weights, share_levels
from lgag_jax.inference.colour_histograms import Prior
from lgag_jax.inference.localize import inputs_of
from lgag_jax.inputs.split import Split
from lgag_jax.method.network import Network, full_precision
from lgag_jax.runtime import preemption, processes, sharding
from lgag_jax.state import TrainState
from lgag_jax.trunks.layers import pooled

_LOG = logging.getLogger(__name__)

_FEW = 500  # Training images. Of more, a network knows less by heart.
_FOLDS = 3
_LEAST = 6  # Images of each kind, to compare by.
_WEIGHT = 0.2  # Of the network's log odds where the colours predict the labels as well.
_SAMPLE = 64  # Images that the range of colours is taken from.


def fit(
  network: Network, state: TrainState, train: Split, config: Config, mesh: Mesh,
  priors: Sequence[Prior | None],
) -> ColourEvidence:
  """Returns the evidence of training images and labels; `priors` as in `colour_histograms.begin`.

  No mask is read, unless the network has learned from drawn pixels.
  """
  labels, at_most = train.source.labels, config.localize.calibration_images
  batches = lambda number: train.eval_batches(config, at_most=number)
  given = colour_histograms.begin(batches(_SAMPLE), config, priors)
  # What a network has learned from drawn pixels, image labels cannot tell.
  few = len(labels) <= (min(_FEW, at_most) if at_most else _FEW) and not config.loss.drawn_pixel_weight
  folds = folds_of(labels) if few else np.zeros(len(labels), int)
  counts = colour_histograms.count(given, network, state, batches(at_most), config, mesh, folds)
  if few:
    given = _weighed(network, state, batches, given, counts, folds, config, mesh)
    if (given.network_weight != 1.0).any():
      counts = colour_histograms.count(given, network, state, batches(at_most), config, mesh, folds)
  return colour_histograms.conclude(given, counts.sum(axis=0))


def folds_of(labels: np.ndarray) -> np.ndarray:
  """Returns the fold of each example, i64[n], of labels f32[n, C] of zeros and ones.

  Of the examples with the same labels, each fold has a run, since neighbours often look alike.
  """
  _, kinds, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
  kinds = kinds.reshape(-1)
  position = np.empty(len(labels), np.int64)
  position[np.argsort(kinds, kind="stable")] = np.concatenate([np.arange(count) for count in counts])
  return position * _FOLDS // counts[kinds]


def _weighed(
  network: Network, state: TrainState, batches: Callable[[int], Generator[dict, None, None]],
  given: ColourEvidence, counts: np.ndarray, folds: np.ndarray, config: Config, mesh: Mesh,
) -> ColourEvidence:
  """Returns what is given with the weights of the network's log odds, and of colours for images."""
  others = counts.sum(axis=0) - counts  # Each fold's images are judged by the colours of the others.
  none = dataclasses.replace(given, log_ratio=np.zeros_like(given.log_ratio))
  tables = np.stack([colour_histograms.conclude(none, of_others).log_ratio for of_others in others])
  rows = _describe(network, state, batches(0), given, tables, folds, config, mesh)
  # One process decides: another machine's arithmetic may differ in the last bit.
  weights, of_images = processes.run_on_first(
    lambda: _compare(rows, folds[rows["number"]], config.data.classes)
  )
  return dataclasses.replace(
    given, network_weight=np.array(weights, np.float32), image_weights=np.array(of_images, np.float32)
  )


def _compare(
  rows: dict[str, np.ndarray], folds: np.ndarray, classes: Sequence[str]
) -> tuple[list[float], list[list[float]]]:
  """Returns `ColourEvidence.network_weight` and `image_weights`, by what `_describe` returns of images.

  `folds` are those of its rows.
  """
  features = image_classifier.Scaler(rows["features"])(rows["features"])
  weights, of_images = [1.0] * len(classes), no_image_weights(len(classes)).tolist()
  for c, name in enumerate(classes):
    labels, levels = rows["label"][:, c] > 0, rows["levels"][:, c]
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if min(positives, negatives) < _LEAST:
      continue
    everywhere = np.ones(len(labels), bool)
    trunk = image_classifier.cross_validated_auc(features, labels, folds, everywhere)
    colours = max(ranking.area_within_folds(x, labels, folds) for x in levels.T)
    weights[c] = _weight(trunk, colours, positives, negatives)
    if weights[c] != 1.0:
      of_images[c] = image_classifier.fit_unscaled(levels, labels).tolist()
    _LOG.info(
      "%s: of left-out images, the trunk's features tell the label with an AUC of %.3f, colours with "
      "%.3f: the network's log odds count %g, and %s which images hold the class.",
      name, trunk, colours, weights[c], "colours decide" if any(of_images[c]) else "it decides",
    )
  return weights, of_images


def _weight(trunk: float, colours: float, positives: int, negatives: int) -> float:
  """Returns the weight by the image AUCs of trunk and colours: less than 1 needs colours that tell."""
  trunk, colours = (ranking.smoothed(auc, positives, negatives) for auc in (trunk, colours))
  trunk_error, error = (ranking.auc_error(auc, positives, negatives) for auc in (trunk, colours))
  tell = colours > 0.5 + 2 * error
  as_well = colours > trunk - np.hypot(trunk_error, error)
  return _WEIGHT if tell and as_well else 1.0


def _describe(
  network: Network, state: TrainState, batches: Generator[dict, None, None], given: ColourEvidence,
  tables: np.ndarray, folds: np.ndarray, config: Config, mesh: Mesh,
) -> dict[str, np.ndarray]:
  """Returns "number", "label", the trunk's "features" f32[n, D] and "levels" f32[n, C, F] of images.

  Levels are its `share_levels` by its fold's table.
  """
  split = sharding.batch_sharding(mesh)

  @full_precision
  def summaries(state, inputs):
    frozen = inputs.get("taps")
    if frozen is None:
      frozen = network.frozen(state.params, state.statistics, inputs["image"])
    taps = network.taps(state.params, state.statistics, frozen)
    return jnp.concatenate([pooled(tap) for tap in taps], axis=-1)

  summarise = jax.jit(summaries, in_shardings=(None, split), out_shardings=split)
  levels = jax.jit(lambda image, fold: _levels(given, tables, image, fold), out_shardings=split)
  rows: dict[str, list] = {"number": [], "label": [], "features": [], "levels": []}
  for batch in preemption.until_stopped(batches):
    real = batch["weight"] > 0
    inputs = sharding.to_global(inputs_of(batch, config), mesh)
    fold = sharding.to_global(folds[batch["index"]].astype(np.int32), mesh)
    values = {
      "number": batch["index"], "label": batch["label"],
      "features": sharding.local_rows(summarise(state, inputs)),
      "levels": sharding.local_rows(levels(inputs["image"], fold)),
    }
    for name, value in values.items():
      rows[name].append(value[real])
  return processes.gather({name: np.concatenate(values) for name, values in rows.items()})


def _levels(
  given: ColourEvidence, tables: np.ndarray, image: Float[Array, "B H W E"], fold: Array
) -> Float[Array, "B C F"]:
  """Returns the `share_levels` of images by tables f32[folds, C, BINS, BINS, BINS] and folds i32[B]."""
  of_bin = jnp.moveaxis(jnp.asarray(tables).reshape(*tables.shape[:2], -1), 1, -1)  # folds bins C
  return share_levels(of_bin[fold[:, None, None], given.bin_index(image)])

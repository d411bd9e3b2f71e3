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
from jaxtyping import Array

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
Batches = Callable[[int], Generator[dict, None, None]]  # Of at most so many images, 0 for all.
# From a state, a batch's inputs and the folds of its images to numbers of each image.
OfImages = Callable[[TrainState, dict, Array], Array]

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
    weights = _network_weights(network, state, batches, given, counts, folds, config, mesh)
    if (weights != 1.0).any():
      given = dataclasses.replace(given, network_weight=weights)
      counts = colour_histograms.count(given, network, state, batches(at_most), config, mesh, folds)
      of_images = _image_weights(state, batches, given, counts, folds, config, mesh)
      given = dataclasses.replace(given, image_weights=of_images)
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


def _network_weights(
  network: Network, state: TrainState, batches: Batches, given: ColourEvidence, counts: np.ndarray,
  folds: np.ndarray, config: Config, mesh: Mesh,
) -> np.ndarray:
  """Returns the weight of the network's log odds, f32[C]."""
  # The index that is given was chosen by all labels.
  none = dataclasses.replace(given, log_ratio=np.zeros_like(given.log_ratio))
  functions = {"levels": _fold_levels(none, counts), "features": _trunk_features(network)}
  rows = _over_images(functions, state, batches(0), folds, config, mesh)
  # One process decides: another machine's arithmetic may differ in the last bit.
  found = processes.run_on_first(lambda: _compare(rows, folds[rows["number"]], config.data.classes))
  return np.array(found, np.float32)


def _image_weights(
  state: TrainState, batches: Batches, given: ColourEvidence, counts: np.ndarray, folds: np.ndarray,
  config: Config, mesh: Mesh,
) -> np.ndarray:
  """Returns `ColourEvidence.image_weights` for the classes whose network counts less than 1."""
  functions = {"levels": _fold_levels(given, counts)}
  rows = _over_images(functions, state, batches(0), folds, config, mesh)

  def fit_classes() -> list[list[float]]:
    weights = no_image_weights(len(given.network_weight))
    for c in np.flatnonzero(given.network_weight != 1.0):
      weights[c] = image_classifier.fit_unscaled(rows["levels"][:, c], rows["label"][:, c] > 0)
    return weights.tolist()

  return np.array(processes.run_on_first(fit_classes), np.float32)


def _compare(rows: dict[str, np.ndarray], folds: np.ndarray, classes: Sequence[str]) -> list[float]:
  """Returns the weight of each class by what `_over_images` returns, with the folds of its rows."""
  features = image_classifier.Scaler(rows["features"])(rows["features"])
  weights = [1.0] * len(classes)
  for c, name in enumerate(classes):
    labels = rows["label"][:, c] > 0
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if min(positives, negatives) < _LEAST:
      continue
    everywhere = np.ones(len(labels), bool)
    trunk = image_classifier.cross_validated_auc(features, labels, folds, everywhere)
    colours = max(ranking.area_within_folds(x, labels, folds) for x in rows["levels"][:, c].T)
    weights[c] = _weight(trunk, colours, positives, negatives)
    _LOG.info(
      "%s: of left-out images, the trunk's features tell the label with an AUC of %.3f, colours with "
      "%.3f: the network's log odds count %g%s.", name, trunk, colours, weights[c],
      "" if weights[c] == 1.0 else ", and colours decide which images hold the class",
    )
  return weights


def _weight(trunk: float, colours: float, positives: int, negatives: int) -> float:
  """Returns the weight by the image AUCs of trunk and colours: less than 1 needs colours that tell."""
  trunk, colours = (ranking.smoothed(auc, positives, negatives) for auc in (trunk, colours))
  trunk_error, error = (ranking.auc_error(auc, positives, negatives) for auc in (trunk, colours))
  tell = colours > 0.5 + 2 * error
  as_well = colours > trunk - np.hypot(trunk_error, error)
  return _WEIGHT if tell and as_well else 1.0


def _trunk_features(network: Network) -> OfImages:
  """Returns the function to the means of the trunk's features over each image, f32[B, D]."""

  @full_precision
  def features(state: TrainState, inputs: dict, _: Array) -> Array:
    frozen = inputs.get("taps")
    if frozen is None:
      frozen = network.frozen(state.params, state.statistics, inputs["image"])
    taps = network.taps(state.params, state.statistics, frozen)
    return jnp.concatenate([pooled(tap) for tap in taps], axis=-1)

  return features


def _fold_levels(given: ColourEvidence, counts: np.ndarray) -> OfImages:
  """Returns the function to the `share_levels` of images, f32[B, C, S], by the other folds' counts.

  `counts` are those of `colour_histograms.count`.
  """
  others = counts.sum(axis=0) - counts
  tables = np.stack([colour_histograms.conclude(given, of_others).log_ratio for of_others in others])

  def levels(_: TrainState, inputs: dict, fold: Array) -> Array:
    of_bin = jnp.moveaxis(jnp.asarray(tables), 1, -1)  # folds K C
    index = given.bin_index(inputs["image"])
    return share_levels(jnp.sum(of_bin[fold[:, None, None, None], index], axis=-2))

  return levels


def _over_images(
  functions: dict[str, OfImages], state: TrainState, batches: Generator[dict, None, None],
  folds: np.ndarray, config: Config, mesh: Mesh,
) -> dict[str, np.ndarray]:
  """Returns what functions give for images, and the images' "number" i[n] and "label" f32[n, C]."""
  split = sharding.batch_sharding(mesh)
  compute = jax.jit(
    lambda *given: {name: function(*given) for name, function in functions.items()},
    in_shardings=(None, split, split), out_shardings=split,
  )
  rows: dict[str, list] = {name: [] for name in ("number", "label", *functions)}
  for batch in preemption.until_stopped(batches):
    real = batch["weight"] > 0
    inputs = sharding.to_global(inputs_of(batch, config), mesh)
    found = compute(state, inputs, sharding.to_global(folds[batch["index"]].astype(np.int32), mesh))
    values = {"number": batch["index"], "label": batch["label"]}
    values |= {name: sharding.local_rows(value) for name, value in found.items()}
    for name, value in values.items():
      rows[name].append(value[real])
  return processes.gather({name: np.concatenate(values) for name, values in rows.items()})

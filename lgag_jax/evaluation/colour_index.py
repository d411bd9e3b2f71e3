"""The cheapest alternative to a network: a colour index and a threshold, chosen by image labels alone.

It is fitted on the training images and their labels, and evaluated on the same images as the network.
Pixels are the source's own. No mask is used to choose anything. Where it predicts the labels, it also
joins the network's maps (see inference/colour_evidence.py): few labels suffice to choose it.
"""

import contextlib
import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import scipy.stats

from lgag_jax.config import Config
from lgag_jax.evaluation import index_rule, metrics, ranking
from lgag_jax.evaluation.index_rule import ColourIndex
from lgag_jax.imagery import scaling
from lgag_jax.imagery.reading import UNKNOWN, ImageError
from lgag_jax.inference.colour_evidence import SHARES
from lgag_jax.inputs.sources import Source
from lgag_jax.runtime import preemption, processes
from lgag_jax.runtime.progress import Progress

_BINS = 4096  # Of the histograms that the oracle's threshold is found by.
_WIDTH = 4.0 / _BINS  # Of one of them: indices are logs and ratios near one.
_MOST_IMAGES = 10_000  # That the rule is fitted on.
_MOST_PIXELS = 16_384  # Of each of them.
_BRIGHT = 4.0  # Standard deviations above the mean: full scale where data.mean and data.std are known.
_RANDOM_ORDERS = 20  # Of labels, for what chance would give.


def fit(levels: dict[tuple[str, int], np.ndarray], labels: np.ndarray) -> ColourIndex | None:
  """Chooses index, sign, threshold and share; None without images of both kinds.

  `levels` has, for an index and a sign, what `share_levels` returns of each image, f32[n, shares];
  `labels` is bool[n]. The largest share is taken whose image AUC is within one standard error of the
  best, since smaller ones predict the labels, too; a later index must exceed an earlier one by as
  much. The threshold is the one of highest balanced accuracy at that share.

  The weight is the image AUC beyond chance per standard deviation over images. Chance is the highest
  AUC that any index and share has for the labels in random orders.
  """
  if labels.all() or not labels.any():
    return None
  best, chosen, spread = -1.0, None, 1.0
  for (name, sign), values in levels.items():
    aucs = np.array([ranking.area_under_curve(column, labels) for column in values.T])
    error = ranking.auc_error(aucs.max(), labels.sum(), (~labels).sum())
    if aucs.max() > best + (error if chosen else 0.0):
      number = int(np.flatnonzero(aucs >= aucs.max() - error - 1e-9)[-1])
      best, spread = aucs.max(), max(float(values[:, number].std()), 1e-6)
      chosen = ColourIndex(name, sign, _best_split(values[:, number], labels), SHARES[number])
  chance = _chance(np.concatenate(list(levels.values()), axis=1), labels)
  beyond = max(0.0, best - chance) / max(1.0 - chance, 1e-6)
  return dataclasses.replace(chosen, weight=beyond / spread) if chosen else None


def _chance(columns: np.ndarray, labels: np.ndarray) -> float:
  """Returns the highest AUC of any column f32[n, columns] for the labels in random orders."""
  random = np.random.default_rng(0)
  orders = np.stack([random.permutation(labels) for _ in range(_RANDOM_ORDERS)])
  positives, negatives = labels.sum(), (~labels).sum()
  ranks = orders.astype(np.float64) @ scipy.stats.rankdata(columns, axis=0)
  return float((ranks.max() - positives * (positives + 1) / 2) / (positives * negatives))


def share_levels(
  colours: np.ndarray, near_infrared: bool = False, bands: tuple[int, ...] = ()
) -> dict[tuple[str, int], np.ndarray]:
  """Returns, for each index and sign, the value that each of SHARES of the pixels [n, F] reaches.

  The pixels have near infrared, red and green if `near_infrared`, else red, green and blue; then the
  `bands` with these numbers.
  """
  colours = colours[:: -(-len(colours) // _MOST_PIXELS)]
  counts = np.maximum(1, np.round(np.array(SHARES) * len(colours)).astype(int))
  levels = {}
  for name, unordered in index_rule.values(colours, near_infrared, bands).items():
    ordered = np.sort(unordered)
    levels[name, 1], levels[name, -1] = ordered[-counts], -ordered[counts - 1]
  return levels


def fit_images(train: Source, config: Config) -> list[ColourIndex | None]:
  """Returns for each class the rule that training images and their labels choose, None without any."""
  if config.data.channels < 3:
    return [None] * len(config.data.classes)
  sample = np.arange(len(train.ids))[:: -(-len(train.ids) // _MOST_IMAGES)]
  near_infrared, bands = config.model.nir_band > 0, config.model.evidence_bands
  levels = _over_images(train, sample, config, lambda colours, _: {
    f"{name}/{sign}": values
    for (name, sign), values in share_levels(
      colours.reshape(-1, colours.shape[-1]), near_infrared, bands).items()
  })
  read = levels.pop("number")
  keyed = {(key.rpartition("/")[0], int(key.rpartition("/")[2])): v for key, v in levels.items()}
  rules = [fit(keyed, train.labels[read, c] > 0) for c in range(len(config.data.classes))]
  columns = {index_rule.band_name(band): column for column, band in enumerate(bands, 3)}
  return [
    rule and dataclasses.replace(
      rule, near_infrared=near_infrared, column=columns.get(rule.name, 0)) for rule in rules
  ]


def evaluate(
  rules: list[ColourIndex | None], validation: Source, config: Config
) -> list[dict | None]:
  """Returns each class's rule and its figures, as JSON; None where there is no rule.

  "label_free" and "oracle" have the rates of `metrics.rates`. The oracle's threshold is the best one in
  hindsight, at the same index and share.
  """
  return [rule and _figures(rule, validation, config, c) for c, rule in enumerate(rules)]


def _figures(rule: ColourIndex, source: Source, config: Config, c: int) -> dict:
  """Evaluates a rule on the images of a source that have masks."""
  counts = _over_images(
    source, np.arange(len(source.ids)), config, lambda colours, mask: count(rule, colours, mask, c)
  )
  return figures(rule, {name: values.sum(axis=0, dtype=np.float64) for name, values in counts.items()})


def count(rule: ColourIndex, colours: np.ndarray, mask: np.ndarray, c: int) -> dict[str, np.ndarray]:
  """Counts an image's pixels by what a rule maps and a mask says of class `c`, from 0.

  `colours` is what `bands_of` returns, f32[H, W, F]; `mask` u8[H, W] has c + 1 where the class is.
  "positive" and "negative" are histograms of the index, f64[bins].
  """
  scores, truth, known = rule.scores(colours), mask == c + 1, mask != UNKNOWN
  mapped = rule.mapped(scores)
  bins = np.clip((scores - _lowest(rule)) / _WIDTH, 0, _BINS - 1).astype(int)
  # Of each threshold, the pixels of images that its share lets through.
  passes = np.sort(bins, axis=None)[-max(1, round(rule.share * bins.size))]
  histogram = lambda where: np.bincount(np.minimum(bins[where], passes), minlength=_BINS)
  return {
    "true_positive": np.sum(mapped & truth), "false_positive": np.sum(mapped & ~truth & known),
    "false_negative": np.sum(~mapped & truth), "true_negative": np.sum(~mapped & ~truth & known),
    "positive": histogram(truth), "negative": histogram(~truth & known),
  }


def _lowest(rule: ColourIndex) -> float:
  """Returns the index at which the histograms of `count` begin."""
  return rule.threshold - _BINS * _WIDTH / 2


def figures(rule: ColourIndex, totals: dict[str, np.ndarray]) -> dict:
  """Returns a rule and its figures, as `evaluate` has them, of the sums of what `count` returns."""
  tp = np.cumsum(totals["positive"][::-1])[::-1]
  fp = np.cumsum(totals["negative"][::-1])[::-1]
  best = int(np.argmax(tp / np.maximum(fp + totals["positive"].sum(), 1)))
  oracle = {
    "true_positive": tp[best], "false_positive": fp[best],
    "false_negative": tp[0] - tp[best], "true_negative": fp[0] - fp[best],
  }
  return {
    "rule": rule.describe(), **dataclasses.asdict(rule),
    "label_free": {"threshold": rule.threshold, **metrics.rates(totals)},
    "oracle": {"threshold": _lowest(rule) + best * _WIDTH, **metrics.rates(oracle)},
  }


def _over_images(
  source: Source, numbers: np.ndarray, config: Config, function: Callable
) -> dict[str, np.ndarray]:
  """Returns stacked results of function(colours f32[H, W, F], mask) over images, and their "number".

  Processes share the images. Those that cannot be read are left out: the network's reading names them.
  """
  mine = numbers[jax.process_index() :: jax.process_count()]
  progress, rows = Progress("colour index", len(mine)), []
  for number in mine:
    preemption.check_if_single_process()
    with contextlib.suppress(ImageError):
      image, mask = source.read(int(number))
      rows.append({"number": number, **function(bands_of(image, config), mask)})
    progress.advance(1)
  progress.close()
  names = rows[0] if rows else ()
  return processes.gather({name: np.stack([row[name] for row in rows]) for name in names})


def bands_of(image: np.ndarray, config: Config) -> np.ndarray:
  """Returns the bands of indices, f32[H, W, F], of an image [H, W, channels] as read.

  The first three are in [0, 1]. Those of model.evidence_bands are scaled as the network's input.
  """
  colours = _three_colours(image, config)
  if not config.model.evidence_bands:
    return colours
  others = scaling.normalise(image, config.data)[..., np.array(config.model.evidence_bands) - 1]
  return np.concatenate([colours, others], axis=-1)


def _three_colours(image: np.ndarray, config: Config) -> np.ndarray:
  """Returns the colours of indices in [0, 1], f32[H, W, 3]."""
  bands = [band - 1 for band in config.model.index_bands]
  colours = image[..., bands].astype(np.float32)
  if config.data.max_value:
    return colours / config.data.max_value
  if config.data.mean:  # Ratios need the same scale in all bands, and in all images.
    mean, std = (np.array(x, np.float32)[bands] for x in (config.data.mean, config.data.std))
    return np.clip(colours / np.max(mean + _BRIGHT * std), 0.0, 1.0)
  if np.issubdtype(image.dtype, np.integer):
    return colours / np.iinfo(image.dtype).max
  low, high = colours.min(), colours.max()  # Floating-point values have no range of their own.
  return (colours - low) / max(high - low, 1e-9)


def _best_split(scores: np.ndarray, labels: np.ndarray) -> float:
  """Returns the threshold of highest balanced accuracy; of equally good ones the middle one."""
  order = np.argsort(scores, kind="stable")
  ordered, truth = scores[order], labels[order]
  missed = np.cumsum(truth) / truth.sum()  # If the threshold is just above each score.
  rejected = np.cumsum(~truth) / (~truth).sum()
  accuracy = np.where(np.append(np.diff(ordered) > 0, True), 1 - missed + rejected, 0.0)
  middle = np.append((ordered[1:] + ordered[:-1]) / 2, ordered[-1])
  best = np.flatnonzero(accuracy >= accuracy.max() - 1e-9)
  return float(middle[best[len(best) // 2]])

"""Counts what a network maps on a split, per pixel, per image and per landslide."""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np
import scipy.ndimage
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.evaluation import metrics
from lgag_jax.evaluation.report_examples import ReportExamples
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.inference.exclusive_classes import exclusive
from lgag_jax.inference.localize import Maps, gated, inputs_of, map_names
from lgag_jax.inputs.split import Split
from lgag_jax.runtime import preemption, processes, sharding
from lgag_jax.runtime.progress import Progress
from lgag_jax.state import TrainState

# The pixel counts of an image. "mapped" and "all" need no mask.
IMAGE_COUNTS = ("hit", "union", "truth", "known", "mapped", "all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurements:
  """Counts of n images with C classes; dictionaries are by the names of `map_names`.

  Without thresholds, `image_counts` and `landslides` are empty.
  """

  labels: np.ndarray  # f32[n, C]
  probabilities: np.ndarray  # f32[n, C]
  histograms: dict[str, np.ndarray]  # f64[C, 3, bins]: positive, negative and unknown pixels.
  image_counts: dict[str, np.ndarray]  # f64[n, C, 6], as IMAGE_COUNTS names them.
  landslides: dict[str, list[np.ndarray]]  # Per class i64[m, 2]: pixels, and detected pixels.
  examples: dict[str, np.ndarray]


def measure(
  localize: Callable, state: TrainState, split: Split, mesh: Mesh, config: Config,
  thresholds: dict[str, list[float]] | None, *, at_most: int = 0,
) -> Measurements:
  """Counts pixels of a split and, with thresholds, of its images and landslides, over all processes.

  `at_most` takes that many images at even intervals; 0 takes all.
  """
  names = map_names(config)
  histograms = _make_histograms(config, mesh)
  levels = {
    name: np.asarray(thresholds[name] if thresholds else [0.5] * len(config.data.classes), np.float32)
    for name in names
  }
  pooled: dict[str, Any] = dict.fromkeys(names, 0.0)
  rows = collections.defaultdict(list)
  examples = ReportExamples(split, config.model.rgb_bands)
  count = len(split.source.ids)
  progress = Progress("evaluation", min(at_most, count) if at_most else count)
  for batch in preemption.until_stopped(split.eval_batches(config, at_most=at_most)):
    maps = localize(state, sharding.to_global(inputs_of(batch, config), mesh))
    counts = histograms(maps, sharding.to_global(batch["mask"], mesh), levels)
    maps, counts = sharding.local_rows((maps, counts))
    real = (batch["index"] >= 0) & (batch["weight"] > 0)
    rows["labels"].append(batch["label"][real])
    rows["probabilities"].append(maps.probabilities[real])
    for name in names:
      pooled[name] += counts[name][real].sum(axis=0, dtype=np.float64)
    if thresholds is not None:
      scores = {name: exclusive(gated(maps, name, config), levels[name]) for name in names}
      for name in names:
        rows[f"images/{name}"].append(image_counts(counts[name][real], thresholds[name]))
        for c, threshold in enumerate(thresholds[name]):
          rows[f"sizes/{name}/{c}"].append(_landslides(
            scores[name][real][..., c] >= threshold, batch["mask"][real] == c + 1
          ))
      examples.add(batch, real, scores, maps)
    progress.advance(len(real) * jax.process_count())
  progress.close()
  local = {key: np.concatenate(parts) for key, parts in rows.items()}
  joined = processes.gather(local | {f"pooled/{name}": pooled[name][None] for name in names})
  counted = () if thresholds is None else names
  return Measurements(
    labels=joined["labels"], probabilities=joined["probabilities"],
    histograms={name: joined[f"pooled/{name}"].sum(axis=0) for name in names},
    image_counts={name: joined[f"images/{name}"] for name in counted},
    landslides={
      name: [joined[f"sizes/{name}/{c}"] for c in range(len(config.data.classes))] for name in counted
    },
    examples={} if thresholds is None else examples.arrays(),
  )


@functools.lru_cache(maxsize=8)
def _make_histograms(config: Config, mesh: Mesh) -> Callable:
  return jax.jit(
    lambda maps, mask, levels: _histograms(maps, mask, levels, config),
    out_shardings=sharding.batch_sharding(mesh),
  )


def _histograms(
  maps: Maps, mask: jax.Array, levels: dict[str, jax.Array], config: Config
) -> dict[str, jax.Array]:
  """Returns each map's histograms, f32[B, C, 3, bins], of positive, negative and unknown pixels.

  Scores are exclusive: classes compete relative to `levels`, f32[C] per map.
  """
  result = {}
  for name in map_names(config):
    scores = exclusive(gated(maps, name, config), levels[name])
    result[name] = jax.numpy.stack([
      jax.numpy.stack([
        metrics.score_histogram(scores[..., c], mask == c + 1),
        metrics.score_histogram(scores[..., c], (mask != c + 1) & (mask != UNKNOWN)),
        metrics.score_histogram(scores[..., c], mask == UNKNOWN),
      ], axis=1)
      for c in range(len(config.data.classes))
    ], axis=1)
  return result


def image_counts(histograms: np.ndarray, thresholds: list[float]) -> np.ndarray:
  """Returns the pixel counts of IMAGE_COUNTS, [n, C, 6], from histograms [n, C, 3, bins]."""
  result = []
  for c, threshold in enumerate(thresholds):
    positive, negative, unknown = np.moveaxis(histograms[:, c].astype(np.float64), 1, 0)
    counts = metrics.confusion(positive, negative, threshold)
    hit, alarm = counts["true_positive"], counts["false_positive"]
    truth, known = positive.sum(-1), positive.sum(-1) + negative.sum(-1)
    mapped = hit + alarm + metrics.confusion(positive, unknown, threshold)["false_positive"]
    row = (hit, truth + alarm, truth, known, mapped, known + unknown.sum(-1))
    result.append(np.stack(row, axis=-1))
  return np.stack(result, axis=1)


def _landslides(mapped: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Returns (pixels, mapped pixels), i64[m, 2], of each connected region of masks bool[n, H, W]."""
  result = [np.zeros((0, 2), np.int64)]  # A process without landslides still has the name to gather.
  for image_mapped, image_truth in zip(mapped, truth, strict=True):
    regions, count = cast(tuple[np.ndarray, int], scipy.ndimage.label(image_truth))
    pixels = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    hits = np.bincount(regions[image_mapped], minlength=count + 1)[1:]
    result.append(np.stack([pixels, hits], axis=1))
  return np.concatenate(result)

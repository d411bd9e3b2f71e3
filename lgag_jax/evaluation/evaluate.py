"""Judges a trained network on a split with masks: pixels, images, and landslides by size."""

import collections
import functools
import logging
import pathlib
from collections.abc import Callable

import jax
import numpy as np
import scipy.ndimage
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.evaluation import diagnose, metrics, tables, threshold_rules
from lgag_jax.evaluation.report_examples import Panels
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.inference.exclusive_classes import exclusive
from lgag_jax.inference.localize import Maps, gated, inputs_of, make_localize, map_of, maps_of
from lgag_jax.inputs.split import Split
from lgag_jax.method.network import Network
from lgag_jax.runtime import files, preemption, processes, sharding
from lgag_jax.runtime.progress import Progress
from lgag_jax.state import TrainState

_LOG = logging.getLogger(__name__)

# What is counted of each image, in pixels: "mapped" and "all" know no mask.
_COUNTED = ("hit", "union", "truth", "known", "mapped", "all")
SIZE_EDGES = (0, 64, 256, 1024, 4096, 16384)  # Pixels of a landslide, at the model's size.


def evaluate(
  network: Network,
  state: TrainState,
  config: Config,
  mesh: Mesh,
  workdir: pathlib.Path,
  *,
  train: Split,
  validation: Split,
) -> dict:
  """Writes thresholds.json and eval/ (validation.json, .md, panels.npz, bank.npz); returns metrics.

  Thresholds come from the training images and their labels; the oracle's, beside them, from the
  masks of the evaluated images. A pixel counts for one class at most, as in prediction.
  """
  localize = make_localize(network, config, mesh)
  at_most = config.localize.calibration_images
  thresholds = threshold_rules.thresholds(
    localize, state, train.eval_batches(config, at_most=at_most), mesh, config
  )
  chosen = threshold_rules.chosen_thresholds(thresholds, config)
  judged = _judge(localize, state, validation, mesh, config, chosen)
  result = {
    "step": int(state.step),
    "data": config.data.builder or config.data.directory,
    "examples": len(judged["labels"]),
    "map": map_of(config),
    "threshold_rule": network.method.rule(config),
    "classes": {
      name: _class_result(judged, thresholds, config, c)
      for c, name in enumerate(config.data.classes)
    },
  }
  if processes.is_first():
    folder = workdir / "eval"
    files.write_json(workdir / "thresholds.json", {"step": int(state.step), "maps": thresholds})
    files.write_json(folder / "validation.json", result)
    files.write_text(folder / "validation.md", tables.evaluation(result))
    with files.atomic_path(folder / "panels.npz") as path:
      np.savez_compressed(path, **judged["panels"])
    bank = jax.device_get(state.bank)
    with files.atomic_path(folder / "bank.npz") as path:
      np.savez_compressed(path, features=bank.features, valid=bank.valid, centres=bank.centres)
    _LOG.info("Evaluation:\n%s", tables.evaluation(result))
    for name, values in result["classes"].items():
      for finding in values["diagnosis"]:
        tell = _LOG.info if finding["level"] == "note" else _LOG.warning
        tell("%s: %s What to try: see eval/validation.md.", name, finding["text"])
  return result


def brief(
  network: Network, state: TrainState, validation: Split, config: Config, mesh: Mesh
) -> dict[str, float]:
  """Returns the few numbers worth following from epoch to epoch."""
  localize = make_localize(network, config, mesh)
  judged = _judge(localize, state, validation, mesh, config, None)
  result = {}
  for c, name in enumerate(config.data.classes):
    auc = metrics.area_under_curve(judged["probabilities"][:, c], judged["labels"][:, c])
    result |= {} if auc is None else {f"{name}/auc": auc}
    for map_name in maps_of(config):
      _, best = metrics.oracle(*judged["pooled"][map_name][c][:2])
      result[f"{name}/{map_name}_oracle_iou"] = best["iou"]
  return result


def _judge(
  localize: Callable, state: TrainState, split: Split, mesh: Mesh, config: Config,
  thresholds: dict[str, list[float]] | None,
) -> dict:
  """Runs over a split; with thresholds also judges single images and landslides.

  Each process judges its own rows of every batch; counts and a few numbers an image are joined.
  """
  histograms = _make_histograms(config, mesh)
  levels = {
    name: np.asarray(thresholds[name] if thresholds else [0.5] * len(config.data.classes), np.float32)
    for name in maps_of(config)
  }
  pooled = dict.fromkeys(maps_of(config), 0.0)
  found = collections.defaultdict(list)  # Rows an image or a landslide.
  panels = Panels(split, config.model.rgb_bands)
  progress = Progress("evaluation", len(split.source.ids))
  for batch in preemption.until_stopped(split.eval_batches(config)):
    maps = localize(state, sharding.to_global(inputs_of(batch, config), mesh))
    counts = histograms(maps, sharding.to_global(batch["mask"], mesh), levels)
    maps, counts = sharding.local_rows((maps, counts))
    real = (batch["index"] >= 0) & (batch["weight"] > 0)
    found["labels"].append(batch["label"][real])
    found["probabilities"].append(maps.probabilities[real])
    for name in maps_of(config):
      pooled[name] += counts[name][real].sum(axis=0, dtype=np.float64)
      if thresholds is not None:
        found[f"images/{name}"].append(_image_counts(counts[name][real], thresholds[name]))
    if thresholds is not None:
      scores = {
        name: exclusive(gated(maps, name, config), levels[name]) for name in maps_of(config)
      }
      _sizes(found, scores, batch["mask"], real, thresholds, config)
      panels.add(batch["index"], real, scores, batch["mask"], maps)
    progress.advance(len(real) * jax.process_count())
  progress.close()
  mine = {name: np.concatenate(rows) for name, rows in found.items()}
  joined = processes.gather(mine | {f"pooled/{name}": pooled[name][None] for name in maps_of(config)})
  return {
    **joined, "pooled": {name: joined[f"pooled/{name}"].sum(axis=0) for name in maps_of(config)},
    "thresholds": thresholds, "panels": {} if thresholds is None else panels.arrays(),
  }


@functools.lru_cache(maxsize=8)
def _make_histograms(config: Config, mesh: Mesh) -> Callable:
  return jax.jit(
    lambda maps, mask, levels: _histograms(maps, mask, levels, config),
    out_shardings=sharding.batch_sharding(mesh),
  )


def _histograms(
  maps: Maps, mask: jax.Array, levels: dict[str, jax.Array], config: Config
) -> dict[str, jax.Array]:
  """Returns a map's counts, f32[B, C, 3, bins], of truly positive, negative and unknown pixels.

  Of exclusive scores: `levels`, f32[C] a map, are what classes are weighed against each other by.
  """
  classes = range(len(config.data.classes))
  result = {}
  for name in maps_of(config):
    scores = exclusive(gated(maps, name, config), levels[name])
    result[name] = jax.numpy.stack([
      jax.numpy.stack([
        metrics.score_histogram(scores[..., c], mask == c + 1),
        metrics.score_histogram(scores[..., c], (mask != c + 1) & (mask != UNKNOWN)),
        metrics.score_histogram(scores[..., c], mask == UNKNOWN),
      ], axis=1)
      for c in classes
    ], axis=1)
  return result


def _image_counts(histograms: np.ndarray, thresholds: list[float]) -> np.ndarray:
  """Returns the pixels that _COUNTED names, [n, C, 6], of histograms [n, C, 3, bins]."""
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


def _sizes(found, scores, mask, real, thresholds, config) -> None:
  """Adds (pixels, found pixels) of every landslide, a connected region of its class's mask."""
  for c in range(len(config.data.classes)):
    for name in maps_of(config):  # A name without a row is a name all the same.
      found[f"sizes/{name}/{c}"].append(np.zeros((0, 2), np.int64))
    for i in np.flatnonzero(real):
      regions, count = scipy.ndimage.label(mask[i] == c + 1)
      if not count:
        continue
      pixels = np.bincount(regions.ravel(), minlength=count + 1)[1:]
      for name in maps_of(config):
        hit = scores[name][i, ..., c] >= thresholds[name][c]
        hits = np.bincount(regions[hit], minlength=count + 1)[1:]
        found[f"sizes/{name}/{c}"].append(np.stack([pixels, hits], axis=1))


def _class_result(judged: dict, thresholds: dict, config: Config, c: int) -> dict:
  image = metrics.image_rates(
    judged["probabilities"][:, c], judged["labels"][:, c], config.localize.gate
  )
  maps = {name: _map_result(judged, thresholds[name], name, config, c) for name in maps_of(config)}
  return {
    "diagnosis": diagnose.findings(image, maps[map_of(config)], config), "image": image, "maps": maps,
  }


def _map_result(judged: dict, rules: dict, name: str, config: Config, c: int) -> dict:
  positive, negative = judged["pooled"][name][c][:2]
  threshold = judged["thresholds"][name][c]
  oracle_threshold, oracle = metrics.oracle(positive, negative)
  counts = dict(zip(_COUNTED, np.moveaxis(judged[f"images/{name}"][:, c], -1, 0), strict=True))
  iou = counts["hit"] / np.maximum(counts["union"], 1)
  iou = np.sort(iou[counts["truth"] > 0])  # The mean is the same in any order.
  found = judged["probabilities"][:, c] > config.localize.gate
  return {
    "label_free": {
      "threshold": threshold,
      **metrics.rates(metrics.confusion(positive, negative, threshold)),
    },
    "oracle": {"threshold": oracle_threshold, **oracle},
    "rules": {
      rule: {
        "threshold": values[c],
        **metrics.rates(metrics.confusion(positive, negative, values[c])),
      }
      for rule, values in rules.items()
    },
    "coverage": metrics.coverage(counts, judged["labels"][:, c], found),
    "per_image_iou": {
      "images": len(iou),
      "mean": float(iou.mean()) if len(iou) else 0.0,
      "counts": np.histogram(iou, bins=10, range=(0, 1))[0].tolist(),
    },
    "recall_by_size": metrics.recall_by_size([judged[f"sizes/{name}/{c}"]], SIZE_EDGES),
  }

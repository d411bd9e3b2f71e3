"""Evaluates a trained network on a split with masks: pixels, images, and landslides by size."""

import dataclasses
import logging
import pathlib

import jax
import numpy as np
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.evaluation import (
  colour_index,
  diagnose,
  fit_evidence,
  metrics,
  ranking,
  tables,
  threshold_rules,
  thresholds_file,
)
from lgag_jax.evaluation.index_rule import ColourIndex
from lgag_jax.evaluation.measure import IMAGE_COUNTS, Measurements, measure
from lgag_jax.inference.colour_evidence import ColourEvidence
from lgag_jax.inference.localize import main_map_name, make_localize, map_names
from lgag_jax.inputs.split import Split
from lgag_jax.method.network import Network
from lgag_jax.runtime import files, processes
from lgag_jax.state import TrainState

_LOG = logging.getLogger(__name__)

_TRAINING_IMAGES = 200  # Whose maps are looked at for their sizes.
SIZE_EDGES = (0, 64, 256, 1024, 4096, 16384)  # Pixels of a landslide, at the model's image size.


def evaluate(
  network: Network, state: TrainState, config: Config, mesh: Mesh, workdir: pathlib.Path, *,
  train: Split, validation: Split,
) -> dict:
  """Writes thresholds.json and eval/ (validation.json, .md, panels.npz, bank.npz); returns metrics.

  Label-free thresholds come from the training images and their labels. The oracle's threshold comes
  from the masks of the evaluated images. As in prediction, a pixel belongs to at most one class.
  """
  evidence, indices = None, colour_index.fit_images(train.source, config)
  if network.method.takes_colour_evidence(config):
    evidence = fit_evidence.fit(network, state, train, config, mesh, indices)
  network = dataclasses.replace(network, evidence=evidence)
  localize = make_localize(network, config, mesh)
  at_most = config.localize.calibration_images
  rules = threshold_rules.thresholds(
    localize, state, train.eval_batches(config, at_most=at_most), mesh, config,
    telling_indices(evidence, indices),
  )
  thresholds = thresholds_file.chosen_thresholds(rules, config)
  measured = measure(localize, state, validation, mesh, config, thresholds)
  # Where few images are labelled, those of validation say too little of the sizes of maps.
  trained = measure(localize, state, train, mesh, config, thresholds, at_most=_TRAINING_IMAGES)
  of_indices = colour_index.evaluate(indices, validation.source, config)
  result = {
    "step": int(state.step),
    "data": config.data.builder or config.data.directory,
    "examples": len(measured.labels),
    "map": main_map_name(config),
    "threshold_rule": network.method.rule(config),
    "classes": {
      name: _class_result(measured, trained, rules, thresholds, config, c, of_indices[c]) | {
        "network_weight": float(evidence.network_weight[c]) if evidence else 1.0,
        "image_scores_of": "colours" if evidence and evidence.image_weights[c].any() else "network",
      }
      for c, name in enumerate(config.data.classes)
    },
  }
  if processes.is_first():
    _write(workdir, result, rules, measured.examples, state, evidence, indices)
    for name, values in result["classes"].items():
      for finding in values["diagnosis"]:
        log = _LOG.info if finding["level"] == "note" else _LOG.warning
        log("%s: %s For remedies see eval/validation.md.", name, finding["text"])
  return result


def telling_indices(
  evidence: ColourEvidence | None, indices: list[ColourIndex | None]
) -> list[ColourIndex | None]:
  """Returns the colour indices of the classes whose labels colours tell as well as the network does.

  There are none of standardised images and of pairs, to which an index does not apply.
  """
  if evidence is None or not evidence.in_unit_range or evidence.paired:
    return []
  tell = evidence.network_weight < 1.0
  return [index if told else None for index, told in zip(indices, tell, strict=True)]


def _write(
  workdir: pathlib.Path, result: dict, rules: dict, examples: dict[str, np.ndarray], state: TrainState,
  evidence: ColourEvidence | None, indices: list[ColourIndex | None],
) -> None:
  folder, text = workdir / "eval", tables.evaluation(result)
  if evidence:
    evidence.save(workdir)
  thresholds_file.save(workdir, result["step"], rules, evidence, indices)
  files.write_json(folder / "validation.json", result)
  files.write_text(folder / "validation.md", text)
  with files.atomic_path(folder / "panels.npz") as path:
    np.savez_compressed(path, allow_pickle=False, **examples)
  bank = jax.device_get(state.bank)
  with files.atomic_path(folder / "bank.npz") as path:
    np.savez_compressed(path, features=bank.features, valid=bank.valid, centres=bank.centres)
  for line in filter(None, text.splitlines()):  # Line feeds in arguments of a log are escaped.
    _LOG.info("%s", line)


def epoch_metrics(
  network: Network, state: TrainState, validation: Split, config: Config, mesh: Mesh
) -> dict[str, float]:
  """Returns the few metrics that are logged after each epoch."""
  localize = make_localize(network, config, mesh)
  measured = measure(localize, state, validation, mesh, config, None)
  result = {}
  for c, name in enumerate(config.data.classes):
    auc = ranking.area_under_curve(measured.probabilities[:, c], measured.labels[:, c])
    result |= {} if auc is None else {f"{name}/auc": auc}
    for map_name in map_names(config):
      _, best = metrics.oracle(*measured.histograms[map_name][c][:2])
      result[f"{name}/{map_name}_oracle_iou"] = best["iou"]
  return result


def _class_result(
  measured: Measurements, trained: Measurements, rules: dict, thresholds: dict[str, list[float]],
  config: Config, c: int, index: dict | None,
) -> dict:
  image = metrics.image_rates(measured.probabilities[:, c], measured.labels[:, c], config.localize.gate)
  maps = {
    name: _map_result(measured, rules[name], thresholds[name][c], name, config, c)
    for name in map_names(config)
  }
  main, gate = main_map_name(config), config.localize.gate
  training = {
    "image": metrics.image_rates(trained.probabilities[:, c], trained.labels[:, c], gate),
    "coverage": _coverage(trained, main, config, c, masks=False),
  }
  return {
    "diagnosis": diagnose.findings(image, maps[main], config, index, training), "image": image,
    "maps": maps, "colour_index": index, "training_coverage": training["coverage"],
  }


def _coverage(measured: Measurements, name: str, config: Config, c: int, *, masks: bool) -> dict:
  called_positive = measured.probabilities[:, c] > config.localize.gate
  counts = _image_counts(measured, name, c)
  if not masks:  # Training images may have masks, or pseudo-masks: only their labels count.
    counts |= {name: np.zeros_like(counts[name]) for name in ("truth", "known")}
  return metrics.coverage(counts, measured.labels[:, c], called_positive)


def _image_counts(measured: Measurements, name: str, c: int) -> dict[str, np.ndarray]:
  rows = np.moveaxis(measured.image_counts[name][:, c], -1, 0)
  return dict(zip(IMAGE_COUNTS, rows, strict=True))


def _map_result(
  measured: Measurements, rules: dict, threshold: float, name: str, config: Config, c: int
) -> dict:
  positive, negative = measured.histograms[name][c][:2]
  oracle_threshold, oracle = metrics.oracle(positive, negative)
  counts = _image_counts(measured, name, c)
  iou = counts["hit"] / np.maximum(counts["union"], 1)
  iou = np.sort(iou[counts["truth"] > 0])  # Sorted, the mean does not depend on the order of images.
  at = lambda value: {"threshold": value, **metrics.rates(metrics.confusion(positive, negative, value))}
  return {
    "label_free": at(threshold),
    "oracle": {"threshold": oracle_threshold, **oracle},
    "rules": {rule: at(values[c]) for rule, values in rules.items()},
    "coverage": _coverage(measured, name, config, c, masks=True),
    "per_image_iou": {
      "images": len(iou), "mean": float(iou.mean()) if len(iou) else 0.0,
      "counts": np.histogram(iou, bins=10, range=(0, 1))[0].tolist(),
    },
    "recall_by_size": metrics.recall_by_size(measured.landslides[name][c], SIZE_EDGES),
  }

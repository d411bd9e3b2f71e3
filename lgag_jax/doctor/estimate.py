"""Estimates what a training needs: counted from the config, or measured while reading the data."""

import dataclasses
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgag_jax.config import Config
from lgag_jax.doctor.findings import NOTE, WARNING, Finding, finding
from lgag_jax.doctor.survey import SPLITS, Survey
from lgag_jax.inputs.pipeline import steps_per_epoch
from lgag_jax.method import network as networks
from lgag_jax.method.network import Network
from lgag_jax.training import fill_trunk_outputs, optimizer, train_step


@dataclasses.dataclass(frozen=True)
class Plan:
  """The sizes of a training, computed from shapes: nothing is compiled or run."""

  network: Network
  state_bytes: int
  parameter_bytes: int
  frozen: Any  # Shapes of the frozen trunk's outputs for one image.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """Numbers for the report, in bytes and seconds."""

  steps_per_epoch: int
  steps: int
  images_drawn: int
  cached: bool  # Whether the frozen trunk's outputs of every split are cached on disk.
  cache_bytes: int
  free_bytes: int  # On the disk of the workdir, or of data.feature_cache_directory.
  read_rate: float  # Images per second, measured.
  read_workers: int
  images_read: int  # Images that training decodes, without validation images and masks.
  read_seconds: float
  memory_bytes: int


def plan(config: Config) -> Plan:
  """Computes the shapes of the network; raises ValueError if no training can use the config."""
  network = networks.build(config)
  side = config.data.image_size
  state = train_step.state_shapes(network, config, optimizer.make_optimizer(config, 1))
  image = jax.ShapeDtypeStruct((1, side, side, config.data.input_channels), jnp.float32)
  frozen = jax.eval_shape(network.frozen, state.params, state.statistics, image)
  return Plan(network, _bytes(state), _bytes(state.params), frozen)


def make(survey: Survey, config: Config, plan: Plan, workdir: pathlib.Path) -> Estimate:
  """Returns the estimate for the examples that could be read."""
  counts = {split: len(survey.of(split)) for split in SPLITS}
  epoch = steps_per_epoch(counts["train"], config.train)
  steps = epoch * config.train.epochs
  images_drawn = steps * config.train.batch_size
  cached = fill_trunk_outputs.can_cache(config, plan.frozen, max(counts.values()))
  cache_limit = config.data.decoded_cache_gib * 2**30
  decoded_once = cached or survey.bytes_decoded <= cache_limit
  images_read = counts["train"] if decoded_once else images_drawn
  # Four batches wait in the pipeline while one is in use.
  batch = 5 * config.train.batch_size * 4 * config.data.image_size**2 * config.data.input_channels
  decoded = min(survey.bytes_decoded, cache_limit)
  folder = pathlib.Path(config.data.feature_cache_directory or workdir).absolute()
  while not folder.exists():
    folder = folder.parent
  return Estimate(
    steps_per_epoch=epoch, steps=steps, images_drawn=images_drawn, cached=cached,
    cache_bytes=fill_trunk_outputs.size_of(plan.frozen, sum(counts.values())) if cached else 0,
    free_bytes=shutil.disk_usage(folder).free, read_rate=survey.rate, read_workers=survey.workers,
    images_read=images_read, read_seconds=images_read / max(survey.rate, 1e-9),
    memory_bytes=int(plan.state_bytes + plan.parameter_bytes + batch + decoded),
  )


def check(estimate: Estimate) -> list[Finding]:
  """Returns findings that describe the estimate, and a warning if the disk is too small."""
  findings = []
  if estimate.cache_bytes > estimate.free_bytes:
    findings.append(finding(
      WARNING, f"The trunk's outputs need {_size(estimate.cache_bytes)} on disk, but only "
      f"{_size(estimate.free_bytes)} are free.",
      "Free disk space, set data.feature_cache_directory to a folder on another disk, or set "
      "data.feature_cache_gib=0.",
    ))
  return findings + [finding(NOTE, line, "") for line in _lines(estimate)]


def _lines(e: Estimate) -> list[str]:
  """Returns a text per resource, which says whether its numbers were counted or measured."""
  if e.cached:
    disk = f"The frozen trunk's outputs will be cached on disk: {_size(e.cache_bytes)} (counted)."
  else:
    disk = "The trunk's outputs will not be cached on disk: each step runs the trunk."
  return [
    f"Training takes {e.steps:,} steps, {e.steps_per_epoch:,} per epoch, and uses {e.images_drawn:,} "
    "images, repeats counted.",
    f"Reading {e.images_read:,} images takes about {_duration(e.read_seconds)}, at the "
    f"{e.read_rate:,.0f} images per second that the doctor measured ({e.read_workers} threads, the "
    "doctor's checks included). The time of the network was not measured: after the first steps, the "
    "progress line of the training shows it.",
    disk,
    f"Training needs at least {_size(e.memory_bytes)} of memory for parameters, optimiser, gradient, "
    "five batches and the cache of decoded images (counted, not measured). The program and the "
    "activations of a step need more; train.accumulate lowers the memory for activations.",
  ]


def _size(count: float) -> str:
  return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _duration(seconds: float) -> str:
  if seconds < 120:
    return f"{max(seconds, 1):.0f} s"
  return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _bytes(tree: Any) -> int:
  leaves = jax.tree.leaves(tree)
  return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in leaves)

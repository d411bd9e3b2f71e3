"""What a training will take: counted from the config, timed where the doctor itself did the work."""

import dataclasses
import functools
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgag_jax.config import Config
from lgag_jax.doctor.findings import NOTE, WARNING, Finding, finding
from lgag_jax.doctor.survey import SPLITS, Survey
from lgag_jax.inference import localize
from lgag_jax.inputs.pipeline import steps_per_epoch
from lgag_jax.method import network as networks
from lgag_jax.method.network import Network
from lgag_jax.training import fill_trunk_outputs, optimizer, train_step


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a training holds, from shapes alone: nothing is compiled or run."""

  network: Network
  state_bytes: int
  parameter_bytes: int
  frozen: Any  # Shapes of what the frozen trunk makes of one image.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """Numbers for the report; bytes, seconds."""

  steps_per_epoch: int
  steps: int
  images_drawn: int
  cached: bool  # Whether the frozen trunk's outputs of every split are kept on disk.
  cache_bytes: int
  free_bytes: int  # On the disk of the workdir, or of data.feature_cache_directory.
  read_rate: float  # Images a second, measured.
  read_workers: int
  images_read: int  # By training, decoded from their files; validation and masks come on top.
  read_seconds: float
  memory_bytes: int


def plan(config: Config) -> Plan:
  """Builds the network's shapes; raises ValueError for a config that no training can use."""
  network = networks.build(config)
  channels, side = config.data.channels, config.data.image_size
  trunk = jax.eval_shape(
    functools.partial(network.init_trunk, channels=channels), jax.random.key(0)
  )
  state = jax.eval_shape(
    functools.partial(train_step.fresh_state, network, config, optimizer.make_optimizer(config, 1)),
    trunk,
  )
  image = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
  frozen = jax.eval_shape(network.frozen, state.params, state.statistics, image)
  return Plan(network, _bytes(state), _bytes(state.params), frozen)


def make(survey: Survey, config: Config, planned: Plan, workdir: pathlib.Path) -> Estimate:
  """Returns the estimate for the examples that could be read."""
  counts = {split: len(survey.of(split)) for split in SPLITS}
  epoch = steps_per_epoch(counts["train"], config.train)
  steps = epoch * config.train.epochs
  drawn = steps * config.train.batch_size
  one = sum(int(np.prod(s.shape[1:])) for s in planned.frozen) * np.dtype(np.float16).itemsize
  cached = not localize.several_scales(config) and fill_trunk_outputs.can_cache(
    config, planned.frozen, max(counts.values())
  )
  kept = survey.bytes_decoded <= config.data.decoded_cache_gib * 2**30
  read = counts["train"] if cached or kept else drawn
  # Four batches wait in the pipeline, one is worked on.
  batch = 5 * config.train.batch_size * 4 * config.data.image_size**2 * config.data.channels
  decoded = min(survey.bytes_decoded, config.data.decoded_cache_gib * 2**30)
  folder = pathlib.Path(config.data.feature_cache_directory or workdir).absolute()
  while not folder.exists():
    folder = folder.parent
  return Estimate(
    steps_per_epoch=epoch, steps=steps, images_drawn=drawn, cached=cached,
    cache_bytes=one * sum(counts.values()) if cached else 0,
    free_bytes=shutil.disk_usage(folder).free, read_rate=survey.rate,
    read_workers=survey.workers, images_read=read, read_seconds=read / max(survey.rate, 1e-9),
    memory_bytes=int(planned.state_bytes + planned.parameter_bytes + batch + decoded),
  )


def check(estimate: Estimate) -> list[Finding]:
  """Returns the estimate in words, and a warning where the disk is too small for it."""
  found = []
  if estimate.cache_bytes > estimate.free_bytes:
    found.append(finding(
      WARNING, f"The trunk's outputs take {size(estimate.cache_bytes)} on disk, where "
      f"{size(estimate.free_bytes)} are free.",
      "Free some, set data.feature_cache_directory to another disk, or data.feature_cache_gib=0.",
    ))
  return found + [finding(NOTE, line, "") for line in lines(estimate)]


def lines(estimate: Estimate) -> list[str]:
  """Returns what a training takes, a sentence or two a matter, with how each number came about."""
  e = estimate
  if e.cached:
    disk = f"The frozen trunk's outputs will be kept on disk: {size(e.cache_bytes)} (counted)."
  else:
    disk = "The trunk's outputs will not be kept on disk: each step runs the trunk."
  return [
    f"A training takes {e.steps:,} steps, {e.steps_per_epoch:,} an epoch, and looks at "
    f"{e.images_drawn:,} images, repeats counted.",
    f"Reading {e.images_read:,} images for it takes about {duration(e.read_seconds)} at the "
    f"{e.read_rate:,.0f} images/s measured here ({e.read_workers} threads, the doctor's own sums "
    "included). The network's own time was not measured: the training's progress line tells after "
    "its first steps.",
    disk,
    f"Memory is at least {size(e.memory_bytes)} (counted, not measured: parameters, optimiser, "
    "gradient, five batches and the decoded images kept). What the step needs for activations and "
    "the program itself come on top; train.accumulate lowers the former.",
  ]


def size(count: float) -> str:
  """Returns bytes in readable units."""
  return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def duration(seconds: float) -> str:
  """Returns seconds in readable units."""
  if seconds < 120:
    return f"{max(seconds, 1):.0f} s"
  return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _bytes(tree: Any) -> int:
  leaves = jax.tree.leaves(tree)
  return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in leaves)

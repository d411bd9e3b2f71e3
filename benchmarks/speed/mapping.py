"""Mapping's program alone: windows of noise through the network, its guided maps and refinement."""

import statistics

import jax
import numpy as np

from benchmarks import programs
from benchmarks.speed import timing
from lgag_jax.inference import localize
from lgag_jax.runtime import sharding


def run(settings: dict) -> dict:
  """Returns megapixels per second of whole windows; overlap, reading and writing are not in it."""
  changes = settings.get("changes") or {}
  config = programs.named(settings["file"], settings["method"], changes)
  training = programs.training(config)
  size, side = config.localize.batch_size, config.data.image_size
  images = np.random.default_rng(0).random((size, side, side, config.data.channels), np.float32)
  batch = sharding.to_global({"image": images}, training.mesh)
  map_windows = localize.make_localize(training.network, config, training.mesh)
  times = timing.interleaved(
    {"map": lambda: jax.block_until_ready(map_windows(training.state, batch))},
    repeats=settings["repeats"], at_least_s=settings.get("at_least_s", 0.0),
  )["map"]
  median = statistics.median(times)
  return {
    "map_s": median, "times": times, "megapixels_per_s": size * side**2 / 1e6 / median,
    "device_peak_mib": timing.device_peak_mib(), "peak_mib": timing.peak_mib(),
  }

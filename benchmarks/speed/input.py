"""How fast the input pipeline is, alone and against the step that it feeds, on generated tiles."""

import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np
from PIL import Image

from benchmarks import programs
from benchmarks.speed import timing
from lgag_jax.config import Config
from lgag_jax.inputs.pipeline import Reader, steps_per_epoch, train_batches
from lgag_jax.inputs.sources import Source, open_source
from lgag_jax.runtime import sharding
from lgag_jax.training import fill_trunk_outputs

_EPOCHS = 1000  # More than are read.


def run(settings: dict) -> dict:
  """Measures passes over the pipeline alone, the step alone, and the loop of both."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    write_tiles(folder / "images", settings["images"], settings["size"])
    changes = {
      **settings.get("changes", {}), "data.directory": str(folder / "images"),
      "data.validation_fraction": 0.0, "train.epochs": _EPOCHS, "train.min_steps": 0,
    }
    config = programs.named(settings["file"], settings["method"], changes)
    return _measure(config, settings, folder)


def write_tiles(root: pathlib.Path, count: int, side: int) -> None:
  """Writes `count` PNG images of side x side pixels, half of them as positives."""
  random = np.random.default_rng(0)
  for folder in ("landslide", "non-landslide"):
    (root / folder).mkdir(parents=True)
  for number in range(count):
    # Slopes and grain: neither flat nor noise alone compresses as imagery does.
    slopes = random.integers(40, 200, (9, 9, 3), dtype=np.uint8)
    slopes = Image.fromarray(slopes).resize((side, side), Image.Resampling.BICUBIC)
    grain = random.normal(0.0, 6.0, (side, side, 3))
    image = np.clip(np.asarray(slopes) + grain, 0, 255).astype(np.uint8)
    folder = "landslide" if number % 2 else "non-landslide"
    Image.fromarray(image).save(root / folder / f"{number:05d}.png")


def _measure(config: Config, settings: dict, folder: pathlib.Path) -> dict:
  source = open_source(config.data, "train")
  reader = Reader(source, config.data)
  cached = settings.get("taps", False)
  training = programs.training(config, taps=cached)
  read, result = reader, {}
  if cached:
    start = time.perf_counter()
    read = fill_trunk_outputs.open_cache(
      training.network, training.state, source, reader, config, training.mesh, folder / "features"
    )
    if read is None:
      raise ValueError("The feature cache was not made: it would not fit, or the config forbids it.")
    result["fill_images_per_s"] = len(source.ids) / (time.perf_counter() - start)
  first, *later = pass_rates(source, read, config, settings["passes"])
  times = timing.interleaved({"step": training.advance}, repeats=settings["repeats"])["step"]
  step_rate = config.train.batch_size / statistics.median(times)
  later_rate = statistics.median(later)
  return {
    **result, "first_images_per_s": first, "later_images_per_s": later_rate,
    "step_images_per_s": step_rate, "ratio": later_rate / step_rate,
    "first_ratio": first / step_rate,
    **loop(source, read, training, settings["steps"]), "peak_mib": timing.peak_mib(),
  }


def pass_rates(source: Source, read, config: Config, passes: int) -> list[float]:
  """Returns images a second of each pass over the pipeline alone, nobody waiting for a step."""
  steps = steps_per_epoch(len(source.ids), config.train)
  batches = train_batches(source, read, config, start_step=0)
  rates = []
  for _ in range(passes):
    start = time.perf_counter()
    for _ in range(steps):
      next(batches)
    rates.append(steps * config.train.batch_size / (time.perf_counter() - start))
  batches.close()
  return rates


def loop(source: Source, read, training: programs.Training, steps: int) -> dict:
  """Trains some steps as train.py does; returns images a second and the share spent waiting.

  Each step is waited for: what is left of the time in next() is input that came too late.
  """
  batches = train_batches(source, read, training.config, start_step=0)
  waited = start = 0.0
  for number in range(steps + 1):
    if number == 1:  # The first batch fills the pipeline.
      waited, start = 0.0, time.perf_counter()
    before = time.perf_counter()
    batch = next(batches)
    waited += time.perf_counter() - before
    batch.pop("index")
    training.state, _ = training.step(training.state, sharding.to_global(batch, training.mesh))
    jax.block_until_ready(training.state)
  total = time.perf_counter() - start
  batches.close()
  return {
    "loop_images_per_s": steps * training.config.train.batch_size / total,
    "waiting_share": waited / total,
  }

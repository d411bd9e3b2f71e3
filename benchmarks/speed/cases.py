"""One measurement in a process of its own, for benchmarks.speed: settings as JSON in, numbers out.

python -m benchmarks.speed.cases \
  '{"kind": "step", "file": "image_folder", "method": "sol", "repeats": 3}'
"""

import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import traverse_util

from benchmarks import programs
from benchmarks.speed import timing, trunks
from lgag_jax.trunks import pretrained

_PRODUCT_SIDE = 2048


def main() -> None:
  settings = json.loads(sys.argv[1])
  if "devices" in settings:
    jax.config.update("jax_num_cpu_devices", settings["devices"])
  print(json.dumps(run(settings)))


def run(settings: dict) -> dict:
  """Runs the measurement that "kind" names; returns its numbers."""
  kinds = {"step": step, "added": added, "trunk": trunk}
  if settings["kind"] in kinds:
    return kinds[settings["kind"]](settings)
  # These read images, or start trainings: TensorFlow would weigh on the memory of the others.
  return importlib.import_module(f"benchmarks.speed.{settings['kind']}").run(settings)


def keep_compiled_in(directory: str) -> None:
  """Makes JAX keep every compiled program in a folder."""
  jax.config.update("jax_compilation_cache_dir", directory)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def product() -> Callable[[], None]:
  """Returns a matrix product to compare with: 2048 x 2048 twice, f32."""
  factor = jnp.ones((_PRODUCT_SIDE, _PRODUCT_SIDE), jnp.float32)
  multiply = jax.jit(jnp.matmul)
  return lambda: jax.block_until_ready(multiply(factor, factor))


def product_flops() -> float:
  """Returns the FLOPs of that product."""
  return 2.0 * _PRODUCT_SIDE**3


def step(settings: dict) -> dict:
  """Measures a training step: time, compilation, memory, FLOPs and their rate."""
  config = programs.named(settings["file"], settings["method"], settings.get("changes"))
  taps, twice = settings.get("taps", False), settings.get("warm", True)
  with tempfile.TemporaryDirectory() as cache:
    if twice:
      keep_compiled_in(cache)
    training = programs.training(config, taps=taps)
    lowering = partial(training.step.lower, training.state, training.batch)
    start = time.perf_counter()
    lowered = lowering()
    traced = time.perf_counter() - start
    training.step = compiled = lowered.compile()
    cold = time.perf_counter() - start
    compile_mib = timing.peak_mib()
    times = timing.interleaved(
      {"step": training.advance, "product": product()}, repeats=settings["repeats"],
      at_least_s=settings.get("at_least_s", 0.0),
    )
    peak = timing.peak_mib()
    warm = None
    if twice:
      jax.clear_caches()
      warm = timing.seconds(lambda: lowering().compile())
  flops = programs.model_flops(config, taps=taps)
  median = statistics.median(times["step"])
  return {
    "step_s": median, "images_per_s": config.train.batch_size / median, "times": times,
    "step_per_product": timing.paired_ratio(times["step"], times["product"]),
    "trace_s": traced, "compile_cold_s": cold, "compile_warm_s": warm,
    "device_peak_mib": timing.device_peak_mib(),
    "peak_mib": peak, "peak_after_compile_mib": compile_mib, "flops": flops,
    "bytes_accessed": compiled.cost_analysis()["bytes accessed"],
    "temp_mib": compiled.memory_analysis().temp_size_in_bytes / 2**20,
    "flops_per_s": flops / median,
    "share_of_product": flops / product_flops() * timing.paired_ratio(times["product"], times["step"]),
  }


def added(settings: dict) -> dict:
  """Measures what each method adds to the first of them, step by step in turn, and in FLOPs."""
  trainings, flops = {}, {}
  for method in settings["methods"]:
    config = programs.named(settings["file"], method, settings.get("changes"))
    flops[method] = programs.model_flops(config)
    training = trainings[method] = programs.training(config)
    training.step = training.step.lower(training.state, training.batch).compile()
  times = timing.interleaved(
    {method: training.advance for method, training in trainings.items()},
    repeats=settings["repeats"],
  )
  base = settings["methods"][0]
  return {
    "base": base, "flops": flops, "times": times,
    "step_s": {method: statistics.median(values) for method, values in times.items()},
    "added_flops": {method: count / flops[base] - 1.0 for method, count in flops.items()},
    "added_time": {
      method: timing.paired_ratio(values, times[base]) - 1.0 for method, values in times.items()
    },
    "peak_mib": timing.peak_mib(),
  }


def trunk(settings: dict) -> dict:
  """Measures what torch_trunks.py does: gradients of all of a trunk's parameters, f32."""
  keep_compiled_in(settings["cache"])
  name, batch, side = (settings[key] for key in ("trunk", "batch", "size"))
  gradient, arguments = trunks.gradients(name, batch, side)
  advance = lambda: jax.block_until_ready(gradient(*arguments))
  times = timing.interleaved({"step": advance}, repeats=settings["repeats"])["step"]
  leaves = cast(dict[tuple, Any], traverse_util.flatten_dict(arguments[0]["params"]))
  return {
    "images_per_s": batch / statistics.median(times), "times": times,
    "parameters": {torch_name(leaf): list(pretrained.stored_shape(value.shape))
                   for leaf, value in leaves.items()},
    "flops": trunks.forward_flops(name, batch, side), "peak_mib": timing.peak_mib(),
  }


def torch_name(leaf: tuple[str, ...]) -> str:
  """Names a leaf, such as ("stem", "norm", "scale"), as torch_trunks.py does."""
  *path, kind = leaf
  return ".".join((*path, {"kernel": "weight", "scale": "weight"}.get(kind, kind)))


if __name__ == "__main__":
  main()

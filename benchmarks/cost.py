"""Counts that no clock touches: parameters, SOL's memory, the FLOPs that the method adds.

python -m benchmarks.cost --json
"""

import argparse
import dataclasses
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np

from configs import methods
from lgag_jax import config as configs
from lgag_jax import optimizer, partition, session, train_step
from lgag_jax.config import Config
from lgag_jax.models import network as networks
from lgag_jax.models import sol
from lgag_jax.state import TrainState

DATA_SETS = ("image_folder", "landslide4sense_rgb", "lgagnet_resnet50", "synthetic_landslides")
SIDES = (16, 32, 64, 128)


def named_configs() -> dict[str, Config]:
  """Returns every config file's default and every method of the image folder's, by name."""
  result = {}
  for name in DATA_SETS:
    module = importlib.import_module(f"configs.{name}")
    result[name] = configs.from_mapping(module.get_config())
  folder = importlib.import_module("configs.image_folder")
  for method in methods.METHODS:
    result[f"image_folder:{method}"] = configs.from_mapping(folder.get_config(method))
  return result


def state_shapes(config: Config) -> TrainState:
  """Returns the shapes of a config's train state; no array is made and no weight read."""
  network = networks.build(config)
  transform = optimizer.make_optimizer(config, 1)

  def init(key):
    trunk = network.init_trunk(key, config.data.channels)
    return train_step.fresh_state(network, config, transform, trunk)

  return jax.eval_shape(init, jax.random.key(0))


def parameters(config: Config) -> int:
  """Counts a config's parameters, trunk included."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state_shapes(config).params))


def sol_temp_bytes(side: int, *, features: int = 128) -> int:
  """Returns the compiled temporary memory of SOL's overlap and its gradient on a side x side grid."""
  rows = Config().sol.block_rows

  def loss(f, maps):
    return jnp.sum(sol.overlap(f, maps, block_rows=rows, epsilon=1e-5) ** 2)

  shapes = [jax.ShapeDtypeStruct((1, side * side, width), jnp.float32) for width in (features, 2)]
  compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes).compile()
  return int(compiled.memory_analysis().temp_size_in_bytes)


def step_flops(config: Config) -> float:
  """Returns the FLOPs of one compiled training step, by XLA's own count."""
  # XLA counts a loop's body once: in one block all of SOL's rows are counted.
  whole = dataclasses.replace(config.sol, block_rows=config.data.image_size**2)
  config = dataclasses.replace(config, sol=whole)
  mesh = partition.make_mesh()
  network = networks.build(config)
  transform = optimizer.make_optimizer(config, 1)
  step = train_step.make_train_step(network, config, transform, mesh, steps_per_epoch=1)
  size, side = config.train.batch_size, config.data.image_size
  batch = {
    "image": jax.ShapeDtypeStruct((size, side, side, config.data.channels), jnp.float32),
    "mask": jax.ShapeDtypeStruct((size, side, side), jnp.uint8),
    "weight": jax.ShapeDtypeStruct((size,), jnp.float32),
    "label": jax.ShapeDtypeStruct((size, len(config.data.classes)), jnp.float32),
  }
  return float(step.lower(state_shapes(config), batch).compile().cost_analysis()["flops"])


def published(method: str) -> Config:
  """Returns the published setting with one of its methods."""
  module = importlib.import_module("configs.lgagnet_resnet50")
  return configs.from_mapping(module.get_config(method))


def measure() -> dict:
  """Returns all counts."""
  return {
    "parameters": {name: parameters(config) for name, config in named_configs().items()},
    "sol_temp_bytes": {str(side): sol_temp_bytes(side) for side in SIDES},
    "step_flops": {
      "class_activation": step_flops(published("lgagnet_class_activation")),
      "whole": step_flops(published("lgagnet")),
    },
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
  arguments = parser.parse_args()
  session.prepare_jax()
  counts = measure()
  if arguments.json:
    print(json.dumps(counts, indent=2))
    return
  for name, count in counts["parameters"].items():
    print(f"{count:>12,} parameters: {name}")
  for side, size in counts["sol_temp_bytes"].items():
    print(f"{size:>12,} bytes: SOL and its gradient on {side} x {side}")
  flops = counts["step_flops"]
  added = flops["whole"] / flops["class_activation"] - 1.0
  print(f"The method adds {added:.1%} FLOPs to class activation's {flops['class_activation']:.4g}.")


if __name__ == "__main__":
  main()

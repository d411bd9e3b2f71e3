"""Counts that no clock touches: parameters, SOL's memory, the FLOPs that the method adds.

python -m benchmarks.cost --json
"""

import argparse
import importlib
import json
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.programs import named, published, state_shapes, step_flops
from lgag_jax import config as configs
from lgag_jax.config import Config
from lgag_jax.method import registry, sol
from lgag_jax.runtime import compiled_programs

DATA_SETS = (
  "image_folder", "landslide4sense_rgb", "lgagnet_resnet50", "scene", "synthetic_landslides",
  "image_folder_stage2", "landslide4sense_rgb_stage2", "synthetic_landslides_stage2",
  "bijie", "gvlm", "landslide4sense", "cas_landslide", "hr_gldd", "synthetic_classes",
  "synthetic_pairs",
)
SIDES = (16, 32, 64, 128)


def named_configs() -> dict[str, Config]:
  """Returns every config file's default and every method of the image folder's, by name."""
  result = {}
  for name in DATA_SETS:
    module = importlib.import_module(f"configs.{name}")
    result[name] = configs.from_mapping(module.get_config())
  for method in registry.OWN:
    result[f"image_folder:{method}"] = named("image_folder", method)
  return result


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
  return int(cast(Any, compiled.memory_analysis()).temp_size_in_bytes)


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
  compiled_programs.enable_cache()
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

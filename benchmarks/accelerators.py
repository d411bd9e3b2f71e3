"""What TPUs would run: training steps compiled for them by their own compiler, on any Linux machine.

python -m benchmarks.accelerators                # needs libtpu: pip install libtpu
python -m benchmarks.accelerators --topology=v5e:4x4 --batch=256

No TPU is needed, and nothing runs: memory, FLOPs and the exchange between chips are the compiler's.
"""

import argparse
import importlib.util
import json
import os
import time

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from benchmarks import hlo
from benchmarks.programs import batch_shapes, named, state_shapes
from lgag_jax.config import Config
from lgag_jax.method import network as networks
from lgag_jax.runtime import sharding
from lgag_jax.training import optimizer, train_step

# File, method, and what differs from it.
CASES = (
  ("image_folder", "lgag", {}),
  ("image_folder", "lgag", {"model.precision": "bfloat16"}),
  ("image_folder", "sol", {}),
  ("image_folder", "class_activation", {}),
  ("image_folder", "segmentation", {}),
  ("landslide4sense_rgb", "lgag", {}),
  ("synthetic_landslides", "lgag", {}),
  ("lgagnet_resnet50", "lgagnet", {"model.precision": "bfloat16"}),
  ("lgagnet_resnet50", "lgagnet", {"model.precision": "bfloat16", "train.shard_state": True}),
  ("lgagnet_resnet50", "lgagnet", {"model.precision": "bfloat16", "bank.slots": 50000}),
)


def tpu_mesh(topology: str) -> Mesh:
  """Returns the mesh over a TPU topology such as "v5e:2x4"; raises ValueError without its compiler."""
  if importlib.util.find_spec("libtpu") is None:
    raise ValueError("The TPU compiler is missing: pip install libtpu.")
  # Else libtpu asks the network which TPU it is on.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  devices = topologies.get_topology_desc(topology, "tpu").devices
  return sharding.make_mesh(devices)


def case_config(file: str, method: str, changes: dict, *, batch: int) -> Config:
  """Returns a case's config with a global batch and random weights, which change no shape."""
  return named(file, method, {
    **changes, "train.batch_size": batch, "train.accumulate": 1, "model.weights": "random",
  })


def compiled_counts(config: Config, mesh: Mesh) -> dict:
  """Compiles a config's step for a TPU mesh; returns bytes and FLOPs, a chip each."""
  network, transform = networks.build(config, "tpu"), optimizer.make_optimizer(config, 100)
  step = train_step.make_train_step(network, config, transform, mesh, steps_per_epoch=1)
  state = state_shapes(config)
  shardings = sharding.state_sharding(state, mesh, config.train.shard_state)
  placed = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings
  )
  start = time.monotonic()
  compiled = step.lower(placed, batch_shapes(config)).compile()
  memory = compiled.memory_analysis()
  exchanged = hlo.collectives(compiled.as_text())
  largest = max(exchanged, key=lambda c: c.bytes)
  return {
    "state_bytes": sum(
      int(np.prod(s.shard_shape(x.shape))) * x.dtype.itemsize
      for x, s in zip(jax.tree.leaves(state), jax.tree.leaves(shardings), strict=True)
    ),
    "peak_bytes": memory.peak_memory_in_bytes,
    "aliased_bytes": memory.alias_size_in_bytes,
    "flops": compiled.cost_analysis()["flops"],
    "collectives": len(exchanged),
    "exchanged_bytes": sum(c.bytes for c in exchanged),
    "largest": f"{largest.kind} of {largest.arrays} arrays, {largest.bytes / 2**20:.2f} MiB",
    "compile_seconds": time.monotonic() - start,
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument("--topology", default="v5e:2x4")
  parser.add_argument("--batch", type=int, default=64, help="over all chips")
  parser.add_argument("--cases", type=int, nargs="*", help="numbers of the cases to compile")
  parser.add_argument("--json", help="a file for the numbers")
  arguments = parser.parse_args()
  mesh = tpu_mesh(arguments.topology)
  results = {}
  print(f"{arguments.topology}, global batch {arguments.batch}, a chip:")
  print("| config | state MiB | in place | peak MiB | GFLOP | exchanges | MiB exchanged | largest |")
  print("| --- | --- | --- | --- | --- | --- | --- | --- |")
  for number in arguments.cases or range(len(CASES)):
    file, method, changes = CASES[number]
    config = case_config(file, method, changes, batch=arguments.batch)
    name = " ".join((f"{file}:{method}", *(f"{k}={v}" for k, v in changes.items())))
    counts = results[name] = compiled_counts(config, mesh)
    print(
      f"| {name} | {counts['state_bytes'] / 2**20:.0f} | {counts['aliased_bytes'] / 2**20:.0f} "
      f"| {counts['peak_bytes'] / 2**20:.0f} | {counts['flops'] / 1e9:.0f} | {counts['collectives']} "
      f"| {counts['exchanged_bytes'] / 2**20:.1f} | {counts['largest']} |", flush=True,
    )
    if arguments.json:
      with open(arguments.json, "w") as file_out:
        json.dump(results, file_out, indent=2)


if __name__ == "__main__":
  main()

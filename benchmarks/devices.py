"""How far rounding takes a training: on 4 devices, and with every weight changed by its last bit.

python -m benchmarks.devices

Twenty steps on images of random ground with a bright square, against the same on one device. Steps
that take other numbers apart no further than the last bit of the weights does are the same steps.
"""

import argparse
import dataclasses

import jax
import numpy as np

from benchmarks import small
from benchmarks.programs import named
from lgag_jax.config import Config
from lgag_jax.runtime import sharding
from lgag_jax.training import restore, train_step

STEPS, BATCH = 20, small.SETTINGS["train.batch_size"]
CASES = {
  "frozen trunk": {},
  "frozen trunk, bfloat16": {"model.precision": "bfloat16"},
  "frozen ResNet-50": {"model.trunk": "resnet50", "model.weights": "random"},
  "trained trunk, a tenth of the rate": {
    "model.first_trainable_stage": 1, "data.augment": "image", "optim.learning_rate": 0.001,
  },
  "trained trunk": {"model.first_trainable_stage": 1, "data.augment": "image"},
}
LAST_BIT = 6e-8  # Of a float32, relative.


def batches() -> list[dict]:
  """Returns four batches, every second image with a square."""
  ground, _ = small.images(4 * BATCH)
  label = np.float32([[1], [0]] * (BATCH // 2))
  whole = {
    "mask": np.zeros((BATCH, *ground.shape[1:3]), np.uint8), "weight": np.ones(BATCH, np.float32),
    "label": label,
  }
  return [{"image": np.float32(part) / 255, **whole} for part in np.split(ground, 4)]


def losses(config: Config, devices: int, change: float = 0.0) -> np.ndarray:
  """Trains on that many devices, each weight multiplied by 1 + or - `change`; returns the losses."""
  mesh = sharding.make_mesh(jax.devices()[:devices])
  network, optimizer, state = restore.start(config, mesh, STEPS)
  random = np.random.default_rng(0)
  changed = jax.tree.map(
    lambda x: np.float32(np.asarray(x) * (1 + change * random.choice([-1, 1], x.shape))), state.params
  )
  state = dataclasses.replace(state, params=jax.device_put(changed, sharding.replicated_sharding(mesh)))
  step = train_step.make_train_step(network, config, optimizer, mesh, steps_per_epoch=4)
  refresh = train_step.make_refresh(config, mesh)
  result, data = [], batches()
  for number in range(STEPS):
    if number % len(data) == 0:
      state = dataclasses.replace(state, bank=refresh(state.bank))
    state, metrics = step(state, sharding.to_global(data[number % len(data)], mesh))
    result.append(float(metrics["loss"]))
  return np.array(result)


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
  arguments = parser.parse_args()
  jax.config.update("jax_num_cpu_devices", 4)
  print("Largest relative difference of the loss over 20 steps from one device's:")
  print("| | 4 devices | every weight's last bit changed |")
  print("| --- | --- | --- |")
  for name in arguments.cases:
    config = named("image_folder", "lgag", {**small.SETTINGS, **CASES[name]})
    one = losses(config, 1)
    apart = [
      np.max(np.abs(losses(config, devices, change) / one - 1))
      for devices, change in ((4, 0.0), (1, LAST_BIT))
    ]
    print(f"| {name} | {apart[0]:.1e} | {apart[1]:.1e} |", flush=True)


if __name__ == "__main__":
  main()

"""How far rounding takes a training: on 4 devices, and with every weight changed by its last bit.

python -m benchmarks.devices

Twenty steps on images of random ground with a bright square, against the same on one device. Steps
that take other numbers apart no further than the last bit of the weights does are the same steps.
"""

import argparse

import jax
import numpy as np

from benchmarks.programs import named
from lgag_jax import partition, session, train_step
from lgag_jax.config import Config

STEPS, BATCH, SIDE = 20, 8, 64
CASES = {
  "frozen trunk": {},
  "frozen trunk, bfloat16": {"model.precision": "bfloat16"},
  "trained trunk, a tenth of the rate": {
    "model.first_trainable_stage": 1, "data.augment": "image", "optim.learning_rate": 0.001,
  },
  "trained trunk": {"model.first_trainable_stage": 1, "data.augment": "image"},
}
SMALL = {
  "data.image_size": SIDE, "train.batch_size": BATCH, "model.side_widths": (8, 8, 8, 8),
  "model.head_width": 16, "model.grid_stride": 16, "bank.slots": 24, "bank.centres": 3,
  "bank.min_confidence": 0.1,
}
LAST_BIT = 6e-8  # Of a float32, relative.


def batches() -> list[dict]:
  """Returns four batches, every second image with a square."""
  random = np.random.default_rng(7)
  result = []
  for _ in range(4):
    images = random.uniform(0.15, 0.35, (BATCH, SIDE, SIDE, 3)).astype(np.float32)
    for image in images[::2]:
      top, left = random.integers(0, SIDE - 24, 2)
      image[top : top + 24, left : left + 24] += np.float32([0.6, 0.35, 0.1])
    result.append({
      "image": images, "mask": np.zeros((BATCH, SIDE, SIDE), np.uint8),
      "weight": np.ones(BATCH, np.float32),
      "label": np.float32([[1], [0]] * (BATCH // 2)),
    })
  return result


def losses(config: Config, devices: int, change: float = 0.0) -> np.ndarray:
  """Trains on that many devices, each weight multiplied by 1 + or - `change`; returns the losses."""
  mesh = partition.make_mesh(jax.devices()[:devices])
  network, optimizer, state = session.start(config, mesh, STEPS)
  random = np.random.default_rng(0)
  changed = jax.tree.map(
    lambda x: np.float32(np.asarray(x) * (1 + change * random.choice([-1, 1], x.shape))), state.params
  )
  state = state.replace(params=jax.device_put(changed, partition.replicated(mesh)))
  step = train_step.make_train_step(network, config, optimizer, mesh, steps_per_epoch=4)
  refresh = train_step.make_refresh(config, mesh)
  result, data = [], batches()
  for number in range(STEPS):
    if number % len(data) == 0:
      state = state.replace(bank=refresh(state.bank))
    state, metrics = step(state, partition.to_global(data[number % len(data)], mesh))
    result.append(float(metrics["loss"]))
  return np.array(result)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
  arguments = parser.parse_args()
  jax.config.update("jax_num_cpu_devices", 4)
  print("Largest relative difference of the loss over 20 steps from one device's:")
  print("| | 4 devices | every weight's last bit changed |")
  print("| --- | --- | --- |")
  for name in arguments.cases:
    config = named("image_folder", "lgag", {**SMALL, **CASES[name]})
    one = losses(config, 1)
    apart = [np.max(np.abs(losses(config, *run) / one - 1)) for run in ((4,), (1, LAST_BIT))]
    print(f"| {name} | {apart[0]:.1e} | {apart[1]:.1e} |", flush=True)


if __name__ == "__main__":
  main()

"""Whether an accelerator computes what a CPU does: a few training steps and a map on both."""

import dataclasses

import jax
import numpy as np

from benchmarks import programs
from lgag_jax.config import Config
from lgag_jax.inference import localize
from lgag_jax.method import network as networks
from lgag_jax.runtime import sharding
from lgag_jax.training import optimizer, train_step


def run(settings: dict) -> dict:
  """Returns the largest differences between the default device and a CPU of the same process.

  Losses are compared relatively, step by step, each from the CPU's state: so a difference does not
  grow over the steps. Maps are scores in [0, 1]. Raises RuntimeError if JAX has no CPU beside it.
  """
  config = programs.named(settings["file"], settings["method"], settings.get("changes"))
  config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, contrast_from_epoch=0))
  devices = {"device": jax.devices()[0], "cpu": jax.devices("cpu")[0]}
  batch, state = programs.random_batch(config), programs.random_state(config)
  sides = {name: _Side(config, device) for name, device in devices.items()}
  losses, scores = {name: [] for name in sides}, {}
  for _ in range(settings["steps"]):
    after = {name: side.advance(state, batch) for name, side in sides.items()}
    for name, (_, loss) in after.items():
      losses[name].append(loss)
    state = after["cpu"][0]
  scores = {name: side.map(state, batch) for name, side in sides.items()}
  relative = np.abs(np.array(losses["device"]) / np.array(losses["cpu"]) - 1.0)
  return {
    "platform": devices["device"].platform, "steps": settings["steps"], "losses": losses,
    "loss_difference": float(relative.max()),
    "map_difference": float(np.abs(scores["device"] - scores["cpu"]).max()),
  }


class _Side:
  """One device with its own programs, in the forms that its platform takes."""

  def __init__(self, config: Config, device):
    self._config, self._mesh = config, sharding.make_mesh([device])
    platform = str(device.platform)
    self._network = networks.build(config, "cuda" if platform == "gpu" else platform)
    transform = optimizer.make_optimizer(config, 10**6)
    self._step = train_step.make_train_step(
      self._network, config, transform, self._mesh, steps_per_epoch=1
    )
    self._map = localize.make_localize(self._network, config, self._mesh)

  def advance(self, state, batch: dict):
    """Takes one step from a host state; returns the host state after it, and the loss."""
    state, metrics = self._step(self._placed(state), sharding.to_global(batch, self._mesh))
    return jax.tree.map(np.asarray, state), float(metrics["loss"])

  def map(self, state, batch: dict) -> np.ndarray:
    """Returns the scores of the main map."""
    inputs = sharding.to_global({"image": batch["image"]}, self._mesh)
    maps = self._map(self._placed(state), inputs)
    return np.asarray(maps.scores[localize.main_map_name(self._config)])

  def _placed(self, state):
    return jax.device_put(state, sharding.state_sharding(state, self._mesh, False))

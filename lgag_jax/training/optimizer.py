"""The optax chain and schedule that a config describes."""

from collections.abc import Hashable
from typing import Any

import jax
import optax

from lgag_jax.config import Config


def schedule(config: Config, steps: int) -> optax.Schedule:
  """Returns the polynomial decay to zero at `steps`; it is constant from there on."""
  return optax.polynomial_schedule(1.0, 0.0, config.optim.decay_power, max(steps, 1))


def make_optimizer(config: Config, steps: int) -> optax.GradientTransformation:
  """Builds the optimiser over {"trunk": ..., "head": ...}: clip, then a group a learning rate.

  Weight decay is added to the gradient for SGD (L2, as torch does) and decoupled for AdamW. Norm
  parameters and biases are decayed like all others, as the published code does.
  """
  rate = config.optim.learning_rate
  relative = schedule(config, steps)
  groups: dict[Hashable, optax.GradientTransformation] = {
    "frozen": optax.set_to_zero(),
    "trunk": _base(config, lambda step: rate * relative(step)),
    "new": _base(config, lambda step: rate * config.optim.new_multiplier * relative(step)),
  }

  def labels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: group(path, config), params)

  by_group = optax.partition(groups, labels)
  if config.optim.clip_norm == 0:
    return by_group
  return optax.chain(optax.clip_by_global_norm(config.optim.clip_norm), by_group)


def group(path: tuple, config: Config) -> str:
  """Names a parameter's group: "frozen", "trunk" or "new"."""
  names = [key.key for key in path]
  if names[0] != "trunk":
    return "new"
  stage = names[1].removeprefix("stage")
  trained = stage != "stem" and int(stage) >= config.model.first_trainable_stage
  return "trunk" if trained else "frozen"


def _base(config: Config, learning_rate: optax.Schedule) -> optax.GradientTransformation:
  optim = config.optim
  if optim.name == "adamw":
    return optax.adamw(learning_rate, weight_decay=optim.weight_decay)
  momentum = optim.momentum or None
  return optax.chain(optax.add_decayed_weights(optim.weight_decay), optax.sgd(learning_rate, momentum))

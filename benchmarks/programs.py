"""Training steps to be counted or timed: their configs, states, batches and compiled programs."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.stages import Lowered

from lgag_jax import config as configs
from lgag_jax.config import Config
from lgag_jax.method import network as networks
from lgag_jax.method.network import Network
from lgag_jax.runtime import sharding
from lgag_jax.state import TrainState
from lgag_jax.training import optimizer, train_step


def named(file: str, method: str, changes: Mapping[str, Any] | None = None) -> Config:
  """Returns a file's config with a method, fields changed by dotted names ("train.batch_size")."""
  config = importlib.import_module(f"configs.{file}").get_config(method)
  fields = dict(changes or {})
  config.update_from_flattened_dict({
    name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
  })
  return configs.from_mapping(config)


def published(method: str) -> Config:
  """Returns the published setting with one of its methods."""
  return named("lgagnet_resnet50", method)


@functools.lru_cache(maxsize=4)
def state_shapes(config: Config) -> TrainState:
  """Returns the shapes of a config's train state; no array is made and no weight read."""
  transform = optimizer.make_optimizer(config, 1)
  return train_step.state_shapes(networks.build(config), config, transform)


def batch_shapes(config: Config, *, taps: bool = False) -> dict:
  """Returns the shapes of a training batch: of images, or of the frozen trunk's f16 outputs."""
  size, side = config.train.batch_size, config.data.image_size
  image = jax.ShapeDtypeStruct((size, side, side, config.data.channels), jnp.float32)
  fields = {
    "mask": jax.ShapeDtypeStruct((size, side, side), jnp.uint8),
    "weight": jax.ShapeDtypeStruct((size,), jnp.float32),
    "label": jax.ShapeDtypeStruct((size, len(config.data.classes)), jnp.float32),
  }
  if not taps:
    return {"image": image, **fields}
  state = state_shapes(config)
  outputs = jax.eval_shape(networks.build(config).frozen, state.params, state.statistics, image)
  return {"taps": tuple(jax.ShapeDtypeStruct(x.shape, jnp.float16) for x in outputs), **fields}


def lower_step(config: Config, *, taps: bool = False) -> Lowered:
  """Lowers a config's training step without making an array."""
  transform = optimizer.make_optimizer(config, 1)
  step = train_step.make_train_step(
    networks.build(config), config, transform, sharding.make_mesh(), steps_per_epoch=1
  )
  return step.lower(state_shapes(config), batch_shapes(config, taps=taps))


def with_sol_in_one_block(config: Config) -> Config:
  """Returns a config whose step XLA counts whole: of a loop it counts the body once."""
  whole = dataclasses.replace(config.sol, block_rows=config.data.image_size**2)
  return dataclasses.replace(config, sol=whole)


def step_flops(config: Config) -> float:
  """Returns the FLOPs of one compiled training step, by XLA's own count."""
  compiled = lower_step(with_sol_in_one_block(config)).compile()
  return float(cast(dict, compiled.cost_analysis())["flops"])


def model_flops(config: Config, *, taps: bool = False) -> float:
  """Returns the FLOPs that one training step asks for, counted before XLA optimises it."""
  # The fast form of depthwise convolution has a loop of its own; the plain one is compiled into
  # something that does far more work than it asks for. So: the plain one, not compiled.
  model = dataclasses.replace(config.model, depthwise="conv")
  config = dataclasses.replace(with_sol_in_one_block(config), model=model)
  return float(cast(dict, lower_step(config, taps=taps).cost_analysis())["flops"])


def random_values(shapes: Any) -> Any:
  """Returns host arrays for shapes: fan-in scaled kernels, all else as a network's start has it.

  Drawing them compiles nothing, where the network's own start compiles a whole forward pass.
  """
  random = np.random.default_rng(0)

  def value(path, shape):
    name = getattr(path[-1], "key", "")
    if name == "kernel":
      deviation = np.sqrt(2.0 / np.prod(shape.shape[:-1]))
      return random.standard_normal(shape.shape, np.float32) * np.float32(deviation)
    ones = name.startswith("scale") or name == "var"
    return np.full(shape.shape, ones, shape.dtype)

  return jax.tree_util.tree_map_with_path(value, shapes)


def random_state(config: Config) -> TrainState:
  """Returns a host state of random weights whose bank is full and ready: the work of later epochs."""
  state = random_values(state_shapes(config))
  random = np.random.default_rng(1)

  def vectors(like: np.ndarray) -> np.ndarray:
    rows = random.standard_normal(like.shape, np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

  bank = state.bank.replace(
    features=vectors(state.bank.features), valid=np.ones_like(state.bank.valid),
    centres=vectors(state.bank.centres), ready=np.ones_like(state.bank.ready),
  )
  return state.replace(bank=bank)


def random_batch(config: Config, *, taps: bool = False) -> dict:
  """Returns a host batch of noise whose labels take turns, none of the classes being one of them."""
  random = np.random.default_rng(2)
  shapes = batch_shapes(config, taps=taps)
  size, classes = shapes["label"].shape
  turns = np.arange(size) % (classes + 1)
  noise = lambda shape: random.random(shape.shape, np.float32).astype(shape.dtype)
  return {
    **{name: jax.tree.map(noise, shapes[name]) for name in ("image", "taps") if name in shapes},
    "mask": np.zeros(shapes["mask"].shape, np.uint8),
    "weight": np.ones(size, np.float32),
    "label": np.eye(classes + 1, dtype=np.float32)[turns][:, 1:],
  }


@dataclasses.dataclass
class Training:
  """A training that can be stepped: what the loop of train.py holds, on random weights."""

  config: Config
  mesh: Mesh
  network: Network
  step: Callable
  state: TrainState
  batch: dict

  def advance(self) -> None:
    """Takes one step on the batch and waits for it."""
    self.state, _ = self.step(self.state, self.batch)
    jax.block_until_ready(self.state)


def training(config: Config, *, taps: bool = False) -> Training:
  """Builds a training whose bank is full and whose contrast counts from the first step."""
  loss = dataclasses.replace(config.loss, contrast_from_epoch=0)
  config = dataclasses.replace(config, loss=loss)
  mesh = sharding.make_mesh()
  sharding.check_batch(mesh, config.train.batch_size, config.train.accumulate)
  network, transform = networks.build(config), optimizer.make_optimizer(config, 10**6)
  state = random_state(config)
  state = jax.device_put(state, sharding.state_sharding(state, mesh, config.train.shard_state))
  batch = sharding.to_global(random_batch(config, taps=taps), mesh)
  step = train_step.make_train_step(network, config, transform, mesh, steps_per_epoch=1)
  return Training(config, mesh, network, step, state, batch)

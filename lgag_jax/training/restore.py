"""The network and its state: fresh, or as a workdir keeps it."""

import dataclasses
import logging
import pathlib

import jax
from jax.sharding import Mesh

from lgag_jax import config as configs
from lgag_jax.config import Config
from lgag_jax.inputs import normalisation
from lgag_jax.method import network as networks
from lgag_jax.method.network import Network
from lgag_jax.runtime import sharding
from lgag_jax.state import TrainState
from lgag_jax.training import model_directory, optimizer, train_step
from lgag_jax.training.checkpoints import Checkpoints

_LOG = logging.getLogger(__name__)


def start(config: Config, mesh: Mesh, steps: int):
  """Returns the network, the optimiser for `steps` steps, and the state of step 0."""
  network = networks.build(config)
  optim = optimizer.make_optimizer(config, steps)
  return network, optim, train_step.init_state(network, config, optim, mesh)


def restore(workdir: pathlib.Path, mesh: Mesh) -> tuple[Config, Network, TrainState]:
  """Returns what a workdir's newest checkpoint, or a model directory, holds; reads its config.json.

  Its normalisation comes from `normalisation.resolve`. Raises FileNotFoundError naming what is missing.
  """
  config = normalisation.resolve(configs.load(workdir / "config.json"), workdir)
  # Maps do not depend on the batch that they come in, and there may be other devices than in training.
  batch_size = -(-config.localize.batch_size // mesh.size) * mesh.size
  config = dataclasses.replace(
    config, localize=dataclasses.replace(config.localize, batch_size=batch_size)
  )
  if model_directory.is_one(workdir):
    return config, *model_directory.read(workdir, config, mesh)
  network = networks.build(config)
  shapes = train_step.state_shapes(network, config, optimizer.make_optimizer(config, 1))
  places = sharding.state_sharding(shapes, mesh, config.train.shard_state)
  placed = lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
  checkpoints = Checkpoints(workdir, keep=config.train.keep_checkpoints, writes=False)
  state, _ = checkpoints.restore(jax.tree.map(placed, shapes, places))
  checkpoints.close()
  _LOG.info("Restored step %d of %s.", int(state.step), workdir)
  return config, network, state

"""What training, evaluation and prediction all need: the network, its state, its data, on a mesh."""

import dataclasses
import hashlib
import logging
import os
import pathlib
import platform
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import jax
from jax.sharding import Mesh

from lgag_jax import cluster, localize, model_directory, normalisation, optimizer, train_step
from lgag_jax import config as configs
from lgag_jax.checkpoints import Checkpoints
from lgag_jax.config import Config
from lgag_jax.models import network as networks
from lgag_jax.models.network import Network
from lgag_jax.state import TrainState

if TYPE_CHECKING:  # TensorFlow is imported where data is read: prediction does without.
  from lgag_jax import input_pipeline
  from lgag_jax.sources import Source

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Split:
  """A source with the reader that the pipelines use: images, or the frozen trunk's outputs."""

  source: "Source"
  reader: "input_pipeline.Reader"
  read: Callable

  def train_batches(self, config: Config, *, start_step: int) -> Iterator[dict]:
    from lgag_jax import input_pipeline

    return input_pipeline.train_batches(self.source, self.read, config, start_step=start_step)

  def eval_batches(self, config: Config, *, at_most: int = 0) -> Iterator[dict]:
    from lgag_jax import input_pipeline

    read = self.read
    if read is not self.reader and localize.needs_images(config):
      read = read.with_images()
    return input_pipeline.eval_batches(
      self.source, read, config, config.localize.batch_size, at_most=at_most
    )


def open_split(
  source: "Source", network: Network, state: TrainState, config: Config, mesh: Mesh,
  workdir: pathlib.Path,
) -> Split:
  """Readies a source for the pipelines; through a feature cache where that serves.

  Raises ValueError when the processes see different examples.
  """
  from lgag_jax import features, input_pipeline

  cluster.check_same((list(source.ids), source.labels.tobytes()), "examples")
  reader = input_pipeline.Reader(source, config.data)
  cache = None
  # Kept trunk outputs know one scale.
  if not localize.several_scales(config):
    directory = config.data.feature_cache_directory or workdir / "features"
    cache = features.open_cache(
      network, state.params, state.statistics, source, reader, config, mesh,
      pathlib.Path(directory),
    )
  return Split(source=source, reader=reader, read=cache or reader)


def start(config: Config, mesh: Mesh, steps: int):
  """Returns the network, the optimiser for `steps` steps, and the state of step 0."""
  network = networks.build(config)
  optim = optimizer.make_optimizer(config, steps)
  return network, optim, train_step.init_state(network, config, optim, mesh)


def restore(workdir: pathlib.Path, mesh: Mesh) -> tuple[Config, Network, TrainState]:
  """Returns what a workdir's newest checkpoint, or a model directory, holds; reads its config.json.

  Its normalisation is `normalisation.resolved`. Raises FileNotFoundError naming what is missing.
  """
  config = normalisation.resolved(configs.load(workdir / "config.json"), workdir)
  # Maps do not depend on the batch that they come in, and there may be other devices than in training.
  batch_size = -(-config.localize.batch_size // mesh.size) * mesh.size
  config = dataclasses.replace(
    config, localize=dataclasses.replace(config.localize, batch_size=batch_size)
  )
  if model_directory.is_one(workdir):
    return config, *model_directory.read(workdir, config, mesh)
  # The checkpoint replaces every weight, so none is loaded here.
  random = dataclasses.replace(config, model=dataclasses.replace(config.model, weights="random"))
  network, _, state = start(random, mesh, 1)
  checkpoints = Checkpoints(workdir, keep=config.train.keep_checkpoints, writes=False)
  state, _ = checkpoints.restore(state)
  checkpoints.close()
  _LOG.info("Restored step %d of %s.", int(state.step), workdir)
  return config, network, state


def prepare_jax() -> None:
  """Keeps compiled programs between runs: compilation takes longer than many a small training.

  JAX's own variables, JAX_COMPILATION_CACHE_DIR and the like, come first.
  """
  directory = _program_folder()
  if jax.config.jax_compilation_cache_dir is None and directory:
    jax.config.update("jax_compilation_cache_dir", str(directory))
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _program_folder() -> pathlib.Path | None:
  """Returns where this processor's programs are kept; None for a user without a home."""
  try:
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
  except RuntimeError:
    return None
  # A home may be shared by machines, and a program uses all that the processor it was made on can do.
  info = pathlib.Path("/proc/cpuinfo")
  text = info.read_text() if info.exists() else platform.processor()
  flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), text)
  kind = hashlib.sha256(flags.encode()).hexdigest()[:8]
  return cache / "lgag_jax" / "compiled" / f"{platform.machine()}-{kind}"

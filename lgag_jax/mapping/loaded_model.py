"""A trained network and what else mapping needs, as a workdir or a model directory holds it."""

import dataclasses
import pathlib

from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.evaluation import thresholds_file
from lgag_jax.geo import scale
from lgag_jax.inference.localize import gate_of, main_map_name
from lgag_jax.method.network import Network
from lgag_jax.method.registry import method_of
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import sharding
from lgag_jax.state import TrainState
from lgag_jax.training import restore


@dataclasses.dataclass(frozen=True)
class LoadedModel:
  """A trained network and what else mapping needs, read from a workdir."""

  workdir: pathlib.Path
  config: Config
  network: Network
  state: TrainState
  mesh: Mesh
  thresholds: list[float]  # Per class.
  training_scale: scale.Scale
  choice: str = ""  # The flags that set the thresholds and the gate, "" for those of the workdir.

  @property
  def gate(self) -> float:
    """The image score that a class must exceed to be mapped."""
    return gate_of(self.config)

  def at(self, options: Options) -> "LoadedModel":
    """Returns the model with the thresholds and the gate of --threshold and --gate; else unchanged.

    Raises ValueError naming a flag that does not fit the model.
    """
    names, config = self.config.data.classes, self.config
    if options.threshold and len(options.threshold) != len(names):
      given = ",".join(f"{value:g}" for value in options.threshold)
      raise ValueError(
        f"--threshold={given}: must be {len(names)} numbers, of the classes {', '.join(names)}."
      )
    if options.gate >= 0:
      if not method_of(config).gated:
        raise ValueError(f"--gate={options.gate:g}: the method {config.model.method} has no gate.")
      localize = dataclasses.replace(config.localize, gate=options.gate)
      config = dataclasses.replace(config, localize=localize)
    flags = ["--threshold"] * bool(options.threshold) + ["--gate"] * (options.gate >= 0)
    return dataclasses.replace(
      self, config=config, thresholds=list(options.threshold) or self.thresholds,
      choice=" and ".join(flags),
    )

  def scale_for(self, options: Options) -> scale.Scale:
    """Returns the scale of training, with --training_gsd if that is given."""
    gsd = options.training_gsd or self.training_scale.gsd
    return dataclasses.replace(self.training_scale, gsd=gsd)


def load_model(workdir: pathlib.Path) -> LoadedModel:
  """Reads a workdir, or a model directory; raises OSError or ValueError naming what is wrong."""
  mesh = sharding.make_mesh()
  config, network, state = restore.restore(workdir, mesh)
  thresholds = thresholds_file.load_thresholds(workdir, config, step=int(state.step))
  network = thresholds_file.with_evidence(network, workdir, config)
  return LoadedModel(
    workdir, config, network, state, mesh, thresholds[main_map_name(config)],
    scale.load(workdir, config),
  )

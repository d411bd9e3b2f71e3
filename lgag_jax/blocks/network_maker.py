"""Loads the network in another process, as that process's only use of the accelerator."""

import dataclasses
import pathlib

from lgag_jax.blocks.block_arrays import Network
from lgag_jax.blocks.plan import BlockSize
from lgag_jax.geo.scale import WindowPlan


@dataclasses.dataclass(frozen=True)
class NetworkMaker:
  """What a process needs to load the network."""

  workdir: pathlib.Path  # On a disk that all machines see.
  windows: WindowPlan
  size: BlockSize
  dtype: str
  method_file: str = ""

  def __call__(self) -> Network:
    from lgag_jax.blocks.network import BlockNetwork
    from lgag_jax.mapping.loaded_model import load_model
    from lgag_jax.method import registry
    from lgag_jax.runtime import compiled_programs

    compiled_programs.enable_cache()
    if self.method_file:
      registry.load_file(self.method_file)
    return BlockNetwork(load_model(self.workdir), self.windows, self.size, self.dtype)

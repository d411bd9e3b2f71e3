"""A network without a network, for the tests of engines: bright pixels are landslides."""

import dataclasses
import os
import signal
import time

import numpy as np

from lgag_jax.blocks.block_arrays import BlockMap
from lgag_jax.blocks.plan import BlockSize
from lgag_jax.imagery.opening import ImageError

BRIGHT = 110


@dataclasses.dataclass(frozen=True)
class Stub:
  """Maps blocks by their brightness; as a maker of networks it returns itself."""

  size: BlockSize
  bad: tuple[str, ...] = ()  # Blocks that raise an error.
  deadly: tuple[str, ...] = ()  # Blocks that end the process.
  seconds: float = 0.0  # That a block takes.

  def __call__(self):
    return self

  def map_pixels(self, name, pixels):
    time.sleep(self.seconds)
    if name in self.bad:
      raise ImageError(f"{name} cannot be mapped")
    if name in self.deadly:
      os.kill(os.getpid(), signal.SIGKILL)
    inside = slice(self.size.lead, self.size.lead + self.size.core)
    valid, grey = pixels.valid[inside, inside], pixels.values[inside, inside].mean(axis=-1)
    scores = np.where(valid, np.round(grey / 255 * 100), 255).astype(np.uint8)
    mask = np.where(valid, grey > BRIGHT, 255).astype(np.uint8)
    return BlockMap(scores[..., None], mask, (0.5,))

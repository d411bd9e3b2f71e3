"""A split of the data: its source and the readers that training and evaluation use."""

import dataclasses
from collections.abc import Callable, Generator

from lgag_jax.config import Config
from lgag_jax.inputs import pipeline
from lgag_jax.inputs.sources import Source


@dataclasses.dataclass(frozen=True)
class Split:
  """A source, with one function per use that reads the example of an index."""

  source: Source
  train_read: Callable  # Reads the image, or its cached trunk outputs.
  eval_read: Callable  # The same, but with the image too if it is needed to refine maps.

  def train_batches(self, config: Config, *, start_step: int) -> Generator[dict, None, None]:
    return pipeline.train_batches(self.source, self.train_read, config, start_step=start_step)

  def eval_batches(self, config: Config, *, at_most: int = 0) -> Generator[dict, None, None]:
    return pipeline.eval_batches(
      self.source, self.eval_read, config, config.localize.batch_size, at_most=at_most
    )

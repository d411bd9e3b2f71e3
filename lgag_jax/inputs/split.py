"""A source with its readers: what training and evaluation take batches from."""

import dataclasses
from collections.abc import Callable, Iterator

from lgag_jax.config import Config
from lgag_jax.inputs import pipeline
from lgag_jax.inputs.sources import Source


@dataclasses.dataclass(frozen=True)
class Split:
  """A source, and the functions from an index to an example that each use of it reads with."""

  source: Source
  train_read: Callable  # Of an image, or of its kept trunk outputs.
  eval_read: Callable  # The same, with the image where maps are refined by it.

  def train_batches(self, config: Config, *, start_step: int) -> Iterator[dict]:
    return pipeline.train_batches(self.source, self.train_read, config, start_step=start_step)

  def eval_batches(self, config: Config, *, at_most: int = 0) -> Iterator[dict]:
    return pipeline.eval_batches(
      self.source, self.eval_read, config, config.localize.batch_size, at_most=at_most
    )

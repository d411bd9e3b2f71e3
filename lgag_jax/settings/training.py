"""The optimiser, its schedule, and the loop."""

import dataclasses

from lgag_jax.settings.checks import not_negative, one_of, positive, require


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """Optimiser and schedule."""

  name: str = "sgd"  # Or "adamw".
  learning_rate: float = 0.01  # Of the trunk. New layers train at learning_rate * new_multiplier.
  new_multiplier: float = 10.0  # The trunk is frozen by default, so all that trains is new.
  momentum: float = 0.9  # "sgd" only.
  weight_decay: float = 1e-4
  clip_norm: float = 1.0  # Of the gradient, over all parameters; 0 clips nothing.
  decay_power: float = 0.9  # Of the polynomial decay to zero at the last step.

  def __post_init__(self):
    one_of("optim.name", self.name, ("sgd", "adamw"))
    not_negative("optim", self, *(f.name for f in dataclasses.fields(self) if f.name != "name"))
    positive("optim", self, "learning_rate")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The loop."""

  seed: int = 0
  epochs: int = 15
  min_steps: int = 300  # In all: an epoch goes several times round a data set too small for it.
  batch_size: int = 32  # Over all devices and processes.
  accumulate: int = 1  # Parts that a batch is worked through in, to save memory.
  shard_state: bool = False  # Split parameters and optimiser state over devices, to save memory.
  log_every: int = 20  # Steps.
  checkpoint_every: int = 200  # Steps; the last one is always saved.
  keep_checkpoints: int = 3
  max_skipped: int = 20  # More steps than this in a row whose loss or gradient is not finite: an error.
  evaluate_every: int = 1  # Epochs; 0 evaluates at the end only.

  def __post_init__(self):
    not_negative("train", self, "seed", "min_steps")
    positive("train", self, "epochs", "batch_size", "accumulate", "log_every", "checkpoint_every")
    positive("train", self, "keep_checkpoints")
    not_negative("train", self, "max_skipped", "evaluate_every")
    require(
      self.batch_size % self.accumulate == 0, "train.batch_size", self.batch_size,
      f"must be a multiple of train.accumulate={self.accumulate}.",
    )

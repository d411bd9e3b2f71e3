"""Everything that changes during a run, as immutable pytrees.

The package's docstring defines the axis letters.
"""

from typing import Any

import jax
from flax import struct


@struct.dataclass(kw_only=True)
class MemoryBank:
  """Local anchors of earlier images, and the global anchors computed from them (GAA)."""

  features: jax.Array  # f32[K, L, D], unit length along D where valid, zero elsewhere.
  valid: jax.Array  # bool[K, L].
  cursor: jax.Array  # i32[K], the slot for the next anchor.
  centres: jax.Array  # f32[K, M, D], the global anchors.
  ready: jax.Array  # bool[], whether every class has global anchors.


@struct.dataclass(kw_only=True)
class TrainState:
  """The contents of a checkpoint."""

  step: jax.Array  # i32[], number of completed training steps.
  params: Any  # {"trunk": ..., "head": ...}.
  statistics: Any  # The trunk's batch-norm statistics; constant.
  opt_state: Any
  bank: MemoryBank

"""Everything that changes during a run, as immutable pytrees. Axis letters: see the package."""

from typing import Any

import jax
from flax import struct


@struct.dataclass(kw_only=True)
class MemoryBank:
  """Local anchors of earlier images, and the global anchors made of them (GAA)."""

  features: jax.Array  # f32[K, L, D], unit length along D where valid, zero elsewhere.
  valid: jax.Array  # bool[K, L].
  cursor: jax.Array  # i32[K], the slot that the next anchor takes.
  centres: jax.Array  # f32[K, M, D], the global anchors.
  ready: jax.Array  # bool[], whether every class has centres.


@struct.dataclass(kw_only=True)
class TrainState:
  """What a checkpoint holds."""

  step: jax.Array  # i32[], training steps done.
  params: Any  # {"trunk": ..., "head": ...}.
  statistics: Any  # The trunk's stored batch-norm statistics; constant.
  opt_state: Any
  bank: MemoryBank

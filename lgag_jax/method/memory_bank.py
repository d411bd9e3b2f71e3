"""The memory bank of GAA: local anchors of earlier images and the global anchors made of them.

Pure functions on `MemoryBank`. The training step (training/train_step.py) pushes anchors, and the loop
(training/loop.py) refreshes the global anchors. Nothing here depends on the number of devices: a
batch's anchors arrive whole and in batch order.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lgag_jax.config import BankConfig, Config
from lgag_jax.method.method import Outputs
from lgag_jax.state import MemoryBank


def to_unit_length(x: Float[Array, "*axes D"], epsilon: float = 1e-5) -> Float[Array, "*axes D"]:
  """Scales vectors to unit length; with the epsilon inside the root a zero has a gradient too."""
  return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + epsilon**2)


def empty(config: BankConfig, *, classes: int, dimension: int) -> MemoryBank:
  """Returns a bank without anchors for `classes` = K, background included."""
  return MemoryBank(
    features=jnp.zeros((classes, config.slots, dimension)),
    valid=jnp.zeros((classes, config.slots), bool), cursor=jnp.zeros((classes,), jnp.int32),
    centres=jnp.zeros((classes, config.centres, dimension)), ready=jnp.zeros((), bool),
  )


def accept_confident(outputs: Outputs, batch: dict, config: Config) -> Bool[Array, "B K"]:
  """Returns which anchors enter the bank: those that exist, of real examples, confident foreground."""
  confident = jax.nn.sigmoid(outputs.scores) > config.bank.min_confidence
  confident = jnp.concatenate([jnp.ones_like(confident[:, :1]), confident], axis=1)
  return outputs.exists & confident & (batch["weight"] > 0)[:, None]


def push(bank: MemoryBank, anchors: Float[Array, "B K D"], accepted: Bool[Array, "B K"]) -> MemoryBank:
  """Enters the accepted anchors in batch order; the newest L of each class stay. No gradient passes."""
  rows = to_unit_length(jax.lax.stop_gradient(anchors.astype(jnp.float32)))
  over_classes = jax.vmap(_push_class, in_axes=(0, 0, 0, 1, 1))
  features, valid, cursor = over_classes(bank.features, bank.valid, bank.cursor, rows, accepted)
  return dataclasses.replace(bank, features=features, valid=valid, cursor=cursor)


def _push_class(features, valid, cursor, rows, accepted):
  slots = features.shape[0]
  count = jnp.sum(accepted, dtype=jnp.int32)
  rank = jnp.cumsum(accepted, dtype=jnp.int32) - 1
  # If there are more rows than slots, only the last ones stay: slot indices are then unique. Rows that
  # are not written go to index L, which "drop" ignores.
  written = accepted & (rank >= count - slots)
  index = jnp.where(written, (cursor + rank) % slots, slots)
  return (
    features.at[index].set(rows, mode="drop"), valid.at[index].set(True, mode="drop"),
    (cursor + count) % slots,
  )


def sample(bank: MemoryBank, count: int, key: jax.Array) -> MemoryBank:
  """Returns a bank of `count` < 65,536 slots a class: a random one of each of as many stretches.

  The stretches cover the valid slots from a random one on, so each is as likely as any other.
  Neighbours come from one batch, whose order has a rhythm: a fixed distance would meet it. A class
  with fewer gives them all; valid slots come first, as `push` fills them. With `count` 0,
  or as large as the bank, it is the bank itself. Its cursor means nothing.
  """
  slots = bank.valid.shape[1]
  if not 0 < count < slots:
    return bank
  filled = jnp.sum(bank.valid, axis=1)[:, None]  # K 1
  steps = jnp.arange(count)
  # Products of two numbers below 65,536, which is what uint32 holds.
  edge = lambda i: i * (filled // count) + (
    i.astype(jnp.uint32) * (filled % count).astype(jnp.uint32) // count
  ).astype(jnp.int32)
  first = edge(steps)  # K S
  within_key, turn_key = jax.random.split(key)
  within = jax.random.randint(within_key, first.shape, 0, jnp.maximum(edge(steps + 1) - first, 1))
  turn = jax.random.randint(turn_key, filled.shape, 0, jnp.maximum(filled, 1))
  spread = (first + within + turn) % jnp.maximum(filled, 1)
  index = jnp.where(filled > count, spread, steps)  # K S
  features = jnp.take_along_axis(bank.features, index[..., None], axis=1)
  return dataclasses.replace(bank, features=features, valid=steps < filled)


def refresh(bank: MemoryBank, config: BankConfig) -> MemoryBank:
  """Recomputes the global anchors: k-means over the valid slots, warm-started from the last ones.

  Until every class has at least as many valid slots as centres the bank is returned unchanged.
  """
  enough = jnp.all(jnp.sum(bank.valid, axis=1) >= config.centres)
  spread = jax.vmap(partial(_spread_slots, count=config.centres))(bank.features, bank.valid)
  start = jnp.where(bank.ready, bank.centres, spread)
  centres = jax.vmap(partial(_lloyd, steps=config.lloyd_steps))(bank.features, bank.valid, start)
  return dataclasses.replace(
    bank, centres=jnp.where(enough, centres, bank.centres), ready=bank.ready | enough
  )


def _spread_slots(
  features: Float[Array, "L D"], valid: Bool[Array, " L"], *, count: int
) -> Float[Array, "M D"]:
  """Picks `count` valid slots, evenly spread over them in the order of the slots."""
  order = jnp.argsort(~valid, stable=True)
  picks = jnp.arange(count) * jnp.sum(valid) // count
  return features[order[picks]]


def assign(features: Float[Array, "L D"], centres: Float[Array, "M D"]) -> Int[Array, " L"]:
  """Returns each row's nearest centre in Euclidean distance."""
  # The row's own length is the same for all centres.
  distance = jnp.sum(jnp.square(centres), axis=-1) - 2.0 * features @ centres.T  # L M
  return jnp.argmin(distance, axis=-1)


def _lloyd(features, valid, centres, *, steps: int):
  def step(centres, _):
    member = jax.nn.one_hot(assign(features, centres), centres.shape[0]) * valid[:, None]  # L M
    count = jnp.sum(member, axis=0)[:, None]
    mean = member.T @ features / jnp.maximum(count, 1.0)
    return jnp.where(count > 0, mean, centres), None  # A centre without members stays.

  return jax.lax.scan(step, centres, length=steps)[0]

"""The mesh, shardings, and host batches to global arrays: the only file that names a mesh axis."""

import collections
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from lgag_jax.state import TrainState

_DATA = "data"
_WORTH_SPLITTING = 1024  # Numbers; gathering fewer costs more than it saves.


def make_mesh(devices: Sequence[jax.Device] = ()) -> Mesh:
  """Returns a mesh of one axis over `devices`, or all of all processes: data parallelism.

  Raises ValueError when processes hold different numbers of devices: a batch is shared evenly.
  """
  # Not jax.make_mesh, which may permute devices to fit the network: here the rows of a batch belong
  # to the processes in their order, on any machine.
  devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
  counts = collections.Counter(device.process_index for device in devices)
  if len(set(counts.values())) > 1:
    listed = ", ".join(f"process {process}: {count}" for process, count in counts.items())
    raise ValueError(f"Each process needs as many devices as any other ({listed}).")
  # Explicit axes, the default, refuse top_k, sort and scatter on sharded operands.
  return Mesh(np.array(devices), (_DATA,), axis_types=(AxisType.Auto,))


def abstract_mesh(devices: int) -> AbstractMesh:
  """Returns a mesh of devices that need not exist: to lower a program for them, not to run it."""
  return AbstractMesh((devices,), (_DATA,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of state and metrics: whole on every device."""
  return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
  """The sharding of batches: the first axis split over devices."""
  return NamedSharding(mesh, PartitionSpec(_DATA))


def state_sharding(state: TrainState, mesh: Mesh, shard: bool) -> TrainState:
  """Returns a sharding a leaf; `shard` splits parameters and optimiser state over the devices.

  A leaf is split along its longest axis that the devices divide; without one, or with few numbers,
  it stays whole, as do step, statistics and bank.
  """
  whole = jax.tree.map(lambda _: replicated(mesh), state)
  if not shard:
    return whole
  split = lambda tree: jax.tree.map(lambda leaf: _split_longest(leaf.shape, mesh), tree)
  return whole.replace(params=split(state.params), opt_state=split(state.opt_state))


def _split_longest(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
  axes = [axis for axis, length in enumerate(shape) if length % mesh.size == 0]
  if not axes or math.prod(shape) < _WORTH_SPLITTING:
    return replicated(mesh)
  longest = max(axes, key=lambda axis: shape[axis])
  return NamedSharding(mesh, PartitionSpec(*[None] * longest, _DATA))


def check_batch(mesh: Mesh, batch_size: int, parts: int = 1) -> None:
  """Raises ValueError when a batch, or each of its parts, cannot be split evenly over the devices."""
  if batch_size % (mesh.size * parts):
    raise ValueError(
      f"A batch of {batch_size} cannot be split over {mesh.size} devices in {parts} parts: "
      f"choose a multiple of {mesh.size * parts}."
    )


def to_global(batch: Any, mesh: Mesh) -> Any:
  """Makes global arrays of every process's rows of a batch."""
  sharding = by_example(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
  )


def local_rows(tree: Any) -> Any:
  """Returns this process's rows of arrays that are split by example, as NumPy arrays."""

  def rows(array: jax.Array) -> np.ndarray:
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[first]) for first in sorted(shards)])

  return jax.tree.map(rows, tree)


def whole_on_host(array: jax.Array) -> np.ndarray:
  """Returns all of an array, however it is split, on every process."""
  if array.is_fully_addressable or array.is_fully_replicated:
    return np.asarray(array)
  return multihost_utils.process_allgather(array, tiled=True)

"""The mesh, the shardings, and global arrays of batches; the only file that names a mesh axis."""

import collections
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lgag_jax.state import TrainState

_DATA_AXIS = "data"
_MIN_SPLIT_SIZE = 1024  # Values; gathering fewer costs more than it saves.


def make_mesh(devices: Sequence[Any] = ()) -> Mesh:
  """Returns a one-axis mesh for data parallelism over `devices` of JAX, by default all.

  Raises ValueError if processes have different numbers of devices, since a batch is split evenly.
  """
  # Not jax.make_mesh, which may permute devices to suit the network. Here the rows of a batch follow
  # the order of the processes on every machine.
  devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
  counts = collections.Counter(device.process_index for device in devices)
  if len(set(counts.values())) > 1:
    listed = ", ".join(f"process {process}: {count}" for process, count in counts.items())
    raise ValueError(f"All processes need the same number of devices ({listed}).")
  # Explicit axes, the default, refuse top_k, sort and scatter on sharded operands.
  return Mesh(np.array(devices), (_DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicated_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of state and metrics: a full copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of batches: the first axis split over the devices."""
  return NamedSharding(mesh, PartitionSpec(_DATA_AXIS))


def state_sharding(state: TrainState, mesh: Mesh, shard: bool) -> TrainState:
  """Returns a sharding for each leaf; `shard` splits parameters and optimiser state over the devices.

  A leaf is split along its longest axis that the number of devices divides. A leaf without such an axis
  or with few values is replicated, as are step, statistics and bank.
  """
  replicated = jax.tree.map(lambda _: replicated_sharding(mesh), state)
  if not shard:
    return replicated
  split = lambda tree: jax.tree.map(lambda leaf: _split_longest(leaf.shape, mesh), tree)
  return replicated.replace(params=split(state.params), opt_state=split(state.opt_state))


def _split_longest(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
  axes = [axis for axis, length in enumerate(shape) if length % mesh.size == 0]
  if not axes or math.prod(shape) < _MIN_SPLIT_SIZE:
    return replicated_sharding(mesh)
  longest = max(axes, key=lambda axis: shape[axis])
  return NamedSharding(mesh, PartitionSpec(*[None] * longest, _DATA_AXIS))


def check_batch(mesh: Mesh, batch_size: int, parts: int = 1) -> None:
  """Raises ValueError if a batch, or each of its parts, cannot be split evenly over the devices."""
  if batch_size % (mesh.size * parts):
    raise ValueError(
      f"A batch of {batch_size} cannot be split over {mesh.size} devices in {parts} parts: "
      f"choose a multiple of {mesh.size * parts}."
    )


def to_global(batch: Any, mesh: Mesh) -> Any:
  """Returns global arrays made of every process's rows of a batch."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def local_rows(tree: Any) -> Any:
  """Returns this process's rows of arrays with `batch_sharding`, as NumPy arrays."""

  def rows(array: jax.Array) -> np.ndarray:
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[first]) for first in sorted(shards)])

  return jax.tree.map(rows, tree)


def gather_to_host(array: jax.Array) -> np.ndarray:
  """Returns the full array on every process, whatever its sharding."""
  if array.is_fully_addressable or array.is_fully_replicated:
    return np.asarray(array)
  return multihost_utils.process_allgather(array, tiled=True)

"""The mesh, shardings, and host batches to global arrays: the only file that names a mesh axis."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_DATA = "data"


def make_mesh() -> Mesh:
  """Returns a mesh of one axis over all devices of all processes: data parallelism."""
  # Explicit axes, the default, refuse top_k, sort and scatter on sharded operands.
  return jax.make_mesh((jax.device_count(),), (_DATA,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of state and metrics: whole on every device."""
  return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
  """The sharding of batches: the first axis split over devices."""
  return NamedSharding(mesh, PartitionSpec(_DATA))


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

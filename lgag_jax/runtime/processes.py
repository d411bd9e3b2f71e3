"""Starts several processes and lets them wait for each other and exchange values.

Except `start` and `is_first`, every process must call these functions, in the same order.
jax.distributed detects clusters, but gives a Slurm task one GPU and may wait for tasks that do not run.
"""

import contextlib
import glob
import hashlib
import importlib.util
import io
import itertools
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lgag_jax.runtime import devices

_LOG = logging.getLogger(__name__)

_REMEDY = "give --coordinator=HOST:PORT --processes=N --process=I"


def start(mode: str, coordinator: str | None, processes: int | None, process: int | None) -> None:
  """Starts jax.distributed if `mode` ("auto", "on", "off"), the flags or the cluster ask for it.

  Must run before anything uses a device. Raises ValueError for contradictory or incomplete flags, or if
  JAX_PLATFORMS asks for a missing device, and ConnectionError if the processes cannot connect.
  """
  flags = {"coordinator": coordinator, "processes": processes, "process": process}
  options = explicit_options(mode, flags)
  if options is None and mode != "off":
    options = detected_options(os.environ, mode)
  if options is None:
    devices.require()
    return
  try:
    jax.distributed.initialize(**options)
  except RuntimeError as error:
    raise ConnectionError(f"The processes cannot connect to each other: {error}") from error
  except ValueError as error:
    raise ValueError(f"JAX detects no cluster ({error}): {_REMEDY}.") from error
  devices.require()
  _LOG.info(
    "Process %d of %d: %d of %d devices.", jax.process_index(), jax.process_count(),
    jax.local_device_count(), jax.device_count(),
  )


def explicit_options(mode: str, flags: dict[str, Any]) -> dict[str, Any] | None:
  """Returns jax.distributed's options, None without flags; raises ValueError if they are invalid."""
  missing = [f"--{name}" for name, value in flags.items() if value is None]
  if len(missing) == len(flags):
    return None
  if mode == "off":
    raise ValueError("--distributed=off contradicts --coordinator, --processes and --process.")
  if missing:
    raise ValueError(f"{', '.join(missing)} missing: {_REMEDY}, or none where JAX detects the cluster.")
  host, _, port = flags["coordinator"].rpartition(":")
  if not host or not port.isdigit():
    raise ValueError(f"--coordinator={flags['coordinator']}: it must be HOST:PORT.")
  if not 0 <= flags["process"] < flags["processes"]:
    raise ValueError(f"--process={flags['process']}: it must lie in [0, {flags['processes']}).")
  return {
    "coordinator_address": flags["coordinator"], "num_processes": flags["processes"],
    "process_id": flags["process"], "cluster_detection_method": "deactivate",
  }


def detected_options(environment: Mapping[str, str], mode: str) -> dict[str, Any] | None:
  """Returns jax.distributed's options, None for one process; ValueError if JAX cannot find all."""
  # Open MPI comes first, since the processes of mpirun inherit the Slurm variables of its own job step.
  if int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
    if "OMPI_MCA_orte_hnp_uri" in environment:
      return {}
    raise ValueError(
      f"JAX cannot find the other processes of this Open MPI: {_REMEDY}, with "
      "N=$OMPI_COMM_WORLD_SIZE and I=$OMPI_COMM_WORLD_RANK, or --distributed=off."
    )
  if "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment:
    # In an interactive shell one task runs, but SLURM_NTASKS counts those of the allocation.
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or 1)
    if tasks > 1:
      return {"num_processes": tasks, "local_device_ids": slurm_devices(environment)}
  elif tpu_hosts(environment) > 1:
    return {}
  elif "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
    if importlib.util.find_spec("kubernetes") is not None:
      return {}
    raise ValueError(
      "This pod belongs to an indexed job, and only the kubernetes package can query its size: "
      f"install jax[k8s], or {_REMEDY} with I=$JOB_COMPLETION_INDEX, or --distributed=off."
    )
  return {} if mode == "on" else None


def slurm_devices(environment: Mapping[str, str]) -> list[int] | None:
  """Returns the indices of this task's GPUs among the visible ones; None if none is visible.

  The tasks of a node divide its GPUs evenly. By default JAX takes one per task and leaves the others
  idle. Raises ValueError if the GPUs cannot be divided evenly.
  """
  visible = environment.get("CUDA_VISIBLE_DEVICES")
  if visible is None:
    count = len(glob.glob("/dev/nvidia[0-9]*"))
  else:  # CUDA ignores all entries from the first invalid one, such as -1.
    is_device = re.compile(r"\d+|(GPU|MIG)-.+").fullmatch
    count = len(list(itertools.takewhile(is_device, visible.split(","))))
  if not count:
    return None
  only_own_visible = "SLURM_GPUS_PER_TASK" in environment
  if "SLURM_GPUS_ON_NODE" in environment:
    only_own_visible = count < int(environment["SLURM_GPUS_ON_NODE"])
  if only_own_visible:
    return list(range(count))
  tasks, local = _tasks_of_node(environment), int(environment.get("SLURM_LOCALID", 0))
  per_task, remainder = divmod(count, tasks)
  if remainder or not per_task:
    raise ValueError(
      f"{tasks} tasks of a node cannot share its {count} GPUs evenly: start one task per node "
      "(--ntasks-per-node=1), which uses all of them, or one task per GPU."
    )
  return list(range(local * per_task, (local + 1) * per_task))


def _tasks_of_node(environment: Mapping[str, str]) -> int:
  """Returns this node's number of tasks; "2(x3),1" is 2 on each of three nodes and 1 on a fourth."""
  counts = []
  for entry in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
    if not (match := re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", entry.strip())):
      raise ValueError(f"SLURM_STEP_TASKS_PER_NODE: {entry!r} must be like 2 or 2(x3).")
    counts += [int(match[1])] * int(match[2] or 1)
  return counts[min(int(environment.get("SLURM_NODEID", 0)), len(counts) - 1)]


def tpu_hosts(environment: Mapping[str, str]) -> int:
  """Returns the number of hosts of this TPU job; 2 if only the machine's metadata can tell."""
  if importlib.util.find_spec("libtpu") is None:
    return 1
  names = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
  if names:
    return len(names.split(",")) * int(environment.get("MEGASCALE_NUM_SLICES") or 1)
  # The variable forbids querying the metadata. GKE sets it, and sets the names above; JAX sets it when
  # imported on a machine without a TPU. Otherwise this is a TPU VM: jax.distributed queries the
  # metadata, and works for one host too.
  return 1 if "TPU_SKIP_MDS_QUERY" in environment else 2


def is_first() -> bool:
  """Returns whether this is process 0, which writes the files that are written once."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until all processes have called it."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def first_then_others(name: str) -> Iterator[None]:
  """Runs the body on process 0 first, so that the others find the files that it writes."""
  if not is_first():
    barrier(name)
  try:
    yield
  finally:  # Even after an error; the others then raise their own.
    if is_first():
      barrier(name)


def run_on_first(function: Callable[[], Any]) -> Any:
  """Calls `function` on process 0 only; all return its JSON-compatible result or raise its error."""
  if jax.process_count() == 1:
    return function()
  outcome = {}
  if is_first():
    try:
      outcome = {"value": function()}
    except (ValueError, OSError) as error:
      outcome = {"error": str(error)}
  outcome = json.loads(_all_gather(json.dumps(outcome).encode())[0])
  if "error" in outcome:
    raise ValueError(outcome["error"])
  return outcome["value"]


def check_same(value: Any, name: str) -> None:
  """Raises ValueError if `value`, compared by its repr, differs between processes."""
  digests = _all_gather(hashlib.sha256(repr(value).encode()).digest())
  differing = [number for number, digest in enumerate(digests) if digest != digests[0]]
  if differing:
    raise ValueError(
      f"Process {differing[0]} has different {name} than process 0: make all processes read the same "
      "files."
    )


def gather(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Concatenates all processes' arrays along the first axis, exactly; a process may lack a name."""
  if jax.process_count() == 1:
    return values
  buffer = io.BytesIO()
  np.savez(buffer, allow_pickle=False, **values)
  parts = [np.load(io.BytesIO(part)) for part in _all_gather(buffer.getvalue())]
  names = dict.fromkeys(name for part in parts for name in part.files)
  return {n: np.concatenate([part[n] for part in parts if n in part.files]) for n in names}


def _all_gather(payload: bytes) -> list[bytes]:
  if jax.process_count() == 1:
    return [payload]
  sizes = multihost_utils.process_allgather(np.int32(len(payload)))
  # A power of two, since each new size compiles another program.
  buffer = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)
  buffer[: len(payload)] = np.frombuffer(payload, np.uint8)
  rows = multihost_utils.process_allgather(buffer)
  return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]

"""Several processes: starting them together, and what only the first may do or all must agree on.

Every function here but `start` and `is_first` is called by all processes alike, in the same order.
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

_LOG = logging.getLogger(__name__)

_EXPLICIT = "give --coordinator=HOST:PORT --processes=N --process=I"


def start(
  mode: str, coordinator: str | None, processes: int | None, process: int | None
) -> None:
  """Starts jax.distributed where `mode` ("auto", "on", "off"), the flags or the cluster say so.

  Comes before anything that touches a device. Raises ValueError for flags that contradict each
  other or do not suffice, ConnectionError when the processes do not find each other.
  """
  flags = {"coordinator": coordinator, "processes": processes, "process": process}
  options = explicit_options(mode, flags)
  if options is None and mode != "off":
    options = detected_options(os.environ, mode)
  if options is None:
    return
  try:
    jax.distributed.initialize(**options)
  except RuntimeError as error:
    raise ConnectionError(f"The processes did not find each other: {error}") from error
  except ValueError as error:
    raise ValueError(f"No cluster that JAX knows ({error}): {_EXPLICIT}.") from error
  _LOG.info(
    "Process %d of %d: %d of %d devices.", jax.process_index(), jax.process_count(),
    jax.local_device_count(), jax.device_count(),
  )


def explicit_options(mode: str, flags: dict[str, Any]) -> dict[str, Any] | None:
  """Returns what explicit flags ask of jax.distributed; None without any; raises ValueError."""
  missing = [f"--{name}" for name, value in flags.items() if value is None]
  if len(missing) == len(flags):
    return None
  if mode == "off":
    raise ValueError("--distributed=off contradicts --coordinator, --processes and --process.")
  if missing:
    raise ValueError(f"{', '.join(missing)} missing: {_EXPLICIT}, or none of them on a known cluster.")
  host, _, port = flags["coordinator"].rpartition(":")
  if not host or not port.isdigit():
    raise ValueError(f"--coordinator={flags['coordinator']}: must be HOST:PORT.")
  if not 0 <= flags["process"] < flags["processes"]:
    raise ValueError(f"--process={flags['process']}: must lie in [0, {flags['processes']}).")
  return {
    "coordinator_address": flags["coordinator"], "num_processes": flags["processes"],
    "process_id": flags["process"], "cluster_detection_method": "deactivate",
  }


def detected_options(environment: Mapping[str, str], mode: str) -> dict[str, Any] | None:
  """Returns the options for the cluster that the environment tells of; None: a process alone.

  Raises ValueError where other processes run that JAX has no way to find.
  """
  # First, since processes of an mpirun inherit the Slurm variables of what started it.
  if int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
    if "OMPI_MCA_orte_hnp_uri" in environment:
      return {}
    raise ValueError(
      f"JAX cannot find the other processes of this Open MPI: {_EXPLICIT}, with "
      "N=$OMPI_COMM_WORLD_SIZE and I=$OMPI_COMM_WORLD_RANK, or --distributed=off."
    )
  if "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment:
    # SLURM_NTASKS is the allocation's in an interactive shell, where one task runs.
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or 1)
    if tasks > 1:
      return {"num_processes": tasks, "local_device_ids": slurm_devices(environment)}
  elif tpu_hosts(environment) > 1:
    return {}
  elif "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
    if importlib.util.find_spec("kubernetes") is not None:
      return {}
    raise ValueError(
      "This pod is one of an indexed job, whose size only the kubernetes package can ask for: "
      f"install jax[k8s], or {_EXPLICIT} with I=$JOB_COMPLETION_INDEX, or --distributed=off."
    )
  return {} if mode == "on" else None


def slurm_devices(environment: Mapping[str, str]) -> list[int] | None:
  """Returns which of the visible GPUs are this task's: its even share; None where none is seen.

  JAX alone would take one a task, and leave the others of a node idle. Raises ValueError where the
  node's tasks cannot share its GPUs evenly.
  """
  visible = environment.get("CUDA_VISIBLE_DEVICES")
  if visible is None:
    count = len(glob.glob("/dev/nvidia[0-9]*"))
  else:  # CUDA stops at the first that is no device, such as -1.
    is_device = re.compile(r"\d+|(GPU|MIG)-.+").fullmatch
    count = len(list(itertools.takewhile(is_device, visible.split(","))))
  if not count:
    return None
  bound = "SLURM_GPUS_PER_TASK" in environment
  if "SLURM_GPUS_ON_NODE" in environment:
    bound = count < int(environment["SLURM_GPUS_ON_NODE"])
  if bound:  # Slurm shows each task only its own.
    return list(range(count))
  tasks, local = _tasks_of_node(environment), int(environment.get("SLURM_LOCALID", 0))
  share, rest = divmod(count, tasks)
  if rest or not share:
    raise ValueError(
      f"{tasks} tasks of a node cannot share its {count} GPUs evenly: start one task a node "
      "(--ntasks-per-node=1), which uses all of them, or as many as there are GPUs."
    )
  return list(range(local * share, (local + 1) * share))


def _tasks_of_node(environment: Mapping[str, str]) -> int:
  """Reads "2(x3),1": two tasks on each of three nodes, one on the fourth."""
  counts = []
  for entry in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
    tasks, repeats = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", entry.strip()).groups()
    counts += [int(tasks)] * int(repeats or 1)
  return counts[min(int(environment.get("SLURM_NODEID", 0)), len(counts) - 1)]


def tpu_hosts(environment: Mapping[str, str]) -> int:
  """Returns how many hosts hold the TPU devices of this job; 2 stands for "ask the metadata"."""
  if importlib.util.find_spec("libtpu") is None:
    return 1
  names = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
  if names:
    return len(names.split(",")) * int(environment.get("MEGASCALE_NUM_SLICES") or 1)
  # GKE tells the names and forbids the question; JAX forbids it when imported where no TPU is.
  # Elsewhere this is a TPU VM: jax.distributed asks how many there are, and one is fine.
  return 1 if "TPU_SKIP_MDS_QUERY" in environment else 2


def is_first() -> bool:
  """Whether this process writes what is written once."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until all processes are here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def first_then_others(name: str) -> Iterator[None]:
  """Lets process 0 through the body first: what it leaves on disk the others find."""
  if not is_first():
    barrier(name)
  try:
    yield
  finally:  # After an error too: the others meet it themselves.
    if is_first():
      barrier(name)


def from_first(function: Callable[[], Any]) -> Any:
  """Calls `function` on process 0 alone; all return its result, of JSON types, or raise its error."""
  if jax.process_count() == 1:
    return function()
  answer = {}
  if is_first():
    try:
      answer = {"value": function()}
    except (ValueError, OSError) as error:
      answer = {"error": str(error)}
  answer = json.loads(_exchange(json.dumps(answer).encode())[0])
  if "error" in answer:
    raise ValueError(answer["error"])
  return answer["value"]


def check_same(value: Any, what: str) -> None:
  """Raises ValueError when `value`, compared by its repr, is not the same on all processes."""
  digests = _exchange(hashlib.sha256(repr(value).encode()).digest())
  others = [number for number, digest in enumerate(digests) if digest != digests[0]]
  if others:
    raise ValueError(
      f"Process {others[0]} sees other {what} than process 0: do all read the same files?"
    )


def gather(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Joins arrays of all processes along the first axis, exactly; a process may lack a name."""
  if jax.process_count() == 1:
    return values
  buffer = io.BytesIO()
  np.savez(buffer, **values)
  parts = [np.load(io.BytesIO(part)) for part in _exchange(buffer.getvalue())]
  names = dict.fromkeys(name for part in parts for name in part.files)
  return {n: np.concatenate([part[n] for part in parts if n in part.files]) for n in names}


def _exchange(payload: bytes) -> list[bytes]:
  """Returns every process's bytes, in their order."""
  if jax.process_count() == 1:
    return [payload]
  sizes = multihost_utils.process_allgather(np.int32(len(payload)))
  # Powers of two, since each size is a program of its own to compile.
  room = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)
  room[: len(payload)] = np.frombuffer(payload, np.uint8)
  rows = multihost_utils.process_allgather(room)
  return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]

"""The actors of a Ray cluster that hold the network: how many there is room for, and their starts."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import ray
import ray.exceptions

from lgag_jax.blocks import map_block
from lgag_jax.blocks.block_arrays import BlockMap, BlockPixels, Network
from lgag_jax.blocks.plan import Block
from lgag_jax.options.area import Engine

_LOG = logging.getLogger(__name__)

TASK_CPUS = 0.5  # Of reading and writing, which mostly wait for a disk or a server.
_MOST_FAILED_STARTS = 5  # One after the other.
_LOOK_SECONDS = 10.0  # Between two looks at how large the cluster is.


class Mapper:
  """An actor that holds the network; it is ready when the network is loaded."""

  def __init__(self, make_network: Callable[[], Network]):
    self._network = make_network()

  def ready(self) -> None: ...

  def map(self, block: Block, pixels: BlockPixels) -> tuple[None, BlockMap | None]:
    """Returns a block's map second; the first value only says that it is there."""
    return None, map_block.network_map(block, pixels, self._network)


class Mappers:
  """The actors of a map: as many as were asked for and leave CPUs to the tasks that read and write.

  An actor keeps its CPU. If actors had all of them, no block would ever be read. One with a GPU takes
  none.
  """

  def __init__(self, make_network: Callable[[], Network], engine: Engine):
    self._make = make_network
    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0), resources.get("CPU", 0)
    self._gpus = (1 if gpus else 0) if engine.mapper_gpus < 0 else engine.mapper_gpus
    self._wanted = engine.mappers or int(gpus if self._gpus else cpus // 2) or 1
    self.starting: dict[Any, Any] = {}  # Those that load the network, by what says that they did.
    self._ready: set[Any] = set()
    # A cluster without CPUs grows when it is asked to; half a CPU leaves room in one of a single CPU.
    self._cpus = 0.0 if self._gpus else (1 - TASK_CPUS if 0 < cpus < 1 + TASK_CPUS else 1.0)
    self._failed_starts, self._looked = 0, 0.0
    self._start()
    if self.count < self._wanted:
      _LOG.warning(
        "%d of --mappers=%d start: the cluster has %g CPUs, and reading needs some of them. More start "
        "when it has more.", self.count, self._wanted, cpus,
      )

  @property
  def count(self) -> int:
    """The number of actors, those that are starting among them."""
    return len(self.starting) + len(self._ready)

  def start_missing(self) -> None:
    """Starts actors if the cluster has grown, or one has been lost."""
    if self.count < self._wanted and time.monotonic() - self._looked > _LOOK_SECONDS:
      self._start()

  def end_start(self, reference: Any) -> Any:
    """Returns the actor whose start has ended; None if it failed and another one starts.

    Raises RuntimeError if too many have failed one after the other.
    """
    mapper = self.starting.pop(reference)
    try:
      ray.get(reference)
    except ray.exceptions.RayError as error:
      self._failed_starts += 1
      if self._failed_starts >= _MOST_FAILED_STARTS:
        raise RuntimeError(f"No worker can load the network: {cause(error)}") from error
      _LOG.warning("A worker ended while it loaded the network: %s. Starting another.", cause(error))
      self._start()
      return None
    self._failed_starts = 0
    self._ready.add(mapper)
    return mapper

  def replace(self, mapper: Any) -> None:
    """Ends an actor that failed a call, and starts another if there is still room for it."""
    self._ready.remove(mapper)
    ray.kill(mapper)  # It may only be out of reach.
    self._start()

  def close(self) -> None:
    """Ends the actors."""
    for mapper in (*self._ready, *self.starting.values()):
      ray.kill(mapper)

  def _start(self) -> None:
    """Starts as many actors as are wanted, and as the cluster has room for now."""
    self._looked = time.monotonic()
    count = self._wanted
    if not self._gpus:
      count = room(ray.cluster_resources().get("CPU", 0), count)
    actor = ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_restarts=0)(Mapper)
    while self.count < count:
      mapper = actor.remote(self._make)
      self.starting[mapper.ready.remote()] = mapper


def room(cpus: float, wanted: int) -> int:
  """Returns how many actors of `wanted`, with a CPU each, leave a part of `cpus` free; at least 1."""
  return max(1, min(wanted, math.ceil(cpus) - 1))


def cause(error: ray.exceptions.RayError) -> Exception:
  """Returns a worker's own error, or what Ray says of a worker that died, in a line."""
  if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, Exception):
    return error.cause
  line = str(error).strip().partition("\n")[0][:300]
  return RuntimeError(f"its worker died ({type(error).__name__}: {line})")

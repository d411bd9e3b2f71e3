"""Maps blocks on a Ray cluster: tasks read and write, and actors hold the network.

The driver decides what runs where. At most a few blocks per actor are in memory, whatever the number of
blocks. If a worker dies, its blocks begin anew elsewhere; only the one that it worked on counts a try.
"""

import collections
import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

# Ray would report to its makers.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
import ray.exceptions

from lgag_jax.blocks import map_block, ray_mappers
from lgag_jax.blocks.block_arrays import BlockPixels, Network
from lgag_jax.blocks.map_block import AreaJob
from lgag_jax.blocks.plan import Block
from lgag_jax.blocks.ray_mappers import Mappers
from lgag_jax.options.area import Engine
from lgag_jax.runtime import files, preemption, python_command

_LOG = logging.getLogger(__name__)

_PER_MAPPER = 3  # Blocks in memory: one is mapped, one is read ahead, one is written.
_PER_QUEUE = 2  # Blocks with an actor: one is mapped, one is fetched from another machine.
_FAILED_CALLS = (ray.exceptions.RayTaskError, ray.exceptions.ObjectLostError)  # The actor lives on.
_WAIT_SECONDS = 1.0  # Between two looks for SIGTERM.


def _read(job: AreaJob, block: Block) -> tuple[None, BlockPixels]:
  return None, map_block.read_block(job, block)


@dataclasses.dataclass(eq=False)
class _Task:
  """A block on its way through the cluster."""

  block: Block
  number: int  # Of the try, from 1.
  sent: tuple[AreaJob, Block]  # What the workers get.
  step: str = "read"  # Then "map" and "write".
  content: Any = None  # Ray's reference to the pixels, then to the map.
  mapper: Any = None


def run(
  job: AreaJob, blocks: Sequence[Block], make_network: Callable[[], Network], engine: Engine,
  done: Callable[[Block, Exception | None], None],
) -> None:
  """Maps blocks, and calls `done` with each and why it failed, in this thread.

  A block that fails is tried `engine.attempts` times in all. Raises OSError if the disk is full,
  ConnectionError if there is no cluster at the address, RuntimeError if no worker can load the network.
  """
  _connect(engine.address)
  waiting = collections.deque((block, 1) for block in blocks)
  scheduler = _Scheduler(job, Mappers(make_network, engine))
  try:
    while waiting or scheduler.size:
      preemption.check()
      while waiting and scheduler.size < scheduler.limit:
        scheduler.submit(*waiting.popleft())
      for task, error in scheduler.step():
        if error and files.is_disk_full(error):
          raise error
        if error and task.number < engine.attempts:
          _LOG.info("Block %s, try %d: %s", task.block.name, task.number, error)
          waiting.append((task.block, task.number + 1))
        else:
          done(task.block, error)
  finally:
    scheduler.close()


def _connect(address: str) -> None:
  if ray.is_initialized():
    return
  try:
    with python_command.away_from_modules():  # Workers import from the current folder first.
      ray.init(address=address or "local", log_to_driver=False, logging_level=logging.WARNING)
  except (ConnectionError, ValueError, RuntimeError) as error:
    raise ConnectionError(
      f"--address={address}: no Ray cluster answers there ({str(error)[:200]}). Start one with ray "
      "start --head, or leave --address out."
    ) from error


class _Scheduler:
  """The blocks that are on their way, and the actors that map them."""

  def __init__(self, job: AreaJob, mappers: Mappers):
    self._job, self._mappers = job, mappers
    remote = ray.remote(num_cpus=ray_mappers.TASK_CPUS, max_retries=0)
    self._read, self._write = remote(_read), remote(map_block.write_block)
    self._running: dict[Any, _Task] = {}
    self._queues: dict[Any, collections.deque[_Task]] = {}  # What each actor works on, in order.
    self._unmapped: collections.deque[_Task] = collections.deque()  # Read, but not with an actor yet.

  @property
  def limit(self) -> int:
    """The most blocks that may be on their way: it bounds the memory."""
    return _PER_MAPPER * self._mappers.count + 1

  @property
  def size(self) -> int:
    """The number of blocks on their way."""
    return len(self._running) + len(self._unmapped)

  def submit(self, block: Block, number: int) -> None:
    """Starts to read a block."""
    task = _Task(block, number, self._job.for_block(block))
    call = self._read.options(name=f"read {block.name}", num_returns=2)
    references: Any = call.remote(*task.sent)  # Two, which the types of Ray do not know.
    reference, task.content = references
    self._running[reference] = task

  def step(self) -> list[tuple[_Task, Exception | None]]:
    """Waits until something ends, moves it on, and returns the blocks that are done or failed."""
    self._mappers.start_missing()
    self._feed()
    waiting = [*self._running, *self._mappers.starting]
    ended, _ = ray.wait(waiting, num_returns=1, timeout=_WAIT_SECONDS, fetch_local=False)
    results = []
    for reference in ended:
      if reference not in self._mappers.starting:
        results += self._end_step(reference)
      elif mapper := self._mappers.end_start(reference):
        self._queues[mapper] = collections.deque()
    return results

  def close(self) -> None:
    """Ends the actors."""
    self._mappers.close()

  def _feed(self) -> None:
    """Gives blocks that are read to the actors: one to work on, and one to fetch meanwhile."""
    while self._unmapped and self._queues:
      mapper = min(self._queues, key=lambda one: len(self._queues[one]))
      if len(self._queues[mapper]) >= _PER_QUEUE:
        return
      task = self._unmapped.popleft()
      call = mapper.map.options(name=f"map {task.block.name}", num_returns=2)
      reference, task.content = call.remote(task.sent[1], task.content)
      task.step, task.mapper = "map", mapper
      self._queues[mapper].append(task)
      self._running[reference] = task

  def _end_step(self, reference: Any) -> list[tuple[_Task, Exception | None]]:
    task = self._running.pop(reference)
    try:
      ray.get(reference)
    except ray.exceptions.RayError as error:
      if task.step == "map":
        return self._end_failed_map(task, error)
      return [(task, ray_mappers.cause(error))]
    if task.step == "read":
      self._unmapped.append(task)
      return []
    if task.step == "write":
      return [(task, None)]
    self._queues[task.mapper].remove(task)
    self._start_writing(task)
    return []

  def _start_writing(self, task: _Task) -> None:
    task.step = "write"
    writing = self._write.options(name=f"write {task.block.name}").remote(*task.sent, task.content)
    self._running[writing] = task

  def _end_failed_map(
    self, task: _Task, error: ray.exceptions.RayError
  ) -> list[tuple[_Task, Exception | None]]:
    """Ends a try; if the actor died, only the block that it worked on has failed."""
    queue = self._queues.get(task.mapper)
    if isinstance(error, _FAILED_CALLS) or queue is None:
      if queue is not None:
        queue.remove(task)
      return [(task, ray_mappers.cause(error))]
    del self._queues[task.mapper]
    self._mappers.replace(task.mapper)
    lost = {id(task)}
    for reference, other in list(self._running.items()):
      if other in queue:
        del self._running[reference]
        if _has_succeeded(reference):
          self._start_writing(other)
        else:
          lost.add(id(other))
    guilty, *others = (other for other in queue if id(other) in lost)
    for other in others:
      self.submit(other.block, other.number)
    return [(guilty, ray_mappers.cause(error))]


def _has_succeeded(reference: Any) -> bool:
  """Returns whether a call has ended without an error."""
  try:
    ray.get(reference, timeout=0)
  except (ray.exceptions.RayError, TimeoutError):  # It has failed, or goes on.
    return False
  return True

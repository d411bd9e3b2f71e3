"""Ends scenes that are mapped: several small ones at a time, since their files are slow to write."""

import collections
import os
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from lgag_jax.mapping.scene_job import SceneJob

_SMALL = 1 << 20  # Pixels of a map. Pictures and polygons of a larger one may take much memory.
_MAX_THREADS = 4


class SceneEnds:
  """Calls the `on_finish` of scenes, in any order; one thread may use it."""

  def __init__(self):
    self._threads = min(_MAX_THREADS, os.cpu_count() or 1)
    self._pool = ThreadPoolExecutor(self._threads)
    self._calls: collections.deque[Future] = collections.deque()

  def __enter__(self) -> "SceneEnds":
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    self._pool.shutdown(cancel_futures=True)

  def end(self, job: SceneJob) -> None:
    """Ends a scene, a small one later; raises what the end of this or an earlier scene raises."""
    if job.rows.length * job.cols.length * job.windows.reduction**2 > _SMALL:
      job.on_finish(job)
      return
    while len(self._calls) >= 2 * self._threads:
      self._calls.popleft().result()
    self._calls.append(self._pool.submit(job.on_finish, job))

  def wait(self) -> None:
    """Waits until all scenes have ended; raises what the end of one of them raises."""
    while self._calls:
      self._calls.popleft().result()

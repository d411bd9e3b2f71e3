"""Maps scenes: windows are read, looked at by the network, blended and written, all at once.

A thread reads ahead, the devices compute, another thread blends what comes back and writes what is
settled. Windows of one scene, or of many small ones, share batches of one compiled shape.
"""

import collections
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jax.sharding import Mesh
from rasterio.windows import Window

from lgag_jax.config import Config
from lgag_jax.geo.scale import View
from lgag_jax.geo.scene import Scene
from lgag_jax.geo.windows import Axis
from lgag_jax.imagery import reading, scaling
from lgag_jax.inference import exclusive_classes
from lgag_jax.mapping.canvas import Canvas
from lgag_jax.mapping.cog import NO_DATA, encode
from lgag_jax.mapping.unfinished import Store
from lgag_jax.mapping.window_scores import make_look
from lgag_jax.method.network import Network
from lgag_jax.runtime import preemption
from lgag_jax.state import TrainState

_MOST_ON_CPU = 8  # Windows as wide as training's a batch: more are no faster there, and take memory.
_ROWS = 64  # Classified at once: what that takes is several times their scores.
_AHEAD = 2  # Batches read before they are asked for, and as many computed before they are written.


@dataclasses.dataclass
class Job:
  """A scene, or some of its rows, while it is being mapped."""

  open: Callable[[], Scene]
  view: View
  rows: Axis  # Of the scene's pixels, `view.reduction` by `view.reduction` of them averaged.
  cols: Axis
  span: tuple[int, int]  # The rows of such pixels that are asked for.
  canvas: Canvas
  store: Store
  thresholds: np.ndarray  # f32[C]
  row: int  # The row of windows to go on with.
  probability: np.ndarray  # f32[C], the image scores' maximum over the windows so far.
  failure: reading.ImageError | None = None
  seconds: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  windows: int = 0  # That the network looked at.
  began: float = dataclasses.field(default_factory=time.monotonic)

  def effort(self) -> dict:
    """Returns what the map took: windows, seconds in all, and in each part of the work."""
    parts = {name: round(seconds, 3) for name, seconds in self.seconds.items()}
    return {
      "windows": self.windows, "wall_seconds": round(time.monotonic() - self.began, 3),
      "seconds": parts,
    }


@dataclasses.dataclass(frozen=True)
class _Batch:
  """Windows of one shape, and what is to be done when each of them is there, in order."""

  pixels: np.ndarray | None  # [B, side, side, channels] as read.
  view: View
  todo: list[Callable]  # Called with the batch's scores [B, side, side, C] and probabilities [B, C].


def run(
  jobs: Iterator[Job], network: Network, state: TrainState, config: Config, mesh: Mesh,
  finished: Callable[[Job], None], advance: Callable[[float], None],
) -> None:
  """Maps scenes in order; calls `finished` for each, `advance` with the pixels that are settled.

  A scene that cannot be read to its end is finished with its `failure` set.
  """
  look = functools.lru_cache(maxsize=4)(lambda view: make_look(network, config, mesh, view))
  waiting: collections.deque = collections.deque()
  batches = _batches(jobs, functools.partial(batch_size, config, mesh), config, finished, advance)
  with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
    ahead = collections.deque(reader.submit(next, batches, None) for _ in range(_AHEAD))
    try:
      while (batch := ahead.popleft().result()) is not None:
        preemption.check()
        ahead.append(reader.submit(next, batches, None))
        found = (None, None) if batch.pixels is None else look(batch.view)(state, batch.pixels)
        waiting.append(writer.submit(_do, batch.todo, *found))
        if len(waiting) > _AHEAD:
          waiting.popleft().result()
      for future in waiting:
        future.result()
    finally:
      for future in (*ahead, *waiting):
        future.cancel()


def batch_size(config: Config, mesh: Mesh, view: View) -> int:
  """Returns how many windows the network looks at at once, on all devices together."""
  size = config.localize.batch_size
  if mesh.devices.flat[0].platform == "cpu":
    most = max(1, round(_MOST_ON_CPU * (config.data.image_size / view.model_side) ** 2))
    size = min(size, -(-most // mesh.size) * mesh.size)
  return size


def _do(todo: list[Callable], scores: Any, probabilities: Any) -> None:
  begin = time.monotonic()
  if scores is not None:
    scores, probabilities = np.asarray(scores), np.asarray(probabilities)
  waited = time.monotonic() - begin
  for action in todo:
    action(scores, probabilities, waited / len(todo))


def _batches(
  jobs: Iterator[Job], size: Callable, config: Config, finished: Callable, advance: Callable
) -> Iterator[_Batch]:
  """Yields batches of `size(view)` windows at most, from one scene to the next where shapes agree."""
  pixels, todo, kind, view = [], [], None, None

  def batch() -> _Batch:
    if not pixels:
      return _Batch(None, view, list(todo))
    padding = [pixels[-1]] * (size(view) - len(pixels))
    return _Batch(np.stack(pixels + padding), view, list(todo))

  for job in jobs:
    for window, action in _steps(job, config, finished, advance):
      if window is not None:
        found = (job.view, window.shape, window.dtype)
        if pixels and (len(pixels) == size(view) or found != kind):
          yield batch()
          pixels.clear()
          todo.clear()
        kind, view = found, job.view
        action = functools.partial(action, len(pixels))
        pixels.append(window)
      todo.append(action)
  if todo:
    yield batch()


def _steps(job: Job, config: Config, finished: Callable, advance: Callable) -> Iterator[tuple]:
  """Yields windows, each with what to do with its result, and (None, what to do) between them."""
  try:
    with job.open() as scene:
      for row in job.rows.overlapping(*job.span):
        if row < job.row:
          continue
        begin = time.monotonic()
        pixels, valid = _read_row(scene, job, row)
        scaling.check_range(pixels, valid, config.data, str(scene.path))
        job.seconds["read"] += time.monotonic() - begin
        for col, start in enumerate(job.cols.starts):
          there = valid[:, start : start + job.view.side]
          if there.any():
            window = pixels[:, start : start + job.view.side].copy()
            if not there.all():
              reading.fill_invalid(window, there)  # By this window's own mean.
            yield window, functools.partial(_add, job, row, col)
        settled = _settled_valid(scene, job, row, valid)
        yield None, functools.partial(_settle, job, row, settled, advance)
  except reading.ImageError as error:
    job.failure = error
  yield None, lambda *_: finished(job)


def _read_row(scene: Scene, job: Job, row: int) -> tuple[np.ndarray, np.ndarray]:
  """Reads a row of windows: pixels [side, W, channels] and valid bool[side, W], both averaged."""
  by, side, down = job.view.reduction, job.view.side, job.rows.span(row)
  height, width = down.stop - down.start, job.cols.length
  window = Window(0, down.start * by, width * by, height * by)
  pixels, valid = scene.read(window, out_shape=(height, width) if by > 1 else None)
  short = ((0, side - height), (0, max(side - width, 0)))  # A scene may be smaller than a window.
  return np.pad(pixels, (*short, (0, 0))), np.pad(valid, short)


def _settled_valid(scene: Scene, job: Job, row: int, valid: np.ndarray) -> np.ndarray:
  """Returns where the rows that a row of windows settles hold data, at the scene's full detail."""
  by, first, settled = job.view.reduction, job.rows.starts[row], job.rows.complete_until(row)
  if by == 1:
    return valid[: settled - first, : job.cols.length]
  stop = scene.grid.height if settled == job.rows.length else settled * by
  return scene.valid(Window(0, first * by, scene.grid.width, stop - first * by))


def _add(job: Job, row: int, col: int, place: int, scores, probabilities, waited: float) -> None:
  begin = time.monotonic()
  job.canvas.add(row, col, scores[place])
  job.probability = np.maximum(job.probability, probabilities[place])
  job.windows += 1
  job.seconds["compute"] += waited
  job.seconds["blend"] += time.monotonic() - begin


def _settle(job: Job, row: int, valid: np.ndarray, advance: Callable, _s, _p, waited: float) -> None:
  """Ends a row of windows: classifies what it settles, and writes it."""
  begin = time.monotonic()
  by, top = job.view.reduction, job.rows.starts[row]
  first, scores = job.canvas.finish(row)
  if len(scores):
    last = first + len(scores) == job.rows.length
    valid = valid[(first - top) * by :][: None if last else len(scores) * by]
    if by > 1:
      scores = scores.repeat(by, axis=0).repeat(by, axis=1)
      # What is left of the scene at its lower and right border is less than a pixel of the window's.
      rest = [valid.shape[axis] - scores.shape[axis] for axis in (0, 1)]
      scores = np.pad(scores, ((0, rest[0]), (0, rest[1]), (0, 0)), mode="edge")
    for start in range(0, len(scores), _ROWS):
      part, there = scores[start : start + _ROWS], valid[start : start + _ROWS]
      mask = exclusive_classes.drawn(part, job.thresholds)
      mask[~there] = NO_DATA
      job.store.write(first * by + start, encode(part, there, job.store.dtype), mask)
  if row + 1 < len(job.rows.starts):
    job.store.save(row + 1, job.canvas.band, job.probability.tolist())
  job.seconds["compute"] += waited
  job.seconds["write"] += time.monotonic() - begin
  advance(float(scores.shape[0] * scores.shape[1]))

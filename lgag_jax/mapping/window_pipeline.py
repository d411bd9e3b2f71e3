"""Maps scenes by windows: reads, scores, blends and writes them at the same time.

A thread reads ahead while the devices compute. Another thread blends the scores and writes the rows
that are final; more write the products of small scenes. Windows of one scene, or of many small ones,
share batches of one compiled shape.
"""

import collections
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Mesh
from rasterio.windows import Window

from lgag_jax.config import Config
from lgag_jax.geo.scale import WindowPlan
from lgag_jax.imagery import reading, scaling
from lgag_jax.mapping.scene_ends import SceneEnds
from lgag_jax.mapping.scene_job import SceneJob, WindowSource
from lgag_jax.mapping.window_scores import make_window_scores
from lgag_jax.method.network import Network
from lgag_jax.runtime import preemption
from lgag_jax.state import TrainState

# On a CPU a program for one window finds its data in the cache. Several such programs at once use the
# cores better than one program for several windows, whose operations are too small to divide.
_MAX_CPU_WINDOWS = 8  # Of the training size at once, since each takes memory; of larger ones fewer.
_BATCHES_AHEAD = 2  # Batches read before they are needed, and computed before they are written.


@dataclasses.dataclass(frozen=True)
class _Window:
  """A window has been read: [side, side, channels]; its scores will be at `index` of its batch."""

  job: SceneJob
  row: int
  col: int
  pixels: np.ndarray | None  # None once they are in a batch.
  index: int = 0


@dataclasses.dataclass(frozen=True)
class _RowEnd:
  """All windows of a row have been read; `valid` is as `SceneJob.finish_row` takes it."""

  job: SceneJob
  row: int
  valid: np.ndarray


@dataclasses.dataclass(frozen=True)
class _SceneEnd:
  """The scene has been read to its end, or cannot be."""

  job: SceneJob


@dataclasses.dataclass(frozen=True)
class _Batch:
  """Windows of one shape, and the steps to take in order when their scores are computed."""

  pixels: np.ndarray | None  # [B, side, side, channels] as read; None for steps without windows.
  windows: WindowPlan | None
  steps: list[_Window | _RowEnd | _SceneEnd]

  @property
  def kind(self) -> tuple:
    """What a program is compiled for."""
    return self.windows, *((self.pixels.shape, self.pixels.dtype) if self.pixels is not None else ())


def run(
  jobs: Iterator[SceneJob], network: Network, state: TrainState, config: Config, mesh: Mesh
) -> None:
  """Maps scenes in order, and calls each job's `on_finish`; of small scenes several at once."""
  scores_at = functools.cache(functools.partial(make_window_scores, network, config, mesh))
  batches, programs = _read_batches(jobs, config, mesh), _threads(mesh)
  ahead = _BATCHES_AHEAD * programs
  computing: collections.deque[Future] = collections.deque(maxlen=programs)
  writing, compiled = collections.deque(), set()
  with (
    ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(programs) as computer,
    SceneEnds() as ends, ThreadPoolExecutor(1) as writer,
  ):
    reading_ahead = collections.deque(reader.submit(next, batches, None) for _ in range(ahead))
    try:
      while (batch := reading_ahead.popleft().result()) is not None:
        preemption.check()
        reading_ahead.append(reader.submit(next, batches, None))
        if (most := programs_at_once(config, mesh, batch.windows)) < programs:
          while len(computing) >= most:
            computing.popleft().result()
        outputs = computer.submit(_compute, batch, scores_at, state, wait=programs > 1)
        computing.append(outputs)
        if batch.kind not in compiled:  # Threads that begin together would each compile it.
          compiled.add(batch.kind)
          outputs.result()
        writing.append(writer.submit(_take_steps, batch.steps, outputs, ends))
        if len(writing) > ahead:
          writing.popleft().result()
      for future in writing:
        future.result()
      ends.wait()
    finally:
      for future in (*reading_ahead, *writing):
        future.cancel()


def programs_at_once(config: Config, mesh: Mesh, windows: WindowPlan | None) -> int:
  """Returns how many batches are computed at the same time."""
  side = windows.model_side if windows else config.data.image_size
  return min(_threads(mesh), max(1, round(_MAX_CPU_WINDOWS * (config.data.image_size / side) ** 2)))


def _threads(mesh: Mesh) -> int:
  if mesh.devices.flat[0].platform != "cpu" or mesh.size > 1:  # Devices wait for each other.
    return 1
  return min(_MAX_CPU_WINDOWS, os.cpu_count() or 1)


def batch_size(config: Config, mesh: Mesh) -> int:
  """Returns the number of windows per batch, on all devices together."""
  return mesh.size if mesh.devices.flat[0].platform == "cpu" else config.localize.batch_size


def _compute(
  batch: _Batch, scores_at: Callable[..., Callable], state: TrainState, *, wait: bool
) -> tuple[jax.Array, jax.Array] | None:
  """Returns the scores and the image scores of a batch's windows, which `wait` says to wait for."""
  if batch.pixels is None:
    return None
  outputs = scores_at(batch.windows)(state, batch.pixels)
  return jax.block_until_ready(outputs) if wait else outputs


def _take_steps(
  steps: list, outputs: Future[tuple[jax.Array, jax.Array] | None], ends: SceneEnds
) -> None:
  """Waits for a batch's scores and image scores, then takes its steps."""
  started = time.monotonic()
  scores, image_scores = map(np.asarray, outputs.result() or ((), ()))
  waited = time.monotonic() - started
  for step in steps:
    step.job.seconds["compute"] += waited / len(steps)
    match step:
      case _Window(job, row, col, _, index):
        job.add_window(row, col, scores[index], image_scores[index])
      case _RowEnd(job, row, valid):
        job.finish_row(row, valid)
      case _SceneEnd(job):
        ends.end(job)


def _read_batches(jobs: Iterator[SceneJob], config: Config, mesh: Mesh) -> Iterator[_Batch]:
  """Yields batches of windows, from one scene to the next while their shapes and types agree."""
  pixels, steps, windows = [], [], None

  def batch() -> _Batch:
    if not pixels or windows is None:
      return _Batch(None, windows, steps)
    padding = [pixels[-1]] * (batch_size(config, mesh) - len(pixels))
    return _Batch(np.stack(pixels + padding), windows, steps)

  for job in jobs:
    for step in _read_scene(job, config):
      if isinstance(step, _Window) and step.pixels is not None:
        window = step.pixels
        if pixels and (
          len(pixels) == batch_size(config, mesh)
          or (job.windows, window.shape, window.dtype) != (windows, pixels[0].shape, pixels[0].dtype)
        ):
          yield batch()
          pixels, steps = [], []
        windows = job.windows
        step = _Window(job, step.row, step.col, None, len(pixels))
        pixels.append(window)
      steps.append(step)
  if steps:
    yield batch()


def _read_scene(job: SceneJob, config: Config) -> Iterator[_Window | _RowEnd | _SceneEnd]:
  """Reads the windows that hold data, row by row; on an ImageError sets the job's `failure`."""
  try:
    with job.open() as scene:
      for row in job.rows.overlapping(*job.span):
        if row < job.next_row:
          continue
        started = time.monotonic()
        pixels, valid = _read_row(scene, job, row)
        scaling.check_range(pixels, valid, config.data, str(scene.path))
        job.add_values(pixels, valid)
        job.seconds["read"] += time.monotonic() - started
        for col, start in enumerate(job.cols.starts):
          columns = slice(start, start + job.windows.side)
          if valid[:, columns].any():
            window = pixels[:, columns].copy()
            if not valid[:, columns].all():
              reading.fill_invalid(window, valid[:, columns])  # By the window's own mean.
            yield _Window(job, row, col, window)
        yield _RowEnd(job, row, _read_final_valid(scene, job, row, valid))
  except reading.ImageError as error:
    job.failure = error
  yield _SceneEnd(job)


def _read_row(scene: WindowSource, job: SceneJob, row: int) -> tuple[np.ndarray, np.ndarray]:
  """Reads a row of windows of the reduced scene: pixels [side, W, channels], valid bool[side, W]."""
  reduction, side, down = job.windows.reduction, job.windows.side, job.rows.span(row)
  height, width = down.stop - down.start, job.cols.length
  window = Window(0, down.start * reduction, width * reduction, height * reduction)
  pixels, valid = scene.read(window, out_shape=(height, width) if reduction > 1 else None)
  padding = ((0, side - height), (0, max(side - width, 0)))  # A scene may be smaller than a window.
  if not np.any(padding):  # Padding by nothing would be a copy.
    return pixels, valid
  return np.pad(pixels, (*padding, (0, 0))), np.pad(valid, padding)


def _read_final_valid(
  scene: WindowSource, job: SceneJob, row: int, valid: np.ndarray
) -> np.ndarray:
  """Returns where the file, not reduced, holds data in the rows that end with a row of windows."""
  reduction, first, stop = job.windows.reduction, job.rows.starts[row], job.rows.complete_until(row)
  if reduction == 1:
    return valid[: stop - first, : job.cols.length]
  end = scene.grid.height if stop == job.rows.length else stop * reduction
  return scene.valid(Window(0, first * reduction, scene.grid.width, end - first * reduction))

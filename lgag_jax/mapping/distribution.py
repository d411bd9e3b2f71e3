"""Deals a prediction out to processes: whole scenes, or parts of each where scenes are fewer."""

import dataclasses
import itertools
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.geo.scene import open_scene
from lgag_jax.geo.windows import Axis, cover_scene
from lgag_jax.mapping import products, window_pipeline
from lgag_jax.mapping.canvas import Canvas
from lgag_jax.mapping.products import Plan
from lgag_jax.mapping.unfinished import Store
from lgag_jax.mapping.window_pipeline import Job
from lgag_jax.method.network import Network
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import files, processes
from lgag_jax.runtime.progress import Progress
from lgag_jax.state import TrainState

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Share:
  """What this process does of a prediction; `shared` says that each scene's rows are dealt out.

  `leave_out` is told of a scene that cannot be read to its end, and why.
  """

  output: pathlib.Path
  config: Config
  options: Options
  thresholds: list[float]
  shared: bool
  leave_out: Callable[[pathlib.Path, Exception], None]

  def map(self, todo: list[Plan], network: Network, state: TrainState, mesh: Mesh) -> None:
    """Maps this process's part of the scenes, and finishes what is whole."""
    if not todo:
      return
    mine = todo if self.shared else todo[jax.process_index() :: jax.process_count()]
    pixels = sum(plan.grid.height * plan.grid.width for plan in mine)
    pixels = pixels / jax.process_count() if self.shared else pixels
    progress = Progress("prediction", pixels / 1e6, unit="MP")
    plans: dict[int, Plan] = {}

    def jobs() -> Iterator[Job]:
      for plan in mine:
        spans = self._spans(self._axes(plan)[0])
        part = jax.process_index() if self.shared else 0
        if part >= len(spans):  # There are fewer rows of windows than processes.
          continue
        job = self._job(plan, spans[part])
        plans[id(job)] = plan
        yield job

    def finished(job: Job) -> None:
      plan = plans.pop(id(job))
      if job.failure:
        self.leave_out(plan.path, job.failure)
        if not self.shared:  # Other processes are at work in the same folder.
          shutil.rmtree(plan.working(self.output), ignore_errors=True)
      elif self.shared:
        job.store.save(len(job.rows.starts), job.canvas.band, job.probability.tolist(), now=True)
      else:
        self._write(plan, [job.store], job.probability, job.effort())

    advance = lambda pixels: progress.advance(pixels / 1e6)
    window_pipeline.run(jobs(), network, state, self.config, mesh, finished, advance)
    progress.close()
    processes.barrier("prediction")
    if self.shared:
      processes.from_first(lambda: self._join(todo))

  def _job(self, plan: Plan, span: tuple[int, int]) -> Job:
    """Readies a scene's map, from where an earlier run came to."""
    rows, cols = self._axes(plan)
    store = self._store(plan, span)
    canvas = Canvas(rows, cols, len(self.thresholds), *span)
    first, found = rows.overlapping(*span)[0], np.zeros(len(self.thresholds), np.float32)
    if resumed := store.resume():
      first, band, probability = resumed
      found = np.array(probability, np.float32)
      _LOG.info("%s: going on from window row %d of %d.", plan.path.name, first + 1, len(rows.starts))
      if first < len(rows.starts):
        canvas.restore(first, band)
    else:
      size = store.bytes_a_row * (store.span[1] - store.span[0])
      files.require_free_space(self.output, 2 * size, f"the map of {plan.path.name}")
    opened = lambda: open_scene(plan.path, self.config.data.channels, bands=self.options.bands)
    return Job(
      opened, plan.view, rows, cols, span, canvas, store, np.array(self.thresholds, np.float32), first,
      found,
    )

  def _axes(self, plan: Plan) -> tuple[Axis, Axis]:
    return cover_scene(plan.grid, plan.view, self.options.overlap)

  def _spans(self, rows: Axis) -> list[tuple[int, int]]:
    """Cuts the rows of a scene into the parts that are mapped apart, at the starts of windows."""
    parts = jax.process_count() if self.shared else 1
    parts = min(parts, len(rows.starts))
    ends = [rows.starts[len(rows.starts) * part // parts] for part in range(parts)] + [rows.length]
    return list(itertools.pairwise(ends))

  def _store(self, plan: Plan, span: tuple[int, int]) -> Store:
    by, height = plan.view.reduction, plan.grid.height
    last = span[1] == max(1, height // by)
    return Store(
      plan.working(self.output), plan.key, (span[0] * by, height if last else span[1] * by),
      plan.grid.width, len(self.thresholds), self.options.dtype,
    )

  def _join(self, plans: list[Plan]) -> None:
    """Finishes the scenes of which every process has left its rows."""
    for plan in plans:
      rows = self._axes(plan)[0]
      stores = [self._store(plan, span) for span in self._spans(rows)]
      parts = [store.resume() for store in stores]
      if not all(part and part[0] == len(rows.starts) for part in parts):
        self.leave_out(plan.path, ValueError("a process could not map its rows"))
        shutil.rmtree(plan.working(self.output))
      else:
        self._write(plan, stores, np.max([part[2] for part in parts], axis=0), {})

  def _write(self, plan: Plan, stores: list[Store], probability: np.ndarray, effort: dict) -> None:
    products.write(plan, stores, probability, effort, self.output, self.config, self.options)

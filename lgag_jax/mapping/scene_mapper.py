"""Divides the mapping of scenes among processes: whole scenes, or rows of each if scenes are few."""

import dataclasses
import errno
import functools
import itertools
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.geo.windows import Axis, cover_scene
from lgag_jax.inference.localize import gate_of
from lgag_jax.mapping import gate_windows, products, window_pipeline
from lgag_jax.mapping.gate_windows import GateRecorder, GateWindows
from lgag_jax.mapping.row_store import RowStore
from lgag_jax.mapping.scene_job import SceneJob, value_warnings
from lgag_jax.mapping.scene_plans import ScenePlan
from lgag_jax.method.network import Network
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import files, processes
from lgag_jax.runtime.progress import Progress
from lgag_jax.state import TrainState

_LOG = logging.getLogger(__name__)

_ERRORS_OF_NAMES = (errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG)


@dataclasses.dataclass(frozen=True)
class SceneMapper:
  """Maps this process's part of a list of scenes."""

  output: pathlib.Path
  config: Config
  options: Options
  thresholds: list[float]  # Per class.
  split_scenes: bool  # Whether the processes divide the rows of each scene, not the scenes.
  skip: Callable[[pathlib.Path, Exception], None]  # Called with a scene that cannot be read, and why.

  def map_scenes(self, plans: list[ScenePlan], network: Network, state: TrainState, mesh: Mesh) -> None:
    """Maps this process's part of the scenes, and writes the products of those that are whole."""
    if not plans:
      return
    count = jax.process_count()
    own_plans = plans if self.split_scenes else plans[jax.process_index() :: count]
    pixels = sum(plan.grid.height * plan.grid.width for plan in own_plans)
    pixels = pixels / count if self.split_scenes else pixels
    progress = Progress("prediction", pixels / 1e6, unit="MP")
    window_pipeline.run(self._jobs(own_plans, progress), network, state, self.config, mesh)
    progress.close()
    processes.barrier("prediction")
    if self.split_scenes:
      processes.run_on_first(lambda: self._join(plans))

  def _jobs(self, plans: list[ScenePlan], progress: Progress) -> Iterator[SceneJob]:
    """Yields a job per scene, resumed if an earlier run stopped within it."""
    part = jax.process_index() if self.split_scenes else 0
    for plan in plans:
      rows, cols = cover_scene(plan.grid, plan.windows, self.options.overlap)
      spans = self._spans(rows)
      if part >= len(spans):  # The scene has fewer rows of windows than there are processes.
        continue
      store = self._store(plan, spans[part])
      job = SceneJob(
        functools.partial(
          plan.source.open, self.config.data.channels, bands=self.options.bands,
          max_shift=self.options.max_shift,
        ),
        plan.windows, rows, cols, spans[part], store, np.array(self.thresholds, np.float32),
        gate_of(self.config),
        on_finish=functools.partial(self._finish, plan, store),
        on_progress=lambda pixels: progress.advance(pixels / 1e6),
        recorder=GateRecorder(
          (plan.grid.height, plan.grid.width), rows, cols, spans[part], plan.windows.reduction,
          len(self.thresholds),
        ) if plan.gated else None,
      )
      if saved := store.load_state(len(rows.starts), job.canvas.band.shape):
        _LOG.info(
          "%s: resuming at window row %d of %d.", plan.path.name, saved.next_row + 1, len(rows.starts)
        )
        job.resume(saved)
      else:
        files.require_free_space(self.output, 2 * store.total_bytes, f"the map of {plan.path.name}")
      yield job

  def _finish(self, plan: ScenePlan, store: RowStore, job: SceneJob) -> None:
    if job.failure:
      self.skip(plan.path, job.failure)
      if not self.split_scenes:  # Else other processes may be writing to the same folder.
        shutil.rmtree(plan.working_folder(self.output), ignore_errors=True)
    elif self.split_scenes:
      store.save(job.state_before(len(job.rows.starts)), now=True)
    else:
      before_gate = job.recorder.windows() if job.recorder else None
      self._write(plan, [store], job.image_scores, before_gate, job.effort(), job.brightest)

  def _spans(self, rows: Axis) -> list[tuple[int, int]]:
    """Returns the ranges of pixel rows that are mapped separately; they begin where windows do."""
    parts = jax.process_count() if self.split_scenes else 1
    parts = min(parts, len(rows.starts))
    ends = [rows.starts[len(rows.starts) * part // parts] for part in range(parts)] + [rows.length]
    return list(itertools.pairwise(ends))

  def _store(self, plan: ScenePlan, span: tuple[int, int]) -> RowStore:
    reduction, height = plan.windows.reduction, plan.grid.height
    start, stop = (row * reduction for row in span)
    if span[1] == max(1, height // reduction):  # The last rows may not fill a reduced pixel.
      stop = height
    return RowStore(
      plan.working_folder(self.output), plan.key, (start, stop), plan.grid.width,
      len(self.thresholds), self.options.dtype,
    )

  def _join(self, plans: list[ScenePlan]) -> None:
    """Writes the products of the scenes of which every process has mapped its rows."""
    for plan in plans:
      rows, cols = cover_scene(plan.grid, plan.windows, self.options.overlap)
      stores = [self._store(plan, span) for span in self._spans(rows)]
      saved = len(rows.starts), (rows.side, cols.length, len(self.thresholds))
      states = [state for store in stores if (state := store.load_state(*saved))]
      whole = all(state.next_row == len(rows.starts) for state in states)
      if len(states) == len(stores) and whole:
        image_scores = np.max([state.image_scores for state in states], axis=0)
        brightest = max((s.brightest for s in states if s.brightest is not None), default=None)
        parts = [state.gate_windows for state in states if state.gate_windows]
        before_gate = gate_windows.joined(parts) if parts else None
        self._write(plan, stores, image_scores, before_gate, {}, brightest)
      else:
        self.skip(plan.path, ValueError("a process could not map its rows"))
        shutil.rmtree(plan.working_folder(self.output))

  def _write(
    self, plan: ScenePlan, stores: list[RowStore], image_scores: np.ndarray,
    before_gate: GateWindows | None, effort: dict, brightest: float | None,
  ) -> None:
    warnings = [*plan.warnings, *value_warnings(brightest, plan.dtype, self.config.data)]
    for text in warnings[len(plan.warnings) :]:
      _LOG.warning("%s: %s", plan.path, text)
    effort = {**effort, "warnings": warnings}
    try:
      products.write(
        plan, stores, image_scores, before_gate, effort, self.output, self.config, self.options)
    except (ValueError, OSError) as error:
      if isinstance(error, OSError) and error.errno not in _ERRORS_OF_NAMES:
        raise  # Of the disk: the other scenes would fail as well.
      self.skip(plan.path, error)
      shutil.rmtree(plan.working_folder(self.output), ignore_errors=True)

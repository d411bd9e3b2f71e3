"""The training loop."""

import contextlib
import dataclasses
import json
import logging
import pathlib
import time
from collections.abc import Sequence

import jax
import numpy as np
from clu import metric_writers
from jax.sharding import Mesh

from lgag_jax import cluster, evaluate, partition, preemption, session, train_step
from lgag_jax import config as configs
from lgag_jax.checkpoints import Checkpoints, write_json
from lgag_jax.config import Config
from lgag_jax.input_pipeline import steps_per_epoch
from lgag_jax.progress import Progress
from lgag_jax.sources import Source, open_source
from lgag_jax.state import TrainState

_LOG = logging.getLogger(__name__)

# What may differ when a training goes on, perhaps elsewhere: nothing that is learned depends on it.
_MACHINE_SETTINGS = (
  "data.decoded_cache_gib", "data.feature_cache_directory", "localize.batch_size", "train.accumulate",
  "train.checkpoint_every", "train.keep_checkpoints", "train.log_every", "train.shard_state",
)


def train_and_evaluate(config: Config, workdir: pathlib.Path) -> TrainState:
  """Trains into `workdir`, from its newest checkpoint on if it has one, and evaluates.

  Leaves config.json, checkpoints/, metrics.jsonl, TensorBoard events and eval/ there. Raises
  ValueError when the workdir holds the training of another config; preemption.Stopped, all steps
  saved, when SIGTERM comes.
  """
  mesh = partition.make_mesh()
  partition.check_batch(mesh, config.train.batch_size, config.train.accumulate)
  partition.check_batch(mesh, config.localize.batch_size)
  sources = _open_sources(config)
  keeper = Checkpoints(workdir, keep=config.train.keep_checkpoints, writes=True)
  with contextlib.closing(keeper) as checkpoints:
    return _run(config, workdir, mesh, sources, checkpoints)


def _run(
  config: Config, workdir: pathlib.Path, mesh: Mesh, sources: list[Source], checkpoints: Checkpoints
) -> TrainState:
  started = checkpoints.latest() is not None
  cluster.from_first(lambda: _claim(config, workdir, started=started))
  epoch_steps = steps_per_epoch(len(sources[0].ids), config.train.batch_size)
  total_steps = epoch_steps * config.train.epochs
  network, optimizer, state = session.start(config, mesh, total_steps)
  train, validation = (
    session.open_split(source, network, state, config, mesh, workdir) for source in sources
  )
  pending = []
  if started:
    state, position = checkpoints.restore(state)
    pending = position["pending"]
    _LOG.info("Going on from step %d.", int(state.step))

  step = train_step.make_train_step(
    network, config, optimizer, mesh, steps_per_epoch=epoch_steps
  )
  refresh = train_step.make_refresh(config, mesh)
  refresh_every = config.bank.refresh_every or epoch_steps
  first = int(state.step)
  log = Log(workdir, first, pending)
  skips = Skips(train.source.ids, config.train.max_skipped)
  progress = Progress("training", total_steps, done=first, unit="steps")
  position = lambda: {"step": int(state.step), "pending": log.fetched()}
  batches = train.train_batches(config, start_step=first)
  try:
    for number, batch in enumerate(batches, start=first):
      if number % refresh_every == 0:
        state = state.replace(bank=refresh(state.bank))
      index = batch.pop("index")
      state, metrics = step(state, partition.to_global(batch, mesh))
      done = number + 1
      last = done == total_steps
      flush = last or done % config.train.log_every == 0
      log.add(done, metrics, flush=flush)
      skips.add(done, index, metrics["skipped"], check=flush)
      progress.advance(1, log.note)
      if last or done % config.train.checkpoint_every == 0:
        checkpoints.save(state, position())
      every = config.train.evaluate_every * epoch_steps
      if every and (last or done % every == 0):
        log.write(done, "validation", evaluate.brief(network, state, validation, config, mesh))
      preemption.check()
  except preemption.Stopped:
    batches.close()
    checkpoints.save(state, position())
    log.close()
    raise preemption.Stopped(f"Stopped at step {int(state.step)} of {total_steps}") from None
  progress.close()
  evaluate.evaluate(network, state, config, mesh, workdir, train=train, validation=validation)
  log.close()
  return state


def _open_sources(config: Config) -> list[Source]:
  sources = [open_source(config.data, split) for split in ("train", "validation")]
  if config.model.method == "supervised" and not sources[0].has_masks:
    raise ValueError(f"{config.data.directory}: model.method='supervised' needs masks to learn from.")
  return sources


def evaluate_workdir(workdir: pathlib.Path) -> dict:
  """Evaluates a workdir's newest checkpoint; returns the metrics that it writes to eval/."""
  mesh = partition.make_mesh()
  config, network, state = session.restore(workdir, mesh)
  train, validation = (
    session.open_split(
      open_source(config.data, split), network, state, config, mesh, workdir
    )
    for split in ("train", "validation")
  )
  return evaluate.evaluate(
    network, state, config, mesh, workdir, train=train, validation=validation
  )


def _claim(config: Config, workdir: pathlib.Path, *, started: bool) -> None:
  """Writes config.json; once there is a checkpoint, only if what is learned stays the same."""
  path = workdir / "config.json"
  if started and path.exists():
    old = configs.load(path)
    changed = [
      f"{group}.{name}: {old_value!r} -> {getattr(getattr(config, group), name)!r}"
      for group in vars(old)
      for name, old_value in vars(getattr(old, group)).items()
      if old_value != getattr(getattr(config, group), name)
      and f"{group}.{name}" not in _MACHINE_SETTINGS
    ]
    if changed:
      raise ValueError(
        f"{workdir} holds a training with other settings ({'; '.join(changed)}). "
        "Use another --workdir, or remove it to start again."
      )
  write_json(path, dataclasses.asdict(config))


class Log:
  """Means over the steps since the last line: JSON lines, TensorBoard events."""

  def __init__(self, workdir: pathlib.Path, first_step: int, pending: list[dict[str, float]]):
    self.note = ""  # For the progress line.
    self._main = cluster.is_first()
    self._path = workdir / "metrics.jsonl"
    self._writer = metric_writers.SummaryWriter(str(workdir)) if self._main else None
    self._pending: list[dict] = pending
    self._new = 0
    self._since = time.monotonic()
    if self._main:
      self._drop_after(first_step)

  def add(self, step: int, metrics: dict, *, flush: bool) -> None:
    """Takes a step's sums, and with `flush` set writes the means since the last line."""
    self._pending.append(metrics)
    self._new += 1
    if not flush:
      return
    steps = self.fetched()
    sums = {name: float(np.sum([m[name] for m in steps])) for name in steps[0]}
    examples = max(sums.pop("examples"), 1.0)
    skipped = sums.pop("skipped")
    sound = max(len(steps) - skipped, 1.0)
    norm, anchors = sums.pop("gradient_norm") / sound, sums.pop("anchors") / sound
    means = {name: total / examples for name, total in sums.items()}
    rate = self._new / max(time.monotonic() - self._since, 1e-9)
    extra = {"gradient_norm": norm, "anchors_per_step": anchors, "steps_per_second": rate}
    extra |= {"skipped_steps": skipped} if skipped else {}
    self.write(step, "train", {**means, **extra})
    self.note = f"loss {means['loss']:.4f}"
    self._pending, self._new, self._since = [], 0, time.monotonic()

  def fetched(self) -> list[dict[str, float]]:
    """Returns the sums of the steps since the last line, which a checkpoint keeps."""
    # Fetched only here: until then the device runs ahead of the host.
    self._pending = [
      {name: float(value) for name, value in m.items()} for m in jax.device_get(self._pending)
    ]
    return self._pending

  def write(self, step: int, split: str, values: dict[str, float]) -> None:
    """Writes values of a step under a split's name."""
    if not self._main:
      return
    with self._path.open("a") as file:
      file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
    self._writer.write_scalars(step, {f"{split}/{name}": value for name, value in values.items()})

  def close(self) -> None:
    """Flushes the TensorBoard events."""
    if self._main:
      self._writer.close()

  def _drop_after(self, step: int) -> None:
    """Removes lines of steps that a resumed run does again."""
    if not self._path.exists():
      return
    lines = [json.loads(line) for line in self._path.read_text().splitlines() if line.endswith("}")]
    kept = [json.dumps(line) + "\n" for line in lines if line["step"] <= step]
    self._path.write_text("".join(kept))


class Skips:
  """Watches for steps that were not finite; too many in a row end the run."""

  def __init__(self, ids: Sequence[str], most: int):
    self._ids = ids
    self._most = most
    self._pending: list[tuple] = []
    self._row: list[tuple[int, np.ndarray]] = []  # Step and examples of those in a row.

  def add(self, step: int, index: np.ndarray, skipped: jax.Array, *, check: bool) -> None:
    """Takes a step; with `check` set, raises ValueError after too many in a row."""
    self._pending.append((step, index, skipped))
    if not check:
      return
    for number, examples, was_skipped in jax.device_get(self._pending):
      self._row = [*self._row, (number, examples)] if was_skipped else []
      if was_skipped:
        _LOG.warning("Step %d was not finite and changed nothing.", number)
    self._pending = []
    if len(self._row) > self._most:
      first, examples = self._row[0]
      raise ValueError(
        f"{len(self._row)} steps in a row, from {first} on, were not finite; weights and bank are as "
        f"they were before. The first of them read {', '.join(self._ids[i] for i in examples)}. Look "
        "at these, or lower optim.learning_rate."
      )

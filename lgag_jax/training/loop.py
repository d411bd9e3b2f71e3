"""The training loop, from top to bottom in `_train`."""

import contextlib
import dataclasses
import logging
import pathlib

import optax
from jax.sharding import Mesh

from lgag_jax import config as configs
from lgag_jax.config import Config
from lgag_jax.evaluation import evaluate
from lgag_jax.geo import scale
from lgag_jax.inputs import normalisation, unused_files
from lgag_jax.inputs.pipeline import steps_per_epoch
from lgag_jax.inputs.sources import Source, open_source
from lgag_jax.inputs.split import Split
from lgag_jax.method.network import Network
from lgag_jax.method.registry import method_of
from lgag_jax.runtime import files, lock, preemption, processes, sharding
from lgag_jax.runtime.progress import Progress
from lgag_jax.state import TrainState
from lgag_jax.training import (
  examples_record,
  fill_trunk_outputs,
  model_directory,
  own_files,
  restore,
  train_step,
)
from lgag_jax.training.checkpoints import Checkpoints
from lgag_jax.training.log import Log, Skips

_LOG = logging.getLogger(__name__)

# May differ when a training resumes, perhaps on another machine: nothing learned depends on them.
_MACHINE_SETTINGS = (
  "data.decoded_cache_gib", "data.feature_cache_directory", "localize.batch_size", "train.accumulate",
  "train.checkpoint_every", "train.keep_checkpoints", "train.log_every", "train.shard_state",
)


@dataclasses.dataclass
class _Run:
  """A training in progress."""

  config: Config
  mesh: Mesh
  network: Network
  optimizer: optax.GradientTransformation
  train: Split
  validation: Split
  checkpoints: Checkpoints
  log: Log
  skips: Skips
  evaluation_due: bool  # The validation of the current step is still to come.

  def evaluate(self, step: int, state: TrainState) -> None:
    """Writes the figures of the validation part to the log."""
    self.evaluation_due = True
    figures = evaluate.epoch_metrics(self.network, state, self.validation, self.config, self.mesh)
    self.log.write(step, "validation", figures)
    self.evaluation_due = False

  def save(self, state: TrainState) -> None:
    """Saves a checkpoint with the position in log and data."""
    self.checkpoints.save(state, {
      "unjudged": self.evaluation_due, "log": self.log.position(), "skips": self.skips.position(),
    })


def train_and_evaluate(config: Config, workdir: pathlib.Path) -> TrainState:
  """Trains into `workdir`, from its newest checkpoint on if it has one, and evaluates.

  Writes config.json, normalisation.json if data.normalise="train", checkpoints/, metrics.jsonl,
  TensorBoard events and eval/. Raises ValueError when the workdir holds the training of another config
  or of other examples; preemption.Stopped, with all steps saved, when SIGTERM comes.
  """
  model_directory.refuse(workdir, "Train into another --workdir.")
  mesh = sharding.make_mesh()
  sharding.check_batch(mesh, config.train.batch_size, config.train.accumulate)
  sharding.check_batch(mesh, config.localize.batch_size)
  sources = _open_sources(config)
  checkpoints = Checkpoints(workdir, keep=config.train.keep_checkpoints, writes=True)
  with contextlib.closing(checkpoints):
    run, state = _prepare(config, workdir, mesh, sources, checkpoints)
    with contextlib.closing(run.log):
      state = _train(run, state)
    evaluate.evaluate(
      run.network, state, run.config, mesh, workdir, train=run.train, validation=run.validation
    )
  return state


def _train(run: _Run, state: TrainState) -> TrainState:
  config, first = run.config, int(state.step)
  epoch_steps = steps_per_epoch(len(run.train.source.ids), config.train)
  last_step = epoch_steps * config.train.epochs
  evaluate_every = config.train.evaluate_every * epoch_steps
  refresh_every = config.bank.refresh_every or epoch_steps
  take_step = train_step.make_train_step(
    run.network, config, run.optimizer, run.mesh, steps_per_epoch=epoch_steps
  )
  refresh = train_step.make_refresh(config, run.mesh)
  progress = Progress("training", last_step, done=first, unit="steps")
  with contextlib.closing(run.train.train_batches(config, start_step=first)) as batches:
    try:
      if run.evaluation_due:
        run.evaluate(first, state)
      for step, batch in enumerate(batches, start=first + 1):
        if (step - 1) % refresh_every == 0:
          state = dataclasses.replace(state, bank=refresh(state.bank))
        index = batch.pop("index")
        state, metrics = take_step(state, sharding.to_global(batch, run.mesh))
        flush = step == last_step or step % config.train.log_every == 0
        run.log.add(step, metrics, flush=flush)
        run.skips.add(step, index, metrics["skipped"], check=flush)
        progress.advance(1, run.log.note)
        if evaluate_every and (step == last_step or step % evaluate_every == 0):
          run.evaluate(step, state)
        if step == last_step or step % config.train.checkpoint_every == 0:
          run.save(state)
        preemption.check()
    except preemption.Stopped:
      run.save(state)
      raise preemption.Stopped(f"Stopped at step {int(state.step)} of {last_step}") from None
  progress.close()
  return state


def _prepare(
  config: Config, workdir: pathlib.Path, mesh: Mesh, sources: dict[str, Source],
  checkpoints: Checkpoints,
) -> tuple[_Run, TrainState]:
  started, training = checkpoints.latest is not None, sources["train"]
  processes.run_on_first(lambda: _claim(config, sources, workdir, started=started))
  processes.run_on_first(lambda: scale.save(scale.training_scale(training, config), workdir))
  config = normalisation.measure_or_resolve(config, training, workdir, started=started)
  steps = steps_per_epoch(len(training.ids), config.train) * config.train.epochs
  network, optimizer, state = restore.start(config, mesh, steps)
  train, validation = (
    fill_trunk_outputs.open_split(source, network, state, config, mesh, workdir)
    for source in sources.values()
  )
  position = {"unjudged": False, "log": {"lines": 0, "pending": []}, "skips": []}
  if started:
    state, position = checkpoints.restore(state)
    _LOG.info("Resuming from step %d.", int(state.step))
  skips = Skips(train.source.ids, config.train.max_skipped, position["skips"])
  log = Log(workdir, **position["log"])
  return _Run(
    config, mesh, network, optimizer, train, validation, checkpoints, log, skips,
    evaluation_due=position["unjudged"],
  ), state


def _open_sources(config: Config) -> dict[str, Source]:
  sources = {split: open_source(config.data, split) for split in ("train", "validation")}
  examples_record.warn_of_shared(sources)
  processes.run_on_first(lambda: unused_files.log(config.data))
  method = method_of(config)
  if method.supervision == "masks" and not sources["train"].has_masks:
    raise ValueError(f"{config.data.directory}: method {method.name!r} needs masks to learn from.")
  return sources


def evaluate_workdir(workdir: pathlib.Path) -> dict:
  """Evaluates a workdir's newest checkpoint, the workdir locked; writes and returns its metrics.

  Raises ValueError if the training examples have changed.
  """
  model_directory.refuse(workdir, "Judge it on scenes, with --input, --labels and --output.")
  mesh = sharding.make_mesh()
  config, network, state = restore.restore(workdir, mesh)
  # Of the training images only the labels are needed.
  data = dataclasses.replace(config.data, pseudo_masks="")
  with lock.hold(workdir):
    sources = {
      split: open_source(data, split, from_workdir=True) for split in ("train", "validation")
    }
    examples_record.check(sources, workdir, config)
    examples_record.warn_of_shared(sources)
    examples_record.warn_of_overlap(sources)
    train, validation = (
      fill_trunk_outputs.open_split(source, network, state, config, mesh, workdir)
      for source in sources.values()
    )
    return evaluate.evaluate(network, state, config, mesh, workdir, train=train, validation=validation)


def changed_settings(old: Config, new: Config) -> list[str]:
  """Returns the fields, with both values, that differ and that training or evaluation depends on."""
  return [
    f"{group}.{name}: {old_value!r} -> {getattr(getattr(new, group), name)!r}"
    for group in vars(old)
    for name, old_value in vars(getattr(old, group)).items()
    if old_value != getattr(getattr(new, group), name)
    and f"{group}.{name}" not in _MACHINE_SETTINGS
  ]


def _claim(
  config: Config, sources: dict[str, Source], workdir: pathlib.Path, *, started: bool
) -> None:
  """Writes config.json and the record of the examples.

  Raises ValueError if a checkpoint was trained with other settings or on other examples.
  """
  path = workdir / "config.json"
  if not started:
    own_files.require(workdir)
  if started and path.exists():
    changed = changed_settings(configs.load(path), config)
    if changed:
      raise ValueError(
        f"{workdir} holds a training with other settings ({'; '.join(changed)}). "
        "Use another --workdir, or remove it to start again."
      )
  if started:
    examples_record.check(sources, workdir, config)
    examples_record.warn_of_overlap(sources)
  else:
    examples_record.refuse_overlap(sources, config)
  files.write_json(path, dataclasses.asdict(config))
  if not started:
    examples_record.write(sources, workdir, config)

"""The training loop."""

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Callable

from jax.sharding import Mesh

from lgag_jax import config as configs
from lgag_jax.config import Config
from lgag_jax.evaluation import evaluate
from lgag_jax.geo import scale
from lgag_jax.inputs import normalisation
from lgag_jax.inputs.pipeline import steps_per_epoch
from lgag_jax.inputs.sources import Source, open_source
from lgag_jax.inputs.split import Split
from lgag_jax.method.registry import method_of
from lgag_jax.runtime import files, lock, preemption, processes, sharding
from lgag_jax.runtime.progress import Progress
from lgag_jax.state import TrainState
from lgag_jax.training import fill_trunk_outputs, model_directory, restore, train_step
from lgag_jax.training.checkpoints import Checkpoints
from lgag_jax.training.log import Log, Skips

_LOG = logging.getLogger(__name__)

# What may differ when a training goes on, perhaps elsewhere: nothing that is learned depends on it.
_MACHINE_SETTINGS = (
  "data.decoded_cache_gib", "data.feature_cache_directory", "localize.batch_size", "train.accumulate",
  "train.checkpoint_every", "train.keep_checkpoints", "train.log_every", "train.shard_state",
)


def train_and_evaluate(config: Config, workdir: pathlib.Path) -> TrainState:
  """Trains into `workdir`, from its newest checkpoint on if it has one, and evaluates.

  Leaves config.json, normalisation.json where data.normalise="train", checkpoints/, metrics.jsonl,
  TensorBoard events and eval/ there. Raises
  ValueError when the workdir holds the training of another config; preemption.Stopped, all steps
  saved, when SIGTERM comes.
  """
  model_directory.refuse(workdir, "Train into another --workdir.")
  mesh = sharding.make_mesh()
  sharding.check_batch(mesh, config.train.batch_size, config.train.accumulate)
  sharding.check_batch(mesh, config.localize.batch_size)
  sources = _open_sources(config)
  keeper = Checkpoints(workdir, keep=config.train.keep_checkpoints, writes=True)
  with contextlib.closing(keeper) as checkpoints:
    return _run(config, workdir, mesh, sources, checkpoints)


def _run(
  config: Config, workdir: pathlib.Path, mesh: Mesh, sources: list[Source], checkpoints: Checkpoints
) -> TrainState:
  started = checkpoints.latest() is not None
  processes.from_first(lambda: _claim(config, workdir, started=started))
  processes.from_first(
    lambda: scale.save(scale.training_scale(_image_files(sources[0]), config), workdir)
  )
  config = normalisation.measure_or_resolve(config, sources[0], workdir, started=started)
  epoch_steps = steps_per_epoch(len(sources[0].ids), config.train)
  network, optimizer, state = restore.start(config, mesh, epoch_steps * config.train.epochs)
  train, validation = (
    fill_trunk_outputs.open_split(source, network, state, config, mesh, workdir) for source in sources
  )
  position = {"unjudged": False, "log": {"lines": 0, "pending": []}, "skips": []}
  if started:
    state, position = checkpoints.restore(state)
    _LOG.info("Going on from step %d.", int(state.step))
  step = train_step.make_train_step(
    network, config, optimizer, mesh, steps_per_epoch=epoch_steps
  )
  judge = lambda state: evaluate.epoch_metrics(network, state, validation, config, mesh)
  with contextlib.closing(Log(workdir, **position["log"])) as log:
    skips = Skips(train.source.ids, config.train.max_skipped, position["skips"])
    save = lambda state, *, unjudged: checkpoints.save(
      state, {"unjudged": unjudged, "log": log.position(), "skips": skips.position()}
    )
    state = _take_steps(
      config, mesh, train, state, log, skips, step, judge, save, unjudged=position["unjudged"]
    )
  evaluate.evaluate(network, state, config, mesh, workdir, train=train, validation=validation)
  return state


def _take_steps(
  config: Config, mesh: Mesh, train: Split, state: TrainState, log: Log, skips: Skips,
  step: Callable, judge: Callable, save: Callable, *, unjudged: bool,
) -> TrainState:
  """Trains from a state to the end; `unjudged` says whether its step's validation is still to come."""
  epoch_steps = steps_per_epoch(len(train.source.ids), config.train)
  total_steps, first = epoch_steps * config.train.epochs, int(state.step)
  judge_every = config.train.evaluate_every * epoch_steps
  refresh = train_step.make_refresh(config, mesh)
  refresh_every = config.bank.refresh_every or epoch_steps
  progress = Progress("training", total_steps, done=first, unit="steps")
  with contextlib.closing(train.train_batches(config, start_step=first)) as batches:
    try:
      if unjudged:
        log.write(first, "validation", judge(state))
        unjudged = False
      for number, batch in enumerate(batches, start=first):
        if number % refresh_every == 0:
          state = state.replace(bank=refresh(state.bank))
        index = batch.pop("index")
        state, metrics = step(state, sharding.to_global(batch, mesh))
        done = number + 1
        last = done == total_steps
        flush = last or done % config.train.log_every == 0
        log.add(done, metrics, flush=flush)
        skips.add(done, index, metrics["skipped"], check=flush)
        progress.advance(1, log.note)
        if judge_every and (last or done % judge_every == 0):
          unjudged = True
          log.write(done, "validation", judge(state))
          unjudged = False
        if last or done % config.train.checkpoint_every == 0:
          save(state, unjudged=False)
        preemption.check()
    except preemption.Stopped:
      save(state, unjudged=unjudged)
      raise preemption.Stopped(f"Stopped at step {int(state.step)} of {total_steps}") from None
  progress.close()
  return state


def _open_sources(config: Config) -> list[Source]:
  sources = [open_source(config.data, split) for split in ("train", "validation")]
  if shared := set(sources[0].keys) & set(sources[1].keys):
    _LOG.warning(
      "%d of %d validation images are training images, too: figures on them flatter "
      "(data.train_split, data.validation_split).", len(shared), len(sources[1].keys),
    )
  method = method_of(config)
  if method.supervision == "masks" and not sources[0].has_masks:
    raise ValueError(f"{config.data.directory}: method {method.name!r} needs masks to learn from.")
  return sources


def _image_files(source: Source) -> list[pathlib.Path]:
  """Returns the files that hold a source's images; none of a TFDS set."""
  return [path for i in range(len(source.ids)) if (path := source.files(i)[0])]


def evaluate_workdir(workdir: pathlib.Path) -> dict:
  """Evaluates a workdir's newest checkpoint; returns the metrics that it writes to eval/.

  Raises ValueError when another process is at work there.
  """
  model_directory.refuse(workdir, "Judge it on scenes, with --input, --labels and --output.")
  mesh = sharding.make_mesh()
  config, network, state = restore.restore(workdir, mesh)
  # Of the training images only the labels are needed.
  data = dataclasses.replace(config.data, pseudo_masks="")
  with lock.hold(workdir):
    train, validation = (
      fill_trunk_outputs.open_split(
        open_source(data, split, from_workdir=True), network, state, config, mesh, workdir
      )
      for split in ("train", "validation")
    )
    return evaluate.evaluate(
      network, state, config, mesh, workdir, train=train, validation=validation
    )


def changed_settings(old: Config, new: Config) -> list[str]:
  """Names the fields, with both values, that differ and that something learned or judged depends on."""
  return [
    f"{group}.{name}: {old_value!r} -> {getattr(getattr(new, group), name)!r}"
    for group in vars(old)
    for name, old_value in vars(getattr(old, group)).items()
    if old_value != getattr(getattr(new, group), name)
    and f"{group}.{name}" not in _MACHINE_SETTINGS
  ]


def _claim(config: Config, workdir: pathlib.Path, *, started: bool) -> None:
  """Writes config.json; once there is a checkpoint, only if what is learned stays the same."""
  path = workdir / "config.json"
  if started and path.exists():
    changed = changed_settings(configs.load(path), config)
    if changed:
      raise ValueError(
        f"{workdir} holds a training with other settings ({'; '.join(changed)}). "
        "Use another --workdir, or remove it to start again."
      )
  files.write_json(path, dataclasses.asdict(config))

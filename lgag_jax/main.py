"""The command line: lgag, or python -m lgag_jax.main --config=configs/x.py --workdir=runs/x."""

import logging as python_logging
import os
import pathlib
import sys
import traceback

# Before TensorFlow and JAX are imported: their start-up notes are for their developers.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # Nothing here uses what it is loud about.

from absl import app, flags, logging

from lgag_jax.cli import command_line

_FLAGS = flags.FLAGS


def run() -> None:
  """Is what `lgag` starts."""
  app.run(main, flags_parser=command_line.parse_flags)


def main(argv: list[str]) -> None:
  """Runs the mode; a bad setting, file or input is one clear line and exit code 1.

  SIGTERM ends training and evaluation in order, with exit code 143. The doctor's exit code is 0 when
  nothing is worse than a note, 2 with warnings, 1 with errors; prediction's 2 when it left images out.
  """
  if len(argv) > 1:
    sys.exit(f"{argv[1]!r} is no flag. Flags begin with --; see --help.")
  try:
    told = command_line.told()  # Before anything is imported that takes seconds.
    if _FLAGS.mode in _ALONE:
      _ALONE[_FLAGS.mode](*told)
    else:
      _run(*told)
  except (ValueError, TypeError, OSError) as error:
    logging.debug("Where it happened:", exc_info=True)
    _leave_others(f"Error: {error}")
    sys.exit(f"Error: {error}")
  except Exception:
    _leave_others(traceback.format_exc())
    raise


def _leave_others(message: str) -> None:
  """Ends one of several processes at once: a tidy exit waits minutes for those that wait for it."""
  if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
    print(message, file=sys.stderr, flush=True)
    os._exit(1)


def _run(*told) -> None:
  """Runs a mode that works on a workdir, perhaps as one of several processes."""
  import pyogrio  # noqa: F401  First: GeoPackages would get TensorFlow's SQLite, which has no R-trees.

  if _FLAGS.input:
    from lgag_jax.geo import formats

    formats.scene_files(_FLAGS.input)  # A name that is wrong is told before what takes seconds.
  import tensorflow as tf

  from lgag_jax.runtime import compiled_programs, preemption, processes

  _tell_of_own_work()
  tf.config.set_visible_devices([], "GPU")  # The accelerator is JAX's.
  compiled_programs.enable_cache()
  processes.start(_FLAGS.distributed, _FLAGS.coordinator, _FLAGS.processes, _FLAGS.process)
  if not processes.is_first():
    python_logging.getLogger("lgag_jax").setLevel(python_logging.WARNING)
  if path := command_line.shipped_config():
    python_logging.getLogger("lgag_jax").info("Config: %s, which comes with lgag_jax.", path)
  # Orbax's background threads need an absolute path.
  workdir = pathlib.Path(_FLAGS.workdir).absolute()
  if _FLAGS.mode in _WHOLE:
    _WHOLE[_FLAGS.mode](workdir, *told)
    return
  try:
    with preemption.watch():
      _STOPPABLE[_FLAGS.mode](workdir, *told)
  except preemption.Stopped as stop:
    if processes.is_first():
      print(stop, file=sys.stderr)
    sys.exit(preemption.EXIT_CODE)


def _tell_of_own_work() -> None:
  """Libraries tell of errors only, this package of what it does."""
  logging.set_verbosity(logging.ERROR)
  python_logging.getLogger("lgag_jax").setLevel(python_logging.INFO)


def _evaluate(workdir: pathlib.Path, options=None, wanted=None) -> None:
  from lgag_jax.mapping import judge
  from lgag_jax.runtime import processes
  from lgag_jax.training import loop

  if options is None:
    loop.evaluate_workdir(workdir)
    table, page = workdir / "eval" / "validation.md", ""
  else:
    output = pathlib.Path(_FLAGS.output)
    judge.evaluate(workdir, _FLAGS.input, output, options, wanted)
    table, page = output / "eval" / "scenes.md", f"\nPage: {output}/report.html"
  if processes.is_first():
    print(f"{table.read_text()}{page}")


def _train(workdir: pathlib.Path, config) -> None:
  from lgag_jax.training import loop

  loop.train_and_evaluate(config, workdir)
  _report(workdir)


def _pseudo(workdir: pathlib.Path) -> None:
  from lgag_jax.runtime import processes
  from lgag_jax.training import pseudo_masks

  folder = pseudo_masks.write(workdir)
  if processes.is_first():
    print(f"Pseudo-masks: {folder}. Train on them with --config.data.pseudo_masks={folder}.")


def _stages(workdir: pathlib.Path, config) -> None:
  from lgag_jax.training import two_stages

  second = two_stages.train_both(config, workdir)
  for folder in (second.parent / "first", second):
    _report(folder)


def _doctor(workdir: pathlib.Path, config) -> None:
  from lgag_jax.doctor import examine

  sys.exit(examine.examine(config, workdir))


def _report(workdir: pathlib.Path) -> None:
  from lgag_jax.evaluation import report
  from lgag_jax.runtime import processes

  if not processes.is_first():
    return
  path = report.write_report(workdir)
  print(f"Report: {path}")


def _predict(workdir: pathlib.Path, options) -> None:
  from lgag_jax.mapping import predict
  from lgag_jax.runtime import processes

  output = pathlib.Path(_FLAGS.output)
  result = predict.map_scenes(workdir, _FLAGS.input, output, options)
  if processes.is_first():
    count = "1 image" if len(result.rows) == 1 else f"{len(result.rows)} images"
    print(f"{count} mapped. Open {output}/report.html; for a GIS see mask/ and polygons/.")
  if result.skipped:  # Named in the log and on the page.
    sys.exit(2)


def _export(workdir: pathlib.Path, settings) -> None:
  from lgag_jax.export import export

  export.export(workdir, _FLAGS.output, settings)


def _tile(settings) -> None:
  os.environ.setdefault("JAX_PLATFORMS", "cpu")  # Nothing here needs an accelerator.
  from lgag_jax.tiling import output, tile

  _tell_of_own_work()
  rows, command = tile.cut(settings)
  print(f"{output.summary(rows, settings)}\nTrain on {settings.output} with\n\n    {command}\n")


def _datasets(choice) -> None:
  from lgag_jax.inputs import catalogue

  print(catalogue.text(choice.name))


def _completion() -> None:
  from lgag_jax.cli import completion

  print(completion.script())


_ALONE = {"tile": _tile, "datasets": _datasets, "completion": _completion}  # Without a workdir.
_WHOLE = {"report": _report, "doctor": _doctor}  # SIGTERM ends them at once.
_STOPPABLE = {
  "train": _train, "eval": _evaluate, "pseudo": _pseudo, "stages": _stages, "predict": _predict,
  "export": _export,
}


if __name__ == "__main__":
  run()

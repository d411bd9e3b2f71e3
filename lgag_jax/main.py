"""The command line: lgag, or python -m lgag_jax.main --config=configs/x.py --workdir=runs/x."""

import logging as python_logging
import os
import pathlib
import sys

# Set before TensorFlow and JAX are imported: their start-up messages are for their developers.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # Not used here, and it logs a lot.

from absl import app, flags, logging

from lgag_jax.cli import command_line, standard_streams
from lgag_jax.runtime import printable, user_paths

_FLAGS = flags.FLAGS


def run() -> None:
  """Starts the program; the entry point of the `lgag` command."""
  standard_streams.end_at_interrupt()
  with standard_streams.checked_output():
    app.run(main, flags_parser=command_line.parse_flags)


def main(argv: list[str]) -> None:
  """Runs the mode that --mode names.

  Exit codes: 0 for success. 1 for an invalid setting, file or input, or an error of a library, with a
  message of one line. 143 when SIGTERM stopped a training, evaluation, prediction or export in order.
  The doctor returns 2 if its worst finding is a warning and 1 if it is an error. Prediction, evaluation
  of scenes and mapping return 2 if they skipped images or blocks. Ctrl-C ends the process by its signal
  (130 in shells).
  """
  if len(argv) > 1:
    sys.exit(user_paths.not_a_flag(argv[1]))
  try:
    arguments = command_line.mode_arguments()  # Checks the flags before any slow import.
    if _FLAGS.mode in _MODES_WITHOUT_WORKDIR:
      _log_only_this_package()
      _MODES_WITHOUT_WORKDIR[_FLAGS.mode](*arguments)
    else:
      _run_in_workdir(*arguments)
  except Exception as error:
    logging.debug("Traceback of the error:", exc_info=True)
    message = f"Error: {_one_line(error)}"
    _exit_at_once_if_distributed(message)
    sys.exit(message)


def _one_line(error: Exception) -> str:
  """Returns what an error says; that of a library also says its kind, and how to see its origin."""
  words = printable.line(printable.without_queries(" ".join(str(error).split())))
  if isinstance(error, ValueError | TypeError | OSError) and words:
    return words
  return f"{type(error).__name__}: {words}. --verbosity=1 shows where it arose."


def _exit_at_once_if_distributed(message: str) -> None:
  """Ends one of several processes at once: JAX's orderly exit waits minutes for the other processes."""
  if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
    print(message, file=sys.stderr, flush=True)
    os._exit(1)


def _run_in_workdir(*arguments) -> None:
  """Runs a mode that works on a workdir, in one process or as one of several."""
  # Imported first: after TensorFlow, GeoPackages would use its SQLite, which has no R-trees.
  import pyogrio  # noqa: F401

  if _FLAGS.input and _FLAGS.mode != "map":
    from lgag_jax.imagery import listing

    listing.scene_files(_FLAGS.input)  # Reports a wrong name before the slow imports.
  from lgag_jax.runtime import compiled_programs, preemption, processes

  _log_only_this_package()
  compiled_programs.enable_cache(cpu_only=_FLAGS.engine == "ray")  # Its workers need the accelerator.
  processes.start(_FLAGS.distributed, _FLAGS.coordinator, _FLAGS.processes, _FLAGS.process)
  if not processes.is_first():
    python_logging.getLogger("lgag_jax").setLevel(python_logging.WARNING)
  if path := command_line.packaged_config():
    python_logging.getLogger("lgag_jax").info("Config: %s, which comes with lgag_jax.", path)
  # Orbax's background threads need an absolute path.
  workdir = pathlib.Path(_FLAGS.workdir).absolute()
  if _FLAGS.mode in _SHORT_MODES:
    _SHORT_MODES[_FLAGS.mode](workdir, *arguments)
    return
  try:
    with preemption.watch():
      _LONG_MODES[_FLAGS.mode](workdir, *arguments)
  except preemption.Stopped as stop:
    if processes.is_first():
      print(stop, file=sys.stderr)
    sys.exit(preemption.EXIT_CODE)


def _log_only_this_package() -> None:
  if logging.get_verbosity() < logging.DEBUG:
    logging.set_verbosity(logging.ERROR)
  logging.get_absl_handler().python_handler.addFilter(printable.Filter())
  python_logging.getLogger("lgag_jax").setLevel(python_logging.INFO)


def _evaluate(workdir: pathlib.Path, options=None, references=None) -> None:
  from lgag_jax.mapping import judge
  from lgag_jax.runtime import processes
  from lgag_jax.training import loop

  if options is None or references is None:
    loop.evaluate_workdir(workdir)
    table, page, unmapped = workdir / "eval" / "validation.md", "", []
  else:
    output = pathlib.Path(_FLAGS.output)
    unmapped = judge.evaluate(workdir, _FLAGS.input, output, options, references)["unmapped"]
    table, page = output / "eval" / "scenes.md", f"\nPage: {output}/report.html"
  if processes.is_first():
    print(f"{table.read_text()}{page}")
  if unmapped:  # Named in the table, in the log and on the page.
    sys.exit(2)


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

  if processes.is_first():
    print(f"Report: {report.write_report(workdir)}")


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


def _map(workdir: pathlib.Path, imagery, area, engine) -> None:
  from lgag_jax.blocks import area_job

  output, method = pathlib.Path(_FLAGS.output), _FLAGS.method_file or ""
  sys.exit(area_job.run(workdir, _FLAGS.input, output, imagery, area, engine, method))


def _export(workdir: pathlib.Path, settings) -> None:
  from lgag_jax.export import export

  export.export(workdir, _FLAGS.output, settings)


def _bands(settings) -> None:
  from lgag_jax.bands import add

  print("\n".join(add.add(settings)))


def _tile(settings) -> None:
  os.environ["JAX_PLATFORMS"] = "cpu"  # Tiling needs no accelerator.
  from lgag_jax.tiling import output, tile

  if not settings.labels:
    from lgag_jax.options import labelling

    _label(labelling.Settings.for_sheets(settings))
    return
  rows, command = tile.cut(settings)
  print(f"{output.summary(rows, settings)}\nTrain on {settings.output} with\n\n    {command}\n")


def _label(settings) -> None:
  from lgag_jax.labelling import label

  label.label(settings)


def _review(settings) -> None:
  from lgag_jax.reviewing import review

  review.review(settings)


def _clouds(settings) -> None:
  from lgag_jax.mapping import cloud_masks

  masks = cloud_masks.write(settings)
  print(f"{len(masks)} cloud masks. Map with --clouds={settings.output}")


def _datasets(options) -> None:
  from lgag_jax.inputs import catalogue

  print(catalogue.text(options.name))


def _completion() -> None:
  from lgag_jax.cli import completion

  print(completion.script())


_MODES_WITHOUT_WORKDIR = {
  "bands": _bands, "clouds": _clouds, "tile": _tile, "label": _label, "review": _review,
  "datasets": _datasets, "completion": _completion,
}
_SHORT_MODES = {"report": _report, "doctor": _doctor}  # SIGTERM ends these at once.
_LONG_MODES = {  # SIGTERM lets these save their work first.
  "train": _train, "eval": _evaluate, "pseudo": _pseudo, "stages": _stages, "predict": _predict,
  "map": _map, "export": _export,
}


if __name__ == "__main__":
  run()

"""The command line: python -m lgag_jax.main --config=configs/x.py --workdir=runs/x."""

import logging as python_logging
import os
import pathlib
import sys
import traceback

# Before TensorFlow and JAX are imported: their start-up notes are for their developers.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags, logging
from ml_collections import config_flags

from lgag_jax import export_settings, flag_fields, map_settings, tile_settings

_MODES = ("train", "eval", "pseudo", "stages", "predict", "export", "report", "doctor", "tile")
_WITH_CONFIG = ("train", "stages", "doctor")  # The others read what a training left in its workdir.
_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "A config file; --config.optim.learning_rate=0.05 changes a field.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Where a run keeps everything; every mode but tile needs one."
)
_MODE = flags.DEFINE_enum(
  "mode", "train", _MODES,
  "What to do. stages trains a first stage, writes its pseudo-masks and trains a second one on them; "
  "pseudo writes the pseudo-masks of a finished training. doctor reads the data before training, says "
  "what is wrong with it, and exits with 0 when nothing is worse than a note, 2 with warnings, 1 with "
  "errors. tile cuts scenes into a training set. eval judges the newest checkpoint on held-out images, "
  "with --input its maps of scenes, which it makes first, against --labels. export takes it elsewhere.",
)
_INPUT = flags.DEFINE_string(
  "input", None, "predict, tile, eval: an image or scene, a folder or a glob."
)
_OUTPUT = flags.DEFINE_string("output", None, "predict, tile, eval, export: the folder to write to.")
flag_fields.define(
  predict=map_settings.Options, tile=tile_settings.Settings, eval=map_settings.References,
  export=export_settings.Settings,
)
_DISTRIBUTED = flags.DEFINE_enum(
  "distributed", "auto", ("auto", "on", "off"),
  "Work as one of several processes: auto where srun, mpirun, Kubernetes or a TPU pod started them.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "Several processes elsewhere: HOST:PORT of process 0, with the next two."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this one is, from 0.")


def main(argv: list[str]) -> None:
  """Runs the mode; a bad setting, file or input is one clear line and exit code 1.

  SIGTERM ends training and evaluation in order, with exit code 143. The doctor's exit code is 0 when
  nothing is worse than a note, 2 with warnings, 1 with errors.
  """
  if len(argv) > 1:
    sys.exit(f"{argv[1]!r} is no flag. Flags begin with --; see --helpshort.")
  try:
    _run()
  except (ValueError, TypeError, OSError) as error:
    logging.debug("Where it happened:", exc_info=True)
    _leave_others(f"Error: {error}")
    sys.exit(f"Error: {error}")
  except Exception:
    _leave_others(traceback.format_exc())
    raise


def _leave_others(message: str) -> None:
  """Ends one of several processes at once: a tidy exit waits minutes for those that wait for it."""
  import jax

  if jax.distributed.is_initialized():
    print(message, file=sys.stderr, flush=True)
    os._exit(1)


def _run() -> None:
  if _MODE.value == "tile":
    _tile()
    return
  if not _WORKDIR.value:
    raise ValueError(f"--mode={_MODE.value} needs --workdir=<folder>: a run keeps everything there.")
  # Imported here, so that --help and a misspelt flag answer at once.
  import pyogrio  # noqa: F401  First: GeoPackages would get TensorFlow's SQLite, which has no R-trees.
  import tensorflow as tf

  from lgag_jax import cluster, preemption, session

  # Libraries tell of warnings only, this package of what it does.
  logging.set_verbosity(logging.WARNING)
  python_logging.getLogger("lgag_jax").setLevel(python_logging.INFO)
  tf.config.set_visible_devices([], "GPU")  # The accelerator is JAX's.
  session.prepare_jax()
  cluster.start(_DISTRIBUTED.value, _COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  if not cluster.is_first():
    python_logging.getLogger("lgag_jax").setLevel(python_logging.WARNING)
  # Orbax's background threads need an absolute path.
  workdir = pathlib.Path(_WORKDIR.value).absolute()
  if _MODE.value == "report":
    _report(workdir)
  elif _MODE.value == "doctor":
    _doctor(workdir)
  else:
    try:
      with preemption.watch():
        _STOPPABLE[_MODE.value](workdir)
    except preemption.Stopped as stop:
      if cluster.is_first():
        print(stop, file=sys.stderr)
      sys.exit(preemption.EXIT_CODE)


def _evaluate(workdir: pathlib.Path) -> None:
  from lgag_jax import cluster, train

  if _INPUT.value:
    _evaluate_scenes(workdir)
    return
  if flags.FLAGS.labels or _OUTPUT.value:
    raise ValueError("--mode=eval with --labels or --output needs --input, the scenes to judge.")
  train.evaluate_workdir(workdir)
  if cluster.is_first():
    print(f"{(workdir / 'eval' / 'validation.md').read_text()}")


def _evaluate_scenes(workdir: pathlib.Path) -> None:
  from lgag_jax import cluster, judge_scenes

  if not _OUTPUT.value:
    raise ValueError("--mode=eval of --input needs --output, the folder of the maps.")
  output = pathlib.Path(_OUTPUT.value)
  options, wanted = (flag_fields.read(c) for c in (map_settings.Options, map_settings.References))
  judge_scenes.evaluate(workdir, _INPUT.value, output, options, wanted)
  if cluster.is_first():
    print(f"{(output / 'eval' / 'scenes.md').read_text()}\nPage: {output}/report.html")


def _train(workdir: pathlib.Path) -> None:
  from lgag_jax import train

  train.train_and_evaluate(_config(), workdir)
  _report(workdir)


def _pseudo(workdir: pathlib.Path) -> None:
  from lgag_jax import cluster, pseudo_masks

  folder = pseudo_masks.write(workdir)
  if cluster.is_first():
    print(f"Pseudo-masks: {folder}. Train on them with --config.data.pseudo_masks={folder}.")


def _stages(workdir: pathlib.Path) -> None:
  from lgag_jax import stages

  second = stages.train_both(_config(), workdir)
  for folder in (second.parent / "first", second):
    _report(folder)


def _doctor(workdir: pathlib.Path) -> None:
  from lgag_jax.doctor import examine

  sys.exit(examine.examine(_config(), workdir))


def _config():
  from lgag_jax import config as configs

  if _CONFIG.value is None:
    raise ValueError("--config is missing: for your own images --config=configs/image_folder.py.")
  return configs.from_mapping(_CONFIG.value)


def _report(workdir: pathlib.Path) -> None:
  from lgag_jax import cluster, report

  if not cluster.is_first():
    return
  path = report.write_report(workdir)
  print(f"Report: {path}")


def _predict(workdir: pathlib.Path) -> None:
  from lgag_jax import cluster, predict

  for flag in (_INPUT, _OUTPUT):
    if not flag.value:
      raise ValueError(f"--mode=predict needs --{flag.name}.")
  output = pathlib.Path(_OUTPUT.value)
  options = flag_fields.read(map_settings.Options)
  rows = predict.predict(workdir, _INPUT.value, output, options)
  if cluster.is_first():
    print(f"{len(rows)} images mapped. Open {output}/report.html; for a GIS see mask/ and polygons/.")


def _export(workdir: pathlib.Path) -> None:
  from lgag_jax import export

  export.export(workdir, _OUTPUT.value, flag_fields.read(export_settings.Settings))


_STOPPABLE = {
  "train": _train, "eval": _evaluate, "pseudo": _pseudo, "stages": _stages, "predict": _predict,
  "export": _export,
}


def _tile() -> None:
  os.environ.setdefault("JAX_PLATFORMS", "cpu")  # Nothing here needs an accelerator.
  from lgag_jax import tile, tile_output

  logging.set_verbosity(logging.WARNING)
  python_logging.getLogger("lgag_jax").setLevel(python_logging.INFO)
  settings = flag_fields.read(
    tile_settings.Settings, input=_INPUT.value or "", output=_OUTPUT.value or ""
  )
  rows, command = tile.cut(settings)
  print(f"{tile_output.summary(rows, settings)}\nTrain on {settings.output} with\n\n    {command}\n")


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line; a misspelt field is one line.

  Only what trains, and the doctor, execute a config file.
  """
  modes = [a.split("=", 1)[1] for a in argv if a.lstrip("-").startswith("mode=")]
  if modes and modes[-1] not in _WITH_CONFIG and any(a.lstrip("-").startswith("config") for a in argv):
    sys.exit(f"Error: --mode={modes[-1]} reads the workdir's config.json: leave --config out.")
  try:
    return flags.FLAGS(argv)
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    sys.exit(f"Error: {_shortened(str(error))}")


def _shortened(text: str) -> str:
  """Keeps what went wrong: of a config file's traceback the last line, of long lists the hint."""
  lines = [line.strip() for line in text.strip("'\"\n").splitlines() if line.strip()]
  if any(line.startswith("Traceback") for line in lines):
    return lines[-1]
  hint = text[text.rindex("Did you mean") :] if "Did you mean" in text else ""
  return text if len(text) < 300 else f"{text[:200]} ... {hint}"


if __name__ == "__main__":
  app.run(main, flags_parser=parse_flags)

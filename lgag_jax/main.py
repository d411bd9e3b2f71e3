"""The command line: python -m lgag_jax.main --config=configs/x.py --workdir=runs/x."""

import logging as python_logging
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

_MODES = ("train", "eval", "predict", "report")
_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "A config file; --config.optim.learning_rate=0.05 changes a field.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where a run keeps everything.", required=True)
_MODE = flags.DEFINE_enum("mode", "train", _MODES, "What to do.")
_INPUT = flags.DEFINE_string("input", None, "predict: an image or a folder of images.")
_OUTPUT = flags.DEFINE_string("output", None, "predict: the folder to write to.")
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Start jax.distributed: on clusters that it knows, one process a host."
)


def main(argv: list[str]) -> None:
  """Runs the mode; a bad setting, file or input is one clear line and exit code 1."""
  if len(argv) > 1:
    sys.exit(f"{argv[1]!r} is no flag. Flags begin with --; see --helpshort.")
  try:
    _run()
  except (ValueError, TypeError, FileNotFoundError) as error:
    logging.debug("Where it happened:", exc_info=True)
    sys.exit(f"Error: {_first_cause(error)}")


def _run() -> None:
  # Imported here, so that --help and a misspelt flag answer at once.
  import jax
  import tensorflow as tf

  from lgag_jax import config as configs
  from lgag_jax import session

  # Libraries tell of warnings only, this package of what it does.
  logging.set_verbosity(logging.WARNING)
  python_logging.getLogger("lgag_jax").setLevel(python_logging.INFO)
  tf.config.set_visible_devices([], "GPU")  # The accelerator is JAX's.
  session.prepare_jax()
  if _DISTRIBUTED.value:
    jax.distributed.initialize()
  # Orbax's background threads need an absolute path.
  workdir = pathlib.Path(_WORKDIR.value).absolute()
  if _MODE.value == "train":
    _train(configs, workdir)
    return
  if _CONFIG.value is not None:
    raise ValueError(f"--mode={_MODE.value} reads {workdir}/config.json: leave --config out.")
  if _MODE.value == "eval":
    from lgag_jax import train

    train.evaluate_workdir(workdir)
    print(f"{(workdir / 'eval' / 'validation.md').read_text()}")
  elif _MODE.value == "predict":
    _predict(workdir)
  else:
    _report(workdir)


def _train(configs, workdir: pathlib.Path) -> None:
  from lgag_jax import train

  if _CONFIG.value is None:
    raise ValueError("--config is missing: for your own images --config=configs/image_folder.py.")
  train.train_and_evaluate(configs.from_mapping(_CONFIG.value), workdir)
  _report(workdir)


def _report(workdir: pathlib.Path) -> None:
  from lgag_jax import report

  path = report.write_report(workdir)
  print(f"Report: {path}")


def _predict(workdir: pathlib.Path) -> None:
  from lgag_jax import predict

  for flag in (_INPUT, _OUTPUT):
    if not flag.value:
      raise ValueError(f"--mode=predict needs --{flag.name}.")
  output = pathlib.Path(_OUTPUT.value)
  rows = predict.predict(workdir, pathlib.Path(_INPUT.value), output)
  print(f"{len(rows)} images mapped: {output}/overlay, mask, probability and predictions.csv.")


def _first_cause(error: BaseException) -> str:
  """An error raised while reading data arrives wrapped by tf.data: its first line is the cause."""
  return str(error).strip()


if __name__ == "__main__":
  app.run(main)

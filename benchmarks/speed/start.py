"""How long a training takes from its process's start to its first step, cold and warm."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_PREPARE = """
import json, sys
import tensorflow_datasets as tfds
from configs.synthetic_landslides import get_config
from lgag_jax import sources
from lgag_jax.config import from_mapping
config = get_config()
config.data.builder, config.data.directory = sys.argv[1:]
sources.open_source(from_mapping(config).data, "train")
"""


def run(settings: dict) -> dict:
  """Measures a start with nothing kept, one with programs kept, one with trunk outputs kept too."""
  data = pathlib.Path(settings["data"]).absolute()
  builder = settings["changes"].get("data.builder", "data/synthetic_landslides")
  start = time.perf_counter()
  subprocess.run(
    [sys.executable, "-c", _PREPARE, builder, str(data)], cwd=ROOT, check=True, stdout=sys.stderr
  )
  result: dict[str, object] = {"prepare_data_s": time.perf_counter() - start}
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    for kind in settings["kinds"]:
      if kind != "features_kept":
        shutil.rmtree(folder / "features", ignore_errors=True)
      result[kind] = phases(settings["changes"], data, folder, folder / kind, settings["limit_s"])
  return result


def phases(
  changes: dict, data: pathlib.Path, folder: pathlib.Path, workdir: pathlib.Path, limit_s: float
) -> dict[str, float]:
  """Starts a training and stops it after its first step; returns when each phase was over, in s."""
  fields = {
    **changes, "data.directory": data, "data.feature_cache_directory": folder / "features",
    "train.log_every": 1,
  }
  command = [
    sys.executable, "-m", "lgag_jax.main", "--config=configs/synthetic_landslides.py",
    f"--workdir={workdir}", *(f"--config.{name}={value}" for name, value in fields.items()),
  ]
  # Compiled programs are kept under the home folder, which is this measurement's own.
  environment = {**os.environ, "HOME": str(folder / "home")}
  environment.pop("JAX_COMPILATION_CACHE_DIR", None)
  log = folder / f"{workdir.name}.log"
  with log.open("w") as file:
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
    try:
      return _watch(process, start, folder / "features", workdir, limit_s)
    except RuntimeError as error:
      last = log.read_text().strip().splitlines()[-1:] or ["it said nothing"]
      raise RuntimeError(f"{error} {last[0]}") from None
    finally:
      _stop(process)


def _watch(process, start, features: pathlib.Path, workdir: pathlib.Path, limit_s: float):
  signs = {
    "data_opened_s": (workdir / "config.json").exists,
    "train_features_s": lambda: _count(features) >= 1,
    "validation_features_s": lambda: _count(features) >= 2,
    "first_step_s": lambda: _first_line(workdir / "metrics.jsonl"),
  }
  # What was kept of an earlier start is no phase of this one.
  signs = {name: sign for name, sign in signs.items() if not sign()}
  times = {}
  while "first_step_s" not in times:
    for name, sign in signs.items():
      if name not in times and sign():
        times[name] = time.perf_counter() - start
    if process.poll() is not None and "first_step_s" not in times:
      raise RuntimeError(f"It ended with exit code {process.returncode} before its first step:")
    if time.perf_counter() - start > limit_s:
      raise RuntimeError(f"No step within {limit_s} s:")
    time.sleep(0.01)
  return times


def _count(features: pathlib.Path) -> int:
  return len(list(features.glob("*/index.json"))) if features.exists() else 0


def _first_line(path: pathlib.Path) -> bool:
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  return bool(lines) and lines[0].endswith("\n") and json.loads(lines[0])["step"] == 1


def _stop(process: subprocess.Popen) -> None:
  """Ends a training as a scheduler would, and for good where it does not obey."""
  if process.poll() is None:
    process.send_signal(signal.SIGTERM)
    try:
      process.wait(120)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()

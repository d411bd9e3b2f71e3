"""Trains methods x seeds on one data set and tabulates mean and spread of what was evaluated.

python -m benchmarks.accuracy --config=landslide4sense_rgb --directory=FOLDER --output=runs/accuracy

Runs that have finished are not done again; --table writes the table of what is there.
"""

import argparse
import importlib
import json
import multiprocessing
import pathlib

import numpy as np

from configs import methods
from lgag_jax import config as configs
from lgag_jax import session, train
from lgag_jax.config import Config

_COLUMNS = (
  ("CA label-free", "class_activation", "label_free"), ("CA oracle", "class_activation", "oracle"),
  ("guided label-free", "anchor_guided", "label_free"), ("guided oracle", "anchor_guided", "oracle"),
)


def run_config(name: str, method: str, seed: int, directory: str, output: pathlib.Path) -> Config:
  """Returns one run's config: the data set's, with a seed, and trunk outputs shared by all runs."""
  config = importlib.import_module(f"configs.{name}").get_config(method)
  config.train.seed = seed
  config.train.evaluate_every = 0
  config.data.feature_cache_directory = str(output / "features")
  if directory:
    config.data.directory = directory
  return configs.from_mapping(config)


def table(output: pathlib.Path, names: list[str], seeds: list[int]) -> str:
  """Returns a Markdown table of mean ± standard deviation over the seeds that have finished."""
  head = " | ".join(name for name, _, _ in _COLUMNS)
  lines = [f"| method | seeds | {head} | image AUC |", "|" + " --- |" * (len(_COLUMNS) + 3)]
  for method in names:
    paths = [output / f"{method}-{seed}" / "eval" / "validation.json" for seed in seeds]
    results = [json.loads(path.read_text()) for path in paths if path.exists()]
    classes = [next(iter(result["classes"].values())) for result in results]
    if not classes:
      continue
    cells = []
    for _, map_name, kind in _COLUMNS:
      if map_name == "anchor_guided" and results[0]["map"] != "anchor_guided":
        cells.append("-")
      else:
        cells.append(_spread([c["maps"][map_name][kind]["iou"] for c in classes]))
    auc = _spread([c["image"]["auc"] for c in classes])
    lines.append(f"| {method} | {len(classes)} | {' | '.join(cells)} | {auc} |")
  return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
  deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
  return f"{np.mean(values):.3f} ± {deviation:.3f}"


def _train(config: Config, workdir: pathlib.Path) -> None:
  session.prepare_jax()
  train.train_and_evaluate(config, workdir)


def _train_in_new_process(config: Config, workdir: pathlib.Path) -> None:
  """A process a run: what one leaves in memory does not weigh on the next."""
  process = multiprocessing.get_context("spawn").Process(target=_train, args=(config, workdir))
  process.start()
  process.join()
  if process.exitcode:
    raise SystemExit(f"The run in {workdir} failed with exit code {process.exitcode}.")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--config", required=True, help="a file of configs/, without .py")
  parser.add_argument("--directory", default="", help="data.directory, where the config needs one")
  parser.add_argument("--output", required=True, type=pathlib.Path)
  parser.add_argument("--methods", nargs="+", default=list(methods.METHODS))
  parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
  parser.add_argument("--table", action="store_true", help="train nothing")
  arguments = parser.parse_args()
  output = arguments.output.absolute()
  if not arguments.table:
    for seed in arguments.seeds:
      for method in arguments.methods:
        workdir = output / f"{method}-{seed}"
        if not (workdir / "eval" / "validation.json").exists():
          config = run_config(arguments.config, method, seed, arguments.directory, output)
          _train_in_new_process(config, workdir)
          print(table(output, arguments.methods, arguments.seeds), flush=True)
  text = table(output, arguments.methods, arguments.seeds)
  (output / "table.md").write_text(text)
  print(text)


if __name__ == "__main__":
  main()

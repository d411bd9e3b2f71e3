"""Trains methods x seeds x data sets and tabulates mean and spread of what was evaluated.

python -m benchmarks.accuracy --data landslide4sense_rgb=FOLDER synthetic_landslides --output=runs/a

A method is one of lgag_jax/methods.py; "second_stage", a segmentation network on the pseudo-masks of
the same seed's `lgag`; or one of benchmarks/variants.py, whose names --list prints. "from DATA" judges
the `lgag` of another data set here. Runs that have finished are not done again; --table writes the
tables of what is there.
"""

import argparse
import ast
import dataclasses
import importlib
import multiprocessing
import pathlib
from collections.abc import Callable
from typing import Any

from benchmarks import accuracy_table
from benchmarks.variants import INFERENCE, TRAINED
from lgag_jax import config as configs
from lgag_jax import (
  evaluate,
  methods,
  normalisation,
  partition,
  pseudo_masks,
  session,
  stages,
  train,
)
from lgag_jax.config import Config
from lgag_jax.doctor import duplicate_checks
from lgag_jax.sources import open_source

_DEFAULT = ("class_activation", "sol", "lgag", "second_stage", "segmentation")
_FROM = "from "


@dataclasses.dataclass(frozen=True)
class Plan:
  """Where runs are, and what all of a data set's have in common."""

  output: pathlib.Path
  folders: dict[str, str]  # data.directory by the config's name; "" is the config's own.
  overrides: dict[str, dict[str, Any]]  # The same way: {"data.train_split": "train[:80%]"}.

  def workdir(self, data: str, method: str, seed: int) -> pathlib.Path:
    folder = "".join(c if c.isalnum() else "_" for c in method)
    return self.output / data / f"{folder}-{seed}"

  def result(self, data: str, method: str, seed: int) -> pathlib.Path:
    return self.workdir(data, method, seed) / "eval" / "validation.json"

  def config(self, data: str, method: str, seed: int) -> Config:
    """Returns one run's config: trunk outputs are shared by all runs."""
    name = method if method in methods.METHODS else "lgag"
    config = importlib.import_module(f"configs.{data}").get_config(name)
    changes = TRAINED.get(method) or INFERENCE.get(method) or {}
    config.update_from_flattened_dict({**changes, **self.overrides[data]})
    config.train.seed = seed
    config.train.evaluate_every = 0
    config.data.feature_cache_directory = str(self.output / "features")
    config.data.directory = self.folders[data] or config.data.directory
    return configs.from_mapping(config)


def run(plan: Plan, data: str, method: str, seed: int) -> None:
  """Does one run, and before it what it builds on."""
  if plan.result(data, method, seed).exists():
    return
  if method == "second_stage" or method in INFERENCE:
    run(plan, data, "lgag", seed)
  elif method.startswith(_FROM):
    run(plan, method.removeprefix(_FROM), "lgag", seed)
  _in_new_process(_run, plan, data, method, seed)


def _run(plan: Plan, data: str, method: str, seed: int) -> None:
  session.prepare_jax()
  workdir = plan.workdir(data, method, seed)
  if method == "second_stage":
    masks = pseudo_masks.write(plan.workdir(data, "lgag", seed))
    train.train_and_evaluate(stages.second_stage(plan.config(data, "lgag", seed), masks), workdir)
  elif method in INFERENCE:
    config = plan.config(data, method, seed)
    _judge(plan.workdir(data, "lgag", seed), workdir, config, config)
  elif method.startswith(_FROM):
    other = method.removeprefix(_FROM)
    here, there = plan.config(data, "lgag", seed), plan.config(other, "lgag", seed)
    _judge(plan.workdir(other, "lgag", seed), workdir, there, here)
  else:
    train.train_and_evaluate(plan.config(data, method, seed), workdir)


def _judge(trained: pathlib.Path, workdir: pathlib.Path, config: Config, judged: Config) -> None:
  """Evaluates a trained network as `config` says, on the validation part of `judged`."""
  mesh = partition.make_mesh()
  config = normalisation.resolved(config, trained)
  _, _, state = session.restore(trained, mesh)
  network, _, _ = session.start(config, mesh, 1)
  train_split, validation = (
    session.open_split(open_source(c.data, split), network, state, c, mesh, workdir)
    for c, split in ((config, "train"), (judged, "validation"))
  )
  evaluate.evaluate(
    network, state, config, mesh, workdir, train=train_split, validation=validation
  )


def _in_new_process(function: Callable, *arguments) -> None:
  """What one run leaves in memory does not weigh on the next."""
  process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
  process.start()
  process.join()
  if process.exitcode:
    raise SystemExit(f"{arguments[1:]} failed with exit code {process.exitcode}.")


def _duplicates(plan: Plan, data: str) -> dict:
  """Counts images of validation that training has too, or nearly so."""
  found = duplicate_checks.leaks(plan.config(data, "lgag", 0))
  return {"pairs": found.count, "first": found.names[:20]}


def _overrides(fields: list[str], data: str) -> dict[str, Any]:
  """Reads [CONFIG:]FIELD=VALUE; values are Python's, and text where they are not."""
  result = {}
  for field in fields:
    name, _, text = field.partition("=")
    config, _, name = name.rpartition(":")
    if config in ("", data):
      try:
        result[name] = ast.literal_eval(text)
      except (SyntaxError, ValueError):
        result[name] = text
  return result


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--data", nargs="+", metavar="CONFIG[=FOLDER]", help="a file of configs/")
  parser.add_argument("--output", type=pathlib.Path)
  parser.add_argument("--methods", nargs="+", default=list(_DEFAULT))
  parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
  parser.add_argument("--baseline", default="class_activation", help="of the paired differences")
  parser.add_argument("--set", nargs="*", default=[], metavar="[CONFIG:]FIELD=VALUE",
                      help="in every config, or in one")
  parser.add_argument("--table", action="store_true", help="train nothing")
  parser.add_argument("--list", action="store_true", help="name the variants")
  arguments = parser.parse_args()
  if arguments.list:
    print(*TRAINED, *INFERENCE, sep="\n")
    return
  if not (arguments.data and arguments.output):
    parser.error("--data and --output are needed.")
  folders = {name: folder for name, _, folder in (d.partition("=") for d in arguments.data)}
  overrides = {data: _overrides(arguments.set, data) for data in folders}
  plan = Plan(arguments.output.absolute(), folders, overrides)
  if not arguments.table:
    for seed in arguments.seeds:
      for data in folders:
        for method in arguments.methods:
          if method != f"{_FROM}{data}":
            run(plan, data, method, seed)
            print(f"{data}: {method}, seed {seed}: done", flush=True)
  found = {data: _duplicates(plan, data) for data in folders}
  text = accuracy_table.write(
    plan.output, plan.result, list(folders), arguments.methods, arguments.seeds, arguments.baseline,
    found,
  )
  print(text)


if __name__ == "__main__":
  main()

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
import difflib
import importlib.util
import multiprocessing
import pathlib
import signal
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import accuracy_table
from benchmarks.leaks import leaks
from benchmarks.variants import INFERENCE, TRAINED
from lgag_jax import config as configs
from lgag_jax import methods
from lgag_jax.config import Config, DataConfig
from lgag_jax.evaluation import evaluate
from lgag_jax.inputs import normalisation
from lgag_jax.inputs.sources import open_source
from lgag_jax.method import registry
from lgag_jax.runtime import compiled_programs, files, preemption, sharding
from lgag_jax.training import fill_trunk_outputs, loop, pseudo_masks, restore, two_stages

_DEFAULT = ("class_activation", "sol", "lgag", "second_stage", "segmentation")
_FROM = "from "


@dataclasses.dataclass(frozen=True)
class Plan:
  """Where runs are, and what all of a data set's have in common."""

  output: pathlib.Path
  folders: dict[str, str]  # data.directory by the config's name; "" is the config's own.
  overrides: dict[str, dict[str, Any]]  # The same way: {"data.train_split": "train[:80%]"}.
  features: pathlib.Path | None = None  # Trunk outputs; by default below `output`.

  def workdir(self, data: str, method: str, seed: int) -> pathlib.Path:
    folder = "".join(c if c.isalnum() else "_" for c in method)
    return self.output / data / f"{folder}-{seed}"

  def result(self, data: str, method: str, seed: int) -> pathlib.Path:
    return self.workdir(data, method, seed) / "eval" / "validation.json"

  def config(self, data: str, method: str, seed: int) -> Config:
    """Returns what a run is trained with, or judged as: trunk outputs are shared by all runs.

    A decoder's settings come after those that --set gives, in both of its methods. Raises ValueError
    where one of these is what a variant changes.
    """
    if method == "second_stage":
      masks = self.workdir(data, "lgag", seed) / "pseudo"
      return two_stages.second_stage(self.config(data, "lgag", seed), masks)
    if method.startswith(_FROM):
      there = self.config(method.removeprefix(_FROM), "lgag", seed)
      return dataclasses.replace(there, data=_as_seen(self.config(data, "lgag", seed), there))
    own = method in registry.OWN and method != "segmentation"
    config = importlib.import_module(f"configs.{data}").get_config(method if own else "lgag")
    changes = TRAINED.get(method) or INFERENCE.get(method) or {}
    for field in changes.keys() & self.overrides[data].keys():
      raise ValueError(f"--set {field}: {method!r} is about this field; leave out one of the two.")
    config.update_from_flattened_dict({**changes, **self.overrides[data]})
    if method == "segmentation":
      methods.apply(config, "segmentation")
    config.model.method_digest = registry.digest_of(config.model.method)
    config.train.seed = seed
    config.train.evaluate_every = 0
    config.data.feature_cache_directory = str(self.features or self.output / "features")
    config.data.directory = self.folders[data] or config.data.directory
    return configs.from_mapping(config)


def _as_seen(here: Config, there: Config) -> DataConfig:
  """Returns a data set as another's network sees it: at its size, in its normalisation."""
  same = {name: getattr(there.data, name) for name in ("image_size", "normalise", "mean", "std")}
  scale = here.data.max_value if there.data.normalise == "trunk" else 0.0
  return dataclasses.replace(here.data, max_value=scale, **same)


def check(plan: Plan, names: list[str], fields: list[str]) -> None:
  """Raises ValueError, KeyError or TypeError for a method, data set or field that there is none of."""
  for data in plan.folders:
    if importlib.util.find_spec(f"configs.{data}") is None:
      raise ValueError(f"--data {data}: there is no configs/{data}.py.")
  for field in fields:
    if _config_of(field) not in ("", *plan.folders):
      raise ValueError(f"--set {field}: {_config_of(field)} is not among --data.")
  known = (*registry.OWN, "second_stage", *TRAINED, *INFERENCE)
  for name in names:
    other = name.removeprefix(_FROM) if name.startswith(_FROM) else None
    if other is None and name not in known:
      close = difflib.get_close_matches(name, known, n=1)
      hint = f"did you mean {close[0]!r}?" if close else "--list names the variants."
      raise ValueError(f"The method {name!r} is unknown: {hint}")
    if other is not None and other not in plan.folders:
      raise ValueError(f"The method {name!r} needs {other} among --data.")
    for data in plan.folders:
      plan.config(data, name, 0)


def run(plan: Plan, data: str, method: str, seed: int) -> None:
  """Does one run, and before it what it builds on; ends the program where one was done otherwise."""
  workdir, config = plan.workdir(data, method, seed), plan.config(data, method, seed)
  if plan.result(data, method, seed).exists() and (workdir / "config.json").exists():
    if changed := loop.changed_settings(configs.load(workdir / "config.json"), config):
      raise SystemExit(
        f"{workdir} was done with other settings ({'; '.join(changed)}). Use another --output, or "
        "remove it to do it again."
      )
    return
  if method == "second_stage" or method in INFERENCE:
    run(plan, data, "lgag", seed)
  elif method.startswith(_FROM):
    run(plan, method.removeprefix(_FROM), "lgag", seed)
  _in_new_process(_run, plan, data, method, seed)


def _run(plan: Plan, data: str, method: str, seed: int) -> None:
  compiled_programs.enable_cache()
  workdir, config = plan.workdir(data, method, seed), plan.config(data, method, seed)
  if method in INFERENCE:
    _judge(plan.workdir(data, "lgag", seed), workdir, config, config)
  elif method.startswith(_FROM):
    other = method.removeprefix(_FROM)
    trained = plan.workdir(other, "lgag", seed)
    _judge(trained, workdir, plan.config(other, "lgag", seed), config)
  else:
    if method == "second_stage":
      pseudo_masks.write(plan.workdir(data, "lgag", seed))
    loop.train_and_evaluate(config, workdir)


def _judge(trained: pathlib.Path, workdir: pathlib.Path, own: Config, judged: Config) -> None:
  """Judges a trained network on the validation part of `judged`, by thresholds of its `own` data."""
  files.write_json(workdir / "config.json", dataclasses.asdict(judged))
  mesh = sharding.make_mesh()
  own, judged = (normalisation.resolve(config, trained) for config in (own, judged))
  _, _, state = restore.restore(trained, mesh)
  network, _, _ = restore.start(judged, mesh, 1)
  train_split, validation = (
    fill_trunk_outputs.open_split(open_source(c.data, split), network, state, c, mesh, workdir)
    for c, split in ((own, "train"), (judged, "validation"))
  )
  evaluate.evaluate(
    network, state, judged, mesh, workdir, train=train_split, validation=validation
  )


def _in_new_process(function: Callable, *arguments) -> None:
  """What one run leaves in memory does not weigh on the next."""
  process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
  process.start()
  try:
    process.join()
  finally:  # Ended itself, a benchmark leaves no training behind.
    process.terminate()
    process.join()
  if process.exitcode:
    raise SystemExit(f"{arguments[1:]} failed with exit code {process.exitcode}.")


def _duplicates(plan: Plan, data: str) -> dict:
  """Counts images of validation that training has too, or nearly so."""
  names = leaks(plan.config(data, "lgag", 0))
  return {"pairs": len(names), "first": names[:20]}


def _config_of(field: str) -> str:
  """Returns the config that [CONFIG:]FIELD=VALUE is for, "" for all of them."""
  return field.partition("=")[0].rpartition(":")[0]


def overrides(fields: list[str], data: str) -> dict[str, Any]:
  """Reads [CONFIG:]FIELD=VALUE; values are Python's, and text where they are not."""
  result = {}
  for field in fields:
    name, _, text = field.partition("=")
    name = name.rpartition(":")[2]
    if _config_of(field) in ("", data):
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
  try:
    fields = {data: overrides(arguments.set, data) for data in folders}
    plan = Plan(arguments.output.absolute(), folders, fields)
    check(plan, [*arguments.methods, arguments.baseline], arguments.set)
  except (ValueError, AttributeError, KeyError, TypeError) as error:
    parser.error(str(error))
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(preemption.EXIT_CODE))
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

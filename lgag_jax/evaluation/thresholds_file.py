"""What an evaluation chose without masks: thresholds.json of a workdir, written and read."""

import dataclasses
import pathlib
from collections.abc import Sequence

from lgag_jax.config import Config
from lgag_jax.evaluation import index_rule
from lgag_jax.evaluation.index_rule import ColourIndex
from lgag_jax.inference import colour_evidence
from lgag_jax.inference.colour_evidence import ColourEvidence
from lgag_jax.inference.localize import map_names
from lgag_jax.method.network import Network
from lgag_jax.method.registry import method_of
from lgag_jax.runtime import sealed_json
from lgag_jax.settings.maps import RULES


def save(
  workdir: pathlib.Path, step: int, rules: dict, evidence: ColourEvidence | None,
  indices: Sequence[ColourIndex | None],
) -> None:
  """Writes thresholds by map and rule, each class's colour index, and what the evidence is known by."""
  sealed_json.write(workdir / "thresholds.json", {
    "step": step, "maps": rules, "colour_evidence": evidence.digest() if evidence else "",
    "colour_index": [index and dataclasses.asdict(index) for index in indices],
  })


def chosen_thresholds(thresholds: dict, config: Config) -> dict[str, list[float]]:
  """Returns each map's thresholds, one per class, by the rule in use."""
  rule = method_of(config).rule(config)
  return {name: rules[rule] for name, rules in thresholds.items()}


def load_thresholds(
  workdir: pathlib.Path, config: Config, *, step: int | None = None
) -> dict[str, list[float]]:
  """Returns each map's thresholds; raises FileNotFoundError when training has not finished.

  Raises ValueError when they belong to another step than the one given, or to a rule of an earlier
  release that chose other values than today's.
  """
  path = workdir / "thresholds.json"
  if not path.exists():
    raise FileNotFoundError(f"{path} is missing: let the training finish, or run --mode=eval.")
  content = _read(path, config)
  if step is not None and content["step"] != step:
    raise ValueError(f"{path} is of step {content['step']}, not {step}: run --mode=eval first.")
  maps = content["maps"].values()
  if any(rules.get("negatives", rules["argmax"]) != rules["argmax"] for rules in maps):
    raise ValueError(
      f"{path} has thresholds of the rule 'negatives', which only release 0.1.0 has, above those of "
      "'argmax': run --mode=eval to choose thresholds anew, or map with that release."
    )
  return chosen_thresholds(content["maps"], config)


def load_indices(workdir: pathlib.Path, config: Config) -> list[ColourIndex | None]:
  """Returns each class's colour index, None where labels chose none or a release kept none."""
  path = workdir / "thresholds.json"
  rules = _read(path, config).get("colour_index", [None] * len(config.data.classes))
  try:
    if not isinstance(rules, list) or len(rules) != len(config.data.classes):
      raise ValueError("it is not one rule per class")
    bands = len(config.model.evidence_bands)
    return [None if rule is None else index_rule.from_json(rule, bands) for rule in rules]
  except ValueError as error:
    raise ValueError(
      f"{path} is not what --mode=eval writes: run it again (its colour_index: {error})."
    ) from error


def with_evidence(network: Network, workdir: pathlib.Path, config: Config) -> Network:
  """Returns the network with the colour evidence that a workdir's thresholds were chosen with."""
  digest = _read(workdir / "thresholds.json", config).get("colour_evidence", "")
  return dataclasses.replace(network, evidence=colour_evidence.load(workdir, config, digest))


def _read(path: pathlib.Path, config: Config) -> dict:
  """Reads a step and, for every rule of every map, one threshold per class; ValueError if not."""
  content = sealed_json.read(path, "Run --mode=eval again.")
  names, classes = map_names(config), len(config.data.classes)
  faulty = f"{path} is not what --mode=eval writes: run it again"
  if not isinstance(content, dict) or not sealed_json.is_number(content.get("step"), 0, 1 << 62):
    raise ValueError(f"{faulty} (its step is not a number).")
  maps = content.get("maps")
  if not isinstance(maps, dict) or set(maps) != set(names):
    raise ValueError(f"{faulty} (its maps are not {', '.join(names)}).")
  for name in names:
    for rule in RULES:
      row = maps[name].get(rule) if isinstance(maps[name], dict) else None
      if not isinstance(row, list) or len(row) != classes:
        raise ValueError(f"{faulty} ({name}.{rule} is not one number per class).")
      for value in row:
        if not sealed_json.is_number(value, 0.0, 1.0):
          raise ValueError(f"{faulty} ({name}.{rule} contains {value!r}, not a number from 0 to 1).")
  if not isinstance(content.get("colour_evidence", ""), str):
    raise ValueError(f"{faulty} (colour_evidence is not text).")
  return content

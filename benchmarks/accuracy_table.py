"""Tables of `accuracy`: mean and spread over seeds, paired differences, threshold rules."""

import pathlib
from collections.abc import Callable

import numpy as np

from lgag_jax.pages import rendering
from lgag_jax.runtime import files
from lgag_jax.settings.maps import RULES


def write(
  output: pathlib.Path, result: Callable, data_sets: list[str], methods: list[str], seeds: list[int],
  baseline: str, duplicates: dict[str, dict],
) -> str:
  """Writes table.md and table.json to `output`; returns the Markdown.

  `result(data, method, seed)` is the path of a run's evaluation. Missing runs are skipped.
  """
  tables = {
    data: {
      method: rows for method in methods
      if (rows := _runs([(seed, result(data, method, seed)) for seed in seeds]))
    }
    for data in data_sets
  }
  parts = []
  for data, table in tables.items():
    classes = {run["class"] for runs in table.values() for run in runs.values()} - {None}
    heading = ", class ".join([data, *sorted(classes)])
    parts += [f"## {heading}", "", _scores(table, baseline), "", _rules(table), ""]
    parts += [_about(duplicates[data]), ""]
  text = "\n".join(parts)
  files.write_text(output / "table.md", text)
  files.write_json(output / "table.json", {"runs": tables, "duplicates": duplicates})
  return text


def main_map(path: pathlib.Path) -> tuple[dict, dict]:
  """Returns an evaluation's values of the first class, and of them those of the method's main map."""
  content = files.read_json(path)
  values = next(iter(content["classes"].values()))
  return values, values["maps"][content["map"]]


def _runs(paths: list[tuple[int, pathlib.Path]]) -> dict[str, dict]:
  """Returns the metrics of each finished seed, for the first class and the method's main map."""
  runs = {}
  for seed, path in paths:
    if path.exists():
      content = files.read_json(path)
      name, values = next(iter(content["classes"].items()))
      best = values["maps"][content["map"]]
      runs[str(seed)] = {
        "class": name if len(content["classes"]) > 1 else None,
        "map": content["map"], "label_free": best["label_free"]["iou"],
        "f1": best["label_free"]["f1"], "oracle": best["oracle"]["iou"], "auc": values["image"]["auc"],
        "colour_index": (values.get("colour_index") or {}).get("label_free", {}).get("iou"),
        "rules": {rule: best["rules"][rule]["iou"] for rule in RULES},
      }
  return runs


def _scores(table: dict, baseline: str) -> str:
  keys = ("label_free", "oracle", "colour_index", "f1", "auc")
  rows = [
    (method, len(runs), *(_spread([run[key] for run in runs.values()]) for key in keys),
     _paired(runs, table.get(baseline)))
    for method, runs in table.items()
  ]
  return rendering.markdown_table((
    "method", "seeds", "IoU, label-free", "IoU, oracle", "colour index, label-free",
    "F1, label-free", "image AUC", f"IoU against {baseline}, paired",
  ), rows)


def _paired(runs: dict, others: dict | None) -> str:
  """Returns the difference of label-free IoU between runs of the same seed: mean, spread, wins."""
  others = others or {}
  pairs = [(runs[s]["label_free"], others[s]["label_free"]) for s in runs if s in others]
  if not pairs or runs is others:
    return "-"
  differences = [a - b for a, b in pairs]
  return f"{_spread(differences, sign=True)} ({sum(d > 0 for d in differences)} of {len(pairs)} up)"


def _rules(table: dict) -> str:
  rows = [
    (method, *(_spread([run["rules"][rule] for run in runs.values()]) for rule in RULES),
     _spread([run["oracle"] for run in runs.values()]))
    for method, runs in table.items()
  ]
  return rendering.markdown_table(("IoU by threshold rule", *RULES, "oracle"), rows)


def _about(duplicates: dict) -> str:
  if not duplicates["pairs"]:
    return "No validation image is a duplicate, or near duplicate, of a training image."
  examples = "; ".join(duplicates["first"][:3])
  return f"{duplicates['pairs']} (near) duplicates across the splits: {examples}."


def _spread(values: list[float], *, sign: bool = False) -> str:
  known = [v for v in values if v is not None]
  if not known:
    return "-"
  mean = f"{np.mean(known):{'+' if sign else ''}.3f}"
  return f"{mean} ± {np.std(known, ddof=1):.3f}" if len(known) > 1 else mean

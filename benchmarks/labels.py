"""How many labels does it take? IoU against the number of labelled training images.

python -m benchmarks.labels --data landslide4sense_rgb=FOLDER --counts 10 100 1000 --output=runs/labels

Trains the whole method on draws of the training images, and judges each on all of validation, beside
the colour index that the same labels choose. A draw is random, or in the order in which the labelling
page asks (--order active): its small classifier asks for what it is least sure of, and is fitted again
every few labels. Writes labels.md and labels.png. Runs that have finished are not done again. The data
come from image folders with masks (source "patches") or from TFDS, whose synthetic images are in random
order already: there a random draw is a slice.
"""

import argparse
import csv
import dataclasses
import itertools
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks import accuracy, accuracy_table
from lgag_jax.config import Config
from lgag_jax.evaluation import image_classifier
from lgag_jax.imagery import scaling
from lgag_jax.inputs.patches import PatchSource
from lgag_jax.inputs.sources import Source, open_source
from lgag_jax.labelling import features, suggestions
from lgag_jax.pages import rendering
from lgag_jax.runtime import files

_LEAST = 2  # Images of each kind in every draw.
_QUEUE = 8  # Tiles that the page takes at once from what is suggested.
_REGION = ("row_start", "row_stop", "col_start", "col_stop")


def draw(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
  """Returns `count` indices in random order, at least two with and two without the class if any are.

  `labels` is bool[n]. The last ones drawn make room for a kind that too few are of.
  """
  return _with_both_kinds(labels, np.random.default_rng(seed).permutation(len(labels)), count)


def _with_both_kinds(labels: np.ndarray, order: np.ndarray, count: int) -> np.ndarray:
  taken, rest = list(order[:count]), order[count:]
  for kind in (True, False):
    missing = _LEAST - int(np.sum(labels[taken] == kind))
    others = [i for i in reversed(taken) if labels[i] != kind]
    for new, old in zip(rest[labels[rest] == kind][:max(missing, 0)], others, strict=False):
      taken[taken.index(old)] = new
  return np.sort(np.array(taken))


def active_draw(labels: np.ndarray, features: np.ndarray, count: int, seed: int) -> np.ndarray:
  """Returns `count` indices in the order in which the labelling page would ask, with both kinds.

  `labels` is bool[n], `features` f[n, D]. The first are random; later ones follow the classifier.
  """
  random_order = np.random.default_rng(seed).permutation(len(labels))
  rows, answered = image_classifier.Scaler(features)(features), dict[int, bool]()
  while len(answered) < count:
    numbers = np.array(list(answered), int)
    positive = labels[numbers]
    chances = None
    if min(positive.sum(), (~positive).sum()) >= image_classifier.LEAST:
      weights = image_classifier.fit(rows[numbers], positive)
      chances = np.rint(100 * image_classifier.chances(rows, weights)).astype(np.int16)
    wanted = min(_QUEUE, count - len(answered))
    queue = list(itertools.islice(suggestions.ordered(random_order, answered, chances), wanted))
    for number in queue:
      answered[number] = bool(labels[number])
  asked = np.array(list(answered), int)
  rest = random_order[~np.isin(random_order, asked)]
  return _with_both_kinds(labels, np.concatenate([asked, rest]), count)


def features_of(source: Source, rgb_bands: tuple[int, ...], path: pathlib.Path) -> np.ndarray:
  """Returns the labelling page's features f16[n, D] of the images of a source, kept in `path`."""
  if path.exists():
    values = np.load(path)
    if len(values) == len(source.ids):
      return values
  side = source.read(0)[0].shape[0]
  summary, parts = features.make_summary(side), []
  for first in range(0, len(source.ids), features.BATCH):
    numbers = range(first, min(first + features.BATCH, len(source.ids)))
    parts.append(summary([scaling.picture(source.read(n)[0], rgb_bands) for n in numbers]))
  values = np.concatenate(parts)
  with files.atomic_path(path) as partial:
    np.save(partial, values)
  return values


def restricted(
  config: Config, count: int, seed: int, manifest: pathlib.Path, most_judged: int | None = None, *,
  kept: pathlib.Path | None = None,
) -> dict:
  """Returns the overrides that leave `count` training images, 0 for all of them.

  Writes a manifest of tiles if needed; of validation it has at most `most_judged`, drawn at random. The
  order is active if `kept` names the file of the features.
  """
  if config.data.source not in ("patches", "tfds"):
    raise ValueError(
      f"data.source={config.data.source!r}: this benchmark leaves out training images by a manifest of "
      "images with masks, so it needs data.source='patches' or 'tfds'."
    )
  take = lambda labels: draw(labels, count or len(labels), seed)
  if kept:
    examples = open_source(config.data, config.data.train_split)
    values = features_of(examples, config.model.rgb_bands, kept)
    take = lambda labels: active_draw(labels, values, count or len(labels), seed)
  if config.data.source == "tfds":
    start = count * seed
    if kept:
      chosen = take(examples.labels[:, 0] > 0).tolist()
      return {"data.train_split": "+".join(f"train[{i}:{i + 1}]" for i in chosen)}
    return {"data.train_split": f"train[{start}:{start + count}]"}
  train, validation = (
    PatchSource(config.data, split) for split in (config.data.train_split, config.data.validation_split)
  )
  root = pathlib.Path(config.data.directory)
  chosen = take(train.labels[:, 0] > 0)
  judged = np.sort(np.random.default_rng(0).permutation(len(validation.ids))[:most_judged])
  with files.atomic_path(manifest) as path, path.open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(("image", "mask", "split", *_REGION))
    for source, split, indices in (
      (train, "train", chosen), (validation, "validation", judged)
    ):
      for i in indices:
        image, mask, tile = source.tile(i)
        writer.writerow((
          image.relative_to(root), mask.relative_to(root), split, tile.row, tile.row + tile.height,
          tile.col, tile.col + tile.width,
        ))
  return {"data.manifest": str(manifest), "data.block_size": 0, "data.block_buffer": 0}


def _measure(plan: accuracy.Plan, data: str, count: int, seed: int, order: str = "random") -> dict:
  """Trains on one draw unless it is done; returns its figures."""
  name = f"{count or 'all'}-{seed}" + ("-active" if count and order == "active" else "")
  folder = plan.output / data / name
  changes: dict = {}
  if count:
    folder.mkdir(parents=True, exist_ok=True)
    changes = restricted(
      plan.config(data, "lgag", seed), count, seed, folder / "manifest.csv",
      kept=plan.output / data / "features.npy" if order == "active" else None,
    )
  own = dataclasses.replace(
    plan, output=folder, features=plan.output / "features",
    overrides={data: {**plan.overrides[data], **changes}},
  )
  accuracy.run(own, data, "lgag", seed)
  values, best = accuracy_table.main_map(own.result(data, "lgag", seed))
  index = (values.get("colour_index") or {}).get("label_free", {}).get("iou")
  return {
    "order": order, "count": count, "seed": seed, "label_free": best["label_free"]["iou"],
    "oracle": best["oracle"]["iou"], "colour_index": index, "auc": values["image"]["auc"],
  }


def table(rows: list[dict]) -> str:
  """Returns mean and standard deviation over draws, a line per number of images, as Markdown."""
  lines = []
  for order, count in dict.fromkeys((row["order"], row["count"]) for row in rows):
    group = [row for row in rows if (row["order"], row["count"]) == (order, count)]
    cells = [_spread(group, name) for name in ("label_free", "oracle", "colour_index", "auc")]
    worst = min(row["label_free"] for row in group)
    cells.insert(1, f"{worst:.3f}")
    lines.append((order, count or "all", len(group), *cells))
  return rendering.markdown_table((
    "order", "labelled images", "draws", "IoU, label-free", "worst", "IoU, oracle", "colour index",
    "AUC",
  ), lines)


def _spread(rows: list[dict], name: str) -> str:
  values = [row[name] for row in rows if row[name] is not None]
  if not values:
    return "-"
  return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def _plot(tables: dict[str, list[dict]], path: pathlib.Path) -> None:
  figure, axes = plt.subplots(1, len(tables), figsize=(5 * len(tables), 3.6), squeeze=False)
  for axis, (data, rows) in zip(axes[0], tables.items(), strict=True):
    for order in dict.fromkeys(row["order"] for row in rows):
      own = [row for row in rows if row["order"] == order and row["count"]]
      counts = list(dict.fromkeys(row["count"] for row in own))
      for name, label in (("label_free", "whole method"), ("colour_index", "colour index")):
        groups = [[r[name] for r in own if r["count"] == c and r[name] is not None] for c in counts]
        mean, spread = ([f(group) for group in groups] for f in (np.mean, np.std))
        axis.errorbar(counts, mean, spread, marker="o", label=f"{label}, {order}")
    axis.set(xscale="log", title=data, xlabel="labelled images", ylabel="IoU, label-free")
    axis.set_ylim(bottom=0)
    axis.legend()
  figure.tight_layout()
  figure.savefig(path, dpi=120)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--data", nargs="+", required=True, metavar="CONFIG[=FOLDER]")
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--counts", nargs="+", type=int, default=[10, 20, 50, 100, 200, 500, 0],
                      help="numbers of training images; 0 is all")
  parser.add_argument("--draws", type=int, default=5)
  parser.add_argument("--order", nargs="+", choices=("random", "active"), default=["random"],
                      help="how images are drawn; all of them (count 0) are trained once")
  parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
  arguments = parser.parse_args()
  folders = {name: folder for name, _, folder in (d.partition("=") for d in arguments.data)}
  plan = accuracy.Plan(
    arguments.output.absolute(), folders, {d: accuracy.overrides(arguments.set, d) for d in folders}
  )
  accuracy.check(plan, ["lgag"], arguments.set)
  tables: dict[str, list[dict]] = {data: [] for data in folders}
  for data in folders:
    for order, count in itertools.product(arguments.order, arguments.counts):
      for seed in range(arguments.draws) if count or order == arguments.order[0] else ():
        tables[data].append(_measure(plan, data, count, seed, order))
        text = "\n\n".join(f"## {name}\n\n{table(rows)}" for name, rows in tables.items() if rows)
        files.write_text(arguments.output / "labels.md", f"{text}\n")
        files.write_json(arguments.output / "labels.json", tables)
  _plot(tables, arguments.output / "labels.png")
  print(text)


if __name__ == "__main__":
  main()

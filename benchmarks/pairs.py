"""What does the image before an event give? Pairs of images against the image after alone.

python -m benchmarks.pairs --output=runs/pairs

Trains the whole method on synthetic pairs, with both dates and with the image after alone, and judges
both on the validation part: IoU, and the share of old landslides, which are there on both dates, that
is mapped. The network that compares dates also sees pairs that lie up to three pixels apart. Writes
pairs.md. Runs that have finished are not done again.
"""

import argparse
import pathlib

import numpy as np

import lgag_jax
from benchmarks import accuracy, accuracy_table
from data.synthetic_landslides import pairs
from data.synthetic_landslides.synthetic_landslides_dataset_builder import Builder
from lgag_jax.options.mapping import Options
from lgag_jax.pages import rendering
from lgag_jax.runtime import files

_CONFIG = "synthetic_pairs"
_DATES = {"both dates": {}, "image after alone": {"data.before": ""}}
_COLUMNS = ("iou", "oracle", "auc", "shifted", "old")
_SHIFT = 3  # Pixels, the most along each axis.


def shares(workdir: pathlib.Path, *, max_shift: int, patches: int) -> dict[str, float]:
  """Returns the IoU of new landslides and the share of old ones' pixels that are mapped.

  Over so many patches of the validation part, at the label-free threshold.
  """
  model = lgag_jax.load(workdir)
  options = Options(tile_size=model.config.data.image_size, overlap=0.0)
  config = next(c for c in Builder.BUILDER_CONFIGS if c.name == "pairs")
  counts = np.zeros(4)
  for seed in config.seeds("validation")[:patches]:
    pair = pairs.draw_patch(seed, size=config.size, landslide=seed % 2 == 0, max_shift=max_shift)
    before = pair.before if model.config.data.paired else None
    mapped = model.predict(pair.after, before=before, options=options).mask == 1
    new, old = pair.mask == 1, pair.old == 1
    counts += [(mapped & new).sum(), (mapped | new).sum(), (mapped & old).sum(), old.sum()]
  return {"iou": counts[0] / counts[1], "old": counts[2] / counts[3]}


def measure(seed: int, dates: str, output: pathlib.Path, data: str, patches: int) -> dict:
  """Trains unless it is done; returns the figures of a seed."""
  plan = accuracy.Plan(
    output / dates.replace(" ", "_"), {_CONFIG: data}, {_CONFIG: _DATES[dates]}
  )
  accuracy.run(plan, _CONFIG, "lgag", seed)
  values, best = accuracy_table.main_map(plan.result(_CONFIG, "lgag", seed))
  workdir = plan.workdir(_CONFIG, "lgag", seed)
  found = shares(workdir, max_shift=1, patches=patches)
  shifted = shares(workdir, max_shift=_SHIFT, patches=patches) if dates == "both dates" else found
  return {
    "dates": dates, "seed": seed, "iou": best["label_free"]["iou"], "oracle": best["oracle"]["iou"],
    "auc": values["image"]["auc"], "old": found["old"], "shifted": shifted["iou"],
  }


def table(rows: list[dict]) -> str:
  """Returns mean and standard deviation over seeds, a line per input, as Markdown."""
  cells = []
  for dates in _DATES:
    own = [row for row in rows if row["dates"] == dates]
    if own:
      columns = np.array([[row[name] for name in _COLUMNS] for row in own])
      moments = zip(columns.mean(0), columns.std(0), strict=True)
      cells.append((dates, len(own), *(f"{mean:.3f} ± {spread:.3f}" for mean, spread in moments)))
  return rendering.markdown_table((
    "input", "seeds", "IoU, label-free", "IoU, oracle", "image AUC", "up to 3 pixels apart",
    "old landslides mapped",
  ), cells)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--data", default="", help="folder of the prepared pairs; drawn if needed")
  parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
  parser.add_argument("--patches", type=int, default=200, help="of validation, for old landslides")
  arguments = parser.parse_args()
  rows = []
  for seed in arguments.seeds:
    for dates in _DATES:
      rows.append(measure(seed, dates, arguments.output, arguments.data, arguments.patches))
      files.write_text(arguments.output / "pairs.md", f"{table(rows)}\n")
  print(table(rows))


if __name__ == "__main__":
  main()

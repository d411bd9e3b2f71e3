"""Does a network serve where it was not trained? Scene A of Landslide4Sense to scene E, and back.

python -m benchmarks.travel --landslide4sense=FOLDER --output=runs/travel

Trains on all patches of one scene and judges on the other's validation part, thresholds and colours
taken along, beside the colour index that travels the same way. The reference is trained on the judged
scene's own training part. Runs that have finished are not done again.
"""

import argparse
import csv
import pathlib

import numpy as np

from benchmarks import accuracy, accuracy_table
from lgag_jax.pages import rendering
from lgag_jax.runtime import files

_CONFIG = "landslide4sense_rgb"


def manifest(original: pathlib.Path, trained: str, judged: str, path: pathlib.Path) -> None:
  """Writes the manifest of training on one scene and judging on the validation part of another."""
  with original.open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  travels = trained != judged
  with files.atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(("file", "split"))
    for row in rows:
      if row["scene"] == judged and row["split"] == "validation":
        writer.writerow((row["file"], "validation"))
      elif row["scene"] == trained and (travels or row["split"] == "train"):
        writer.writerow((row["file"], "train"))


def measure(folder: pathlib.Path, output: pathlib.Path, trained: str, judged: str, seed: int) -> dict:
  """Trains and judges unless it is done; returns IoU of the method and of the index."""
  path = output / f"{trained}_{judged}" / "manifest.csv"
  path.parent.mkdir(parents=True, exist_ok=True)
  manifest(folder / "manifest.csv", trained, judged, path)
  plan = accuracy.Plan(
    path.parent, {_CONFIG: str(folder)}, {_CONFIG: {"data.manifest": str(path)}}, output / "features"
  )
  accuracy.run(plan, _CONFIG, "lgag", seed)
  values, best = accuracy_table.main_map(plan.result(_CONFIG, "lgag", seed))
  return {
    "iou": best["label_free"]["iou"], "oracle": best["oracle"]["iou"], "auc": values["image"]["auc"],
    "index": values["colour_index"]["label_free"]["iou"],
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--landslide4sense", type=pathlib.Path, required=True,
                      help="folder of RGB patches")
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--seeds", nargs="+", type=int, default=[0])
  arguments = parser.parse_args()
  columns = (
    "trained on", "judged on", "seeds", "colour index", "whole method, label-free", "oracle",
    "image AUC",
  )
  lines = []
  for trained, judged in (("E", "E"), ("A", "E"), ("A", "A"), ("E", "A")):
    rows = [
      measure(arguments.landslide4sense.absolute(), arguments.output.absolute(), trained, judged, seed)
      for seed in arguments.seeds
    ]
    names = ("index", "iou", "oracle", "auc")
    means = [f"{np.mean([row[name] for row in rows]):.3f}" for name in names]
    lines.append((trained, judged, len(rows), *means))
    files.write_text(
      arguments.output / "travel.md", f"{rendering.markdown_table(columns, lines)}\n"
    )
  print(rendering.markdown_table(columns, lines))


if __name__ == "__main__":
  main()

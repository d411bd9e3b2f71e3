"""One config over many data sets: does any size of tile, resolution or number of labels break it?

python -m benchmarks.matrix --landslide4sense=FOLDER --scene=FOLDER --output=runs/matrix

Cuts tiles of several sizes from images, coarsened in part, and trains configs/scene.py's whole method
on each with nothing changed but the size of a tile. Writes matrix.md: IoU beside the colour index's and
the best threshold's in hindsight. Runs that have finished are not done again.
"""

import argparse
import csv
import dataclasses
import pathlib

import numpy as np
from PIL import Image

from benchmarks import accuracy, accuracy_table, labels
from data.synthetic_landslides import drawing
from lgag_jax.imagery import reading
from lgag_jax.pages import rendering
from lgag_jax.runtime import files

_CONFIG = "scene"  # Of configs/: as a user would take it, without settings of its own.
_MOST_JUDGED = 400  # Validation tiles of a case, in random order.
_SYNTHETIC = (200, 150)  # Patches drawn to train on and to judge.


@dataclasses.dataclass(frozen=True)
class Case:
  """A data set of images and masks, and the side of its tiles in its pixels."""

  data: str  # "landslide4sense", "scene" or "synthetic".
  tile: int
  coarsened: int = 1  # Times that rows and columns are divided by first.

  @property
  def name(self) -> str:
    return f"{self.data}{f'/{self.coarsened}' if self.coarsened > 1 else ''} {self.tile}"


CASES = (
  *(Case("landslide4sense", tile) for tile in (32, 64, 128)),
  *(Case("scene", tile) for tile in (128, 256, 512)), Case("scene", 128, 2), Case("scene", 64, 4),
  Case("synthetic", 256), Case("synthetic", 128), Case("synthetic", 128, 2), Case("synthetic", 64, 4),
)


def prepare(case: Case, folder: pathlib.Path, originals: dict[str, pathlib.Path]) -> pathlib.Path:
  """Returns the folder with the images, masks and manifest.csv of a case; makes it if needed.

  Where nothing is coarsened it is the original folder, except for synthetic patches, which are drawn.
  """
  if case.data != "synthetic" and case.coarsened == 1:
    return originals[case.data]
  root = folder / "data" / f"{case.data}_{case.coarsened}"
  if (root / "manifest.csv").exists():
    return root
  for name in ("images", "masks"):
    (root / name).mkdir(parents=True, exist_ok=True)
  rows = _synthetic_rows(root, case) if case.data == "synthetic" else _scene_rows(
    root, case, originals[case.data]
  )
  _write_manifest(root / "manifest.csv", rows)
  return root


def _write_manifest(path: pathlib.Path, rows: list[dict]) -> None:
  with files.atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


def _synthetic_rows(root: pathlib.Path, case: Case) -> list[dict]:
  rows = []
  for split, first, count in (("train", 0, _SYNTHETIC[0]), ("validation", 10**9, _SYNTHETIC[1])):
    for seed in range(first, first + count):
      image, mask = drawing.draw_patch(seed, size=256, landslide=seed % 2 == 0)
      rows.append(_save(root, f"{split}_{seed}.png", image, mask, case.coarsened, split))
  return rows


def _scene_rows(root: pathlib.Path, case: Case, original: pathlib.Path) -> list[dict]:
  rows = []
  with pathlib.Path("benchmarks/uav_scene.csv").open(newline="", encoding="utf-8") as file:
    listed = list(csv.DictReader(file))
  for row in listed:
    region = [int(row[name]) for name in ("row_start", "row_stop", "col_start", "col_stop")]
    image = reading.read_image(original / row["image"], 3)
    mask = reading.read_image(original / row["mask"], 1)[..., 0]
    window = np.s_[region[0]:region[1], region[2]:region[3]]
    name = f"{row['split']}.png"
    rows.append(_save(root, name, image[window], mask[window], case.coarsened, row["split"]))
  return rows


def _save(root: pathlib.Path, name: str, image, mask, coarsened: int, split: str) -> dict:
  """Saves an image and its mask, divided: mean colours, and the most frequent value of the mask."""
  size = (image.shape[1] // coarsened, image.shape[0] // coarsened)
  Image.fromarray(image).resize(size, Image.Resampling.BOX).save(root / "images" / name)
  values = np.asarray(mask)[: size[1] * coarsened, : size[0] * coarsened]
  cells = values.reshape(size[1], coarsened, size[0], coarsened).swapaxes(1, 2)
  cells = cells.reshape(*size[::-1], -1)
  found = np.unique(values)
  counts = np.stack([(cells == value).sum(-1) for value in found])
  Image.fromarray(found[counts.argmax(0)].astype(np.uint8)).save(root / "masks" / name)
  return {"image": f"images/{name}", "mask": f"masks/{name}", "split": split}


def measure(case: Case, count: int, seed: int, plan: accuracy.Plan) -> dict:
  """Trains on `count` tiles of a case (0: all) unless it is done; returns its figures."""
  folder = plan.output / f"{case.name.replace(' ', '_').replace('/', 'by')}-{count or 'all'}-{seed}"
  root = plan.folders[_CONFIG]
  changes = {
    "data.directory": root, "data.tile_size": case.tile, "data.block_size": 0, "data.block_buffer": 0,
  }
  if case.data == "scene":
    changes["data.mask_ignore"] = 255
    if case.coarsened == 1:
      changes["data.manifest"] = str(pathlib.Path("benchmarks/uav_scene.csv").absolute())
  own = dataclasses.replace(plan, output=folder, overrides={_CONFIG: changes})
  folder.mkdir(parents=True, exist_ok=True)
  chosen = labels.restricted(
    own.config(_CONFIG, "lgag", seed), count, seed, folder / "manifest.csv", _MOST_JUDGED
  )
  own = dataclasses.replace(own, overrides={_CONFIG: {**changes, **chosen}})
  accuracy.run(own, _CONFIG, "lgag", seed)
  values, best = accuracy_table.main_map(own.result(_CONFIG, "lgag", seed))
  index, free = values["colour_index"], best["label_free"]
  return {
    "case": case.name, "count": count, "seed": seed, "auc": values["image"]["auc"] or float("nan"),
    "iou": free["iou"], "oracle": best["oracle"]["iou"],
    "too_large": free["recall"] / free["precision"] if free["precision"] else 0.0,
    "threshold": free["threshold"], "best_threshold": best["oracle"]["threshold"],
    "index": index["label_free"]["iou"] if index else None,
    "index_oracle": index["oracle"]["iou"] if index else None,
  }


def table(rows: list[dict]) -> str:
  """Returns a line per case, number of training tiles and seed, as Markdown."""
  lines = []
  for row in rows:
    index = "-" if row["index"] is None else f"{row['index']:.3f} ({row['index_oracle']:.3f})"
    lines.append((
      row["case"], row["count"] or "all", row["seed"], index, f"{row['iou']:.3f}",
      f"{row['oracle']:.3f}", f"{row['too_large']:.2f}", f"{row['auc']:.3f}",
    ))
  return rendering.markdown_table((
    "data, tile", "trained on", "seed", "colour index, label-free (oracle)", "whole method, label-free",
    "oracle", "mapped : landslide", "image AUC",
  ), lines)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--landslide4sense", type=pathlib.Path, required=True,
                      help="folder of RGB patches")
  parser.add_argument("--scene", type=pathlib.Path, required=True, help="folder of the drone's scene")
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--cases", nargs="+", default=[case.name for case in CASES], metavar="NAME")
  parser.add_argument("--counts", nargs="+", type=int, default=[100, 0],
                      help="training tiles; 0 is all")
  parser.add_argument("--seeds", nargs="+", type=int, default=[0])
  arguments = parser.parse_args()
  output = arguments.output.absolute()
  originals = {
    "landslide4sense": arguments.landslide4sense.absolute(), "scene": arguments.scene.absolute(),
  }
  rows = []
  for count in arguments.counts:
    for case in (case for case in CASES if case.name in arguments.cases):
      for seed in arguments.seeds:
        folders = {_CONFIG: str(prepare(case, output, originals))}
        rows.append(measure(case, count, seed, accuracy.Plan(
          output, folders, {_CONFIG: {}}, output / "features"
        )))
        files.write_text(output / "matrix.md", f"{table(rows)}\n")
        files.write_json(output / "matrix.json", {"rows": rows})
  print(table(rows))


if __name__ == "__main__":
  main()

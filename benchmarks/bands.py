"""What do slope and local relief give, as bands beside the colours?

python -m benchmarks.bands --output=runs/bands

Draws the synthetic pairs with a DEM, adds the bands with --mode=bands, and trains the whole method on
the image after alone and on both dates. The trunk does not see the bands, so one training serves all
rows: it is evaluated with the evidence of no band, of each, and of both. Writes bands.md. Trainings
and evaluations that have finished are not done again.
"""

import argparse
import csv
import dataclasses
import pathlib
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from PIL import Image

from benchmarks import accuracy_table
from data.synthetic_landslides import pairs, terrain, write_scene
from data.synthetic_landslides.synthetic_landslides_dataset_builder import FIRST_SEED
from lgag_jax import config as configs
from lgag_jax.bands import add
from lgag_jax.config import Config
from lgag_jax.evaluation import evaluate
from lgag_jax.inputs.sources import open_source
from lgag_jax.options.bands import Settings
from lgag_jax.pages import rendering
from lgag_jax.runtime import compiled_programs, files, packaged, sharding
from lgag_jax.training import fill_trunk_outputs, loop, restore

_SIDE, _GSD = 256, 0.5  # Pixels of a patch, and metres.
_STEP, _MARGIN = 4, 4  # Pixels of a patch on a side of one of the DEM's; pixels of the DEM around it.
_CELL = 96  # Pixels of the DEM from one patch to the next.
_CRS, _ORIGIN = "EPSG:32633", (500000.0, 5200000.0)
_ADD, _RADIUS = ("slope", "relief"), 20.0  # Metres.
_BANDS = {"slope": 4, "relief": 5}
_EVIDENCE = {"colours": (), "and slope": (4,), "and relief": (5,), "and both": (4, 5)}
_DATES = {"image after alone": "", "both dates": "manifest"}


def draw(folder: pathlib.Path, train: int, validation: int) -> None:
  """Writes patches of both dates with their bands, masks and a manifest, unless they are there."""
  if (folder / "manifest.csv").exists():
    return
  rows, heights = [], {}
  for split, count in (("train", train), ("validation", validation)):
    for number in range(count):
      seed, name = FIRST_SEED[split] + number, f"{split}_{number:06d}.tif"
      place = divmod(len(rows), _columns(train + validation))
      plan, pair = pairs.plan_patch(seed, size=_SIDE, landslide=seed % 2 == 0)
      transform = _transform() @ Affine.translation(*(_STEP * (_CELL * n) for n in place[::-1]))
      for date, pixels in (("after", pair.after), ("before", pair.before)):
        _write(folder / "scenes" / date / name, pixels, transform)
      mask = folder / "masks" / f"{split}_{number:06d}.png"
      mask.parent.mkdir(exist_ok=True)
      Image.fromarray(pair.mask).save(mask)
      heights[place] = _heights(plan)
      rows.append((f"after/{name}", f"masks/{mask.name}", split, f"before/{name}"))
  _write_dem(folder / "dem.tif", heights, _columns(len(rows)))
  for date in ("after", "before"):
    add.add(Settings(
      str(folder / "scenes" / date), str(folder / date), _ADD, str(folder / "dem.tif"), _RADIUS))
  with (folder / "manifest.csv").open("w", newline="") as file:
    csv.writer(file).writerows([("image", "mask", "split", "before"), *rows])


def _columns(count: int) -> int:
  return int(np.ceil(np.sqrt(count)))


def _transform() -> Affine:
  return Affine(_GSD, 0.0, _ORIGIN[0], 0.0, -_GSD, _ORIGIN[1])


def _write(path: pathlib.Path, pixels: np.ndarray, transform: Affine) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  profile = write_scene.profile_of(_SIDE, _SIDE, _GSD, _CRS, _ORIGIN, 0.0) | {"transform": transform}
  with rasterio.open(path, "w", count=3, photometric="RGB", **profile) as raster:
    raster.write(np.moveaxis(pixels, -1, 0))


def _heights(plan: pairs.PairPlan) -> np.ndarray:
  """Returns the heights of a patch and its surroundings, f32[h, w] in metres."""
  nodes = (np.arange(-_MARGIN, _SIDE // _STEP + _MARGIN) + 0.5) * _STEP - 0.5
  return terrain.heights_at(plan.after.ground, nodes, nodes) * np.float32(_GSD)


def _write_dem(path: pathlib.Path, heights: dict[tuple, np.ndarray], columns: int) -> None:
  """Writes one DEM of all patches, without data between them."""
  dem = np.full((columns * _CELL, columns * _CELL), np.nan, np.float32)
  for (row, col), part in heights.items():
    dem[row * _CELL :, col * _CELL :][: part.shape[0], : part.shape[1]] = part
  corner = _transform() @ Affine.translation(-_STEP * _MARGIN, -_STEP * _MARGIN) @ Affine.scale(_STEP)
  with rasterio.open(
    path, "w", driver="GTiff", height=len(dem), width=len(dem), count=1, dtype="float32", crs=_CRS,
    transform=corner, tiled=True, compress="deflate", nodata=np.nan,
  ) as raster:
    raster.write(dem, 1)


def settings(folder: pathlib.Path, dates: str, seed: int, epochs: int) -> Config:
  """Returns the config of a training."""
  config: Any = packaged.load_config("synthetic_pairs", "lgag")
  config.data.source, config.data.builder, config.data.directory = "patches", "", str(folder)
  config.data.before, config.data.channels = _DATES[dates], 3 + len(_ADD)
  config.model.evidence_bands = tuple(_BANDS[name] for name in _ADD)
  config.train.seed, config.train.evaluate_every = seed, 0
  if epochs:
    config.train.epochs = epochs
  return configs.from_mapping(config)


def judge(trained: pathlib.Path, workdir: pathlib.Path, config: Config, evidence: tuple) -> None:
  """Evaluates a training with the evidence of some of its bands."""
  mesh = sharding.make_mesh()
  _, network, state = restore.restore(trained, mesh)
  train, validation = (
    fill_trunk_outputs.open_split(
      open_source(config.data, split), network, state, config, mesh, trained)
    for split in ("train", "validation")
  )
  less = dataclasses.replace(
    config, model=dataclasses.replace(config.model, evidence_bands=evidence))
  evaluate.evaluate(network, state, less, mesh, workdir, train=train, validation=validation)


def measure(folder: pathlib.Path, output: pathlib.Path, dates: str, seed: int, epochs: int) -> list:
  """Trains and evaluates what is not done yet; returns a row of the table for each set of bands."""
  config, name = settings(folder, dates, seed, epochs), f"{dates.replace(' ', '_')}-{seed}"
  if not (output / name / "eval" / "validation.json").exists():
    loop.train_and_evaluate(config, output / name)
  rows = []
  for bands, evidence in _EVIDENCE.items():
    workdir = output / f"{name}-{bands.replace(' ', '_')}"
    if evidence == config.model.evidence_bands:  # As it was trained.
      workdir = output / name
    if not (workdir / "eval" / "validation.json").exists():
      judge(output / name, workdir, config, evidence)
    values, best = accuracy_table.main_map(workdir / "eval" / "validation.json")
    index = values["colour_index"]
    rows.append((
      dates, bands, seed, f"{best['label_free']['iou']:.3f}", f"{best['oracle']['iou']:.3f}",
      f"{best['label_free']['precision']:.3f}", f"{best['label_free']['recall']:.3f}",
      f"{index['label_free']['iou']:.3f} ({index['rule']})" if index else "-",
    ))
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--seeds", nargs="+", type=int, default=[0])
  parser.add_argument("--train", type=int, default=640, help="patches")
  parser.add_argument("--validation", type=int, default=200, help="patches")
  parser.add_argument("--epochs", type=int, default=0, help="0: those of configs/synthetic_pairs.py")
  arguments = parser.parse_args()
  compiled_programs.enable_cache()
  folder = arguments.output / "data"
  draw(folder, arguments.train, arguments.validation)
  rows = []
  for seed in arguments.seeds:
    for dates in _DATES:
      rows += measure(folder, arguments.output, dates, seed, arguments.epochs)
      table = rendering.markdown_table((
        "input", "evidence", "seed", "IoU, label-free", "IoU, oracle", "precision", "recall",
        "colour index, label-free",
      ), rows)
      files.write_text(arguments.output / "bands.md", f"{table}\n")
  print(table)


if __name__ == "__main__":
  main()

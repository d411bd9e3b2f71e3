"""From a first map to a corrected one: how far do a few drawn strips carry?

python -m benchmarks.correction --mask=landslides.tif --output=runs/labelling

Takes each labelled scene that `benchmarks.labelling` has left below --output. Of the tiles that were
answered with yes, it takes those where the map is most wrong, and draws "not a landslide" as a person
would, inside the false parts by a mask that only this script reads. Then it trains and maps again with
these drawings as --review. It judges the whole scene, and the ground on which nothing was drawn; beside
it stand the first map, and the first map with the drawings cut out of it. Writes correction.md.
Finished runs are not done again.
"""

import argparse
import csv
import pathlib
import subprocess
import sys

import numpy as np
import pyogrio.raw
import rasterio
import scipy.ndimage
import shapely.geometry
import skimage.morphology
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import shapes

from lgag_jax.options.tiling import Settings
from lgag_jax.pages import rendering
from lgag_jax.runtime import files
from lgag_jax.tiling import output as tiling_output

_UNKNOWN = 255  # In the mask and in the map.
_INSET = 8  # Pixels that a person keeps away from an edge.
_LEAST = 500  # Pixels of a part that a person would draw.
_SIMPLER = 4.0  # Pixels by which drawn corners leave the edge.


def read(path: pathlib.Path) -> tuple[np.ndarray, Affine, CRS]:
  """Returns the first band of a raster, u8[H, W], and its place."""
  with rasterio.open(path) as raster:
    return raster.read(1), raster.transform, raster.crs


def positives(labels: pathlib.Path) -> list[tuple[int, int]]:
  """Returns row and column of the tiles that a table of answers calls landslides."""
  with labels.open(newline="", encoding="utf-8") as file:
    answers = {(int(row["row"]), int(row["col"])): row["label"] for row in csv.DictReader(file)}
  return [tile for tile, label in answers.items() if label == Settings.classes[0]]


def draw(
  mapped: np.ndarray, truth: np.ndarray, tiles: list[tuple[int, int]], side: int, count: int
) -> np.ndarray:
  """Returns where a person draws "not a landslide", bool[H, W], in `count` of the tiles."""
  wrong = scipy.ndimage.binary_erosion((mapped == 1) & (truth == 0), iterations=_INSET)
  corners = [(row * side, col * side) for row, col in tiles]
  corners.sort(key=lambda corner: -np.sum(wrong[_tile(*corner, side)]))
  drawn = np.zeros_like(wrong)
  for corner in corners[:count]:
    drawn[_tile(*corner, side)] = wrong[_tile(*corner, side)]
  return skimage.morphology.remove_small_objects(drawn, max_size=_LEAST - 1, connectivity=1)


def _tile(row: int, col: int, side: int) -> tuple[slice, slice]:
  return slice(row, row + side), slice(col, col + side)


def write(drawn: np.ndarray, transform: Affine, crs: CRS, path: pathlib.Path) -> int:
  """Writes the drawings as a layer of polygons with their decision; returns how many there are."""
  found = [
    shapely.geometry.shape(outline).simplify(_SIMPLER * abs(transform.a))
    for outline, _ in shapes(drawn.astype(np.uint8), mask=drawn, transform=transform)
  ]
  decisions = np.array(["not_landslide"] * len(found), object)
  with files.atomic_path(path) as partial:
    pyogrio.raw.write(
      partial, shapely.to_wkb(np.array(found)), [decisions], ["decision"], crs=crs.to_wkt(),
      driver="GPKG", geometry_type="Polygon", layer="drawn",
    )
  return len(found)


def judge(mapped: np.ndarray, truth: np.ndarray, counted: np.ndarray) -> dict[str, float]:
  """Returns IoU, precision and recall where `counted`, bool[H, W], and the truth is known."""
  found, true = (mapped == 1) & counted, (truth == 1) & counted
  known = counted & (truth != _UNKNOWN)
  hit = np.sum(found & true)
  return {
    "iou": hit / np.sum((found | true) & known), "precision": hit / np.sum(found & known),
    "recall": hit / np.sum(true),
  }


def measure(labelled: pathlib.Path, mask: pathlib.Path, count: int) -> dict:
  """Corrects the map of a labelled scene unless it is done; returns the figures."""
  folder = labelled / f"corrected_{count}"
  if (folder / "figures.json").exists():
    return files.read_json(folder / "figures.json")
  folder.mkdir(exist_ok=True)
  (scene,) = labelled.glob("scene_*.tif")
  (first,) = (labelled / "labels" / "maps" / "mask").glob("*.tif")
  truth, transform, crs = read(mask)
  before, side = read(first)[0], files.read_json(labelled / "figures.json")["tile_size"]
  drawn = draw(before, truth, positives(labelled / "labels" / "labels.csv"), side, count)
  drawings = write(drawn, transform, crs, folder / "drawn.gpkg")
  labels, tiles = labelled / "labels" / "labels.csv", folder / "tiles"
  source, workdir = f"--input={scene}", f"--workdir={folder / 'run'}"
  settings = Settings(input=str(scene), labels=str(labels), output=str(tiles),
                      review=str(folder / "drawn.gpkg"), tile_size=side)
  for flags in (
    ["--mode=tile", source, f"--labels={labels}", f"--review={settings.review}",
     f"--output={tiles}", f"--tile_size={side}"],
    [*tiling_output.training_flags(settings, 3), workdir],
    ["--mode=predict", source, workdir, f"--output={folder / 'maps'}"],
  ):
    if not (flags[0] == "--mode=tile" and tiles.exists()):
      subprocess.run([sys.executable, "-m", "lgag_jax.main", *flags], check=True)
  after = read(next((folder / "maps" / "mask").glob("*.tif")))[0]
  everywhere, elsewhere = np.ones_like(drawn), ~drawn
  figures = {
    "scene": labelled.name, "drawings": drawings,
    "drawn_share": np.sum(drawn) / np.sum(truth != _UNKNOWN),
    "first": judge(before, truth, everywhere),
    "cut": judge(np.where(drawn, 0, before), truth, everywhere),
    "corrected": judge(np.where(drawn, 0, after), truth, everywhere),
    "first_elsewhere": judge(before, truth, elsewhere), "elsewhere": judge(after, truth, elsewhere),
  }
  files.write_json(folder / "figures.json", figures)
  return figures


def table(rows: list[dict]) -> str:
  """Returns a line for each map, as Markdown."""
  names = ("first", "cut", "corrected", "first_elsewhere", "elsewhere")
  lines = [
    (row["scene"], row["drawings"], f"{row['drawn_share']:.1%}",
     *(f"{row[name]['iou']:.3f}" for name in names),
     f"{row['corrected']['precision']:.2f} / {row['corrected']['recall']:.2f}")
    for row in rows
  ]
  return rendering.markdown_table((
    "answers", "drawings", "of the scene", "first map, IoU", "drawings cut out", "trained again",
    "first map, beside drawings", "trained again, beside drawings", "precision / recall",
  ), lines)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--mask", type=pathlib.Path, required=True, help="1 landslide, 255 unknown")
  parser.add_argument("--output", type=pathlib.Path, required=True, help="that of benchmarks.labelling")
  parser.add_argument("--tiles", type=int, default=10, help="tiles in which something is drawn")
  arguments = parser.parse_args()
  rows = []
  for path in sorted(arguments.output.absolute().glob("*/figures.json")):
    rows.append(measure(path.parent, arguments.mask, arguments.tiles))
    files.write_text(arguments.output / "correction.md", f"{table(rows)}\n")
  print(table(rows))


if __name__ == "__main__":
  main()

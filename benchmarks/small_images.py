"""Maps many small images, and one scene of the same area and content, in turns.

python -m benchmarks.small_images --workdir=runs/demo --output=runs/small_images --count=2500

Patches of 256 pixels are cut from one synthetic drawing; the scene is all of them side by side. Each
turn is a process of the command line. What mapping one patch takes, the start, is taken off. A ratio is
the median over the rounds. Keep the machine free of other work.
"""

import argparse
import math
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
import rasterio
from PIL import Image

from benchmarks.speed import timing
from data.synthetic_landslides import drawing
from lgag_jax.pages import rendering

_SIDE = 256  # Pixels of a patch.
_DRAWN = 8  # Patches on a side of what is repeated.


def write(folder: pathlib.Path, count: int) -> dict[str, str]:
  """Writes `count` patches, a square number, one alone and the scene; returns their inputs by name."""
  across = math.isqrt(count)
  patches, scene = folder / "patches", folder / "scene.tif"
  patches.mkdir(parents=True)
  drawn = drawing.draw_scene(0, _DRAWN * _SIDE, _DRAWN * _SIDE)[0]
  profile = {"driver": "GTiff", "height": across * _SIDE, "width": across * _SIDE, "count": 3,
             "dtype": "uint8", "tiled": True, "compress": "deflate"}
  with rasterio.open(scene, "w", **profile) as raster:
    for number in range(count):
      row, column = divmod(number, across)
      top, left = (_SIDE * (place % _DRAWN) for place in (row, column))
      pixels = drawn[top : top + _SIDE, left : left + _SIDE]
      Image.fromarray(pixels).save(patches / f"patch_{number:05d}.png")
      window = rasterio.windows.Window(_SIDE * column, _SIDE * row, _SIDE, _SIDE)
      raster.write(np.moveaxis(pixels, -1, 0), window=window)
  return {"one patch": str(patches / "patch_00000.png"), "scene": str(scene),
          "patches": str(patches / "*.png")}


def seconds(workdir: pathlib.Path, given: str, output: pathlib.Path) -> float:
  """Returns how long the command line takes to map `given` into a new folder."""
  shutil.rmtree(output, ignore_errors=True)
  command = [sys.executable, "-m", "lgag_jax.main", "--mode=predict", f"--workdir={workdir}",
             f"--input={given}", f"--output={output}"]
  start = time.perf_counter()
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  return time.perf_counter() - start


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--count", type=int, default=2500, help="patches, a square number")
  parser.add_argument("--rounds", type=int, default=5)
  arguments = parser.parse_args()
  if (square := math.isqrt(arguments.count) ** 2) != arguments.count:
    parser.error(f"--count={arguments.count} is no square number; take {square}.")
  inputs = write(arguments.output / "inputs", arguments.count)
  taken: dict[str, list[float]] = {name: [] for name in inputs}
  for number in range(arguments.rounds):
    # Every other round goes backwards: a machine that slows down favours no side.
    for name in list(inputs)[:: -1 if number % 2 else 1]:
      taken[name].append(seconds(arguments.workdir, inputs[name], arguments.output / "maps"))
  start = statistics.median(taken["one patch"])
  mapped = {name: [value - start for value in taken[name]] for name in ("scene", "patches")}
  area = arguments.count * _SIDE**2 / 1e6
  print(rendering.markdown_table(
    ("input", "seconds beyond the start", "MP/s", "of the scene's rate"),
    [(name, f"{statistics.median(values):.1f}", f"{area / statistics.median(values):.2f}",
      f"{timing.paired_ratio(mapped['scene'], values):.0%}") for name, values in mapped.items()]))
  print(f"{arguments.count} patches of {_SIDE} pixels; start {start:.1f} s; {arguments.rounds} rounds")


if __name__ == "__main__":
  main()

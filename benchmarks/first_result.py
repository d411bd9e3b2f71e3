"""How long a user waits: for the map of one small image, and for commands that need no network.

python -m benchmarks.first_result --workdir=runs/demo --output=runs/first_result

Each command is a process from its start to its end, in turns. "Nothing kept" has a home folder of its
own, where no compiled program lies; "programs kept" maps once more with the same one. Keep the machine
free of other work.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

from PIL import Image

from data.synthetic_landslides import drawing
from lgag_jax.pages import rendering

_SIDE = 512  # Pixels of the image.
_MAIN = (sys.executable, "-m", "lgag_jax.main")


def commands(workdir: pathlib.Path, folder: pathlib.Path) -> dict[str, tuple[str, ...]]:
  """Writes an image to `folder`; returns commands by what they do, in their order."""
  folder.mkdir(parents=True, exist_ok=True)
  image = folder / "image.png"
  Image.fromarray(drawing.draw_scene(0, _SIDE, _SIDE)[0]).save(image)
  mapping = (*_MAIN, "--mode=predict", f"--workdir={workdir}", f"--input={image}",
             f"--output={folder / 'maps'}")
  tiling = (*_MAIN, "--mode=tile", f"--input={image}", "--tile_size=256",
            f"--output={folder / 'tiles'}")
  return {
    f"map of {_SIDE} x {_SIDE} pixels, nothing kept": mapping,
    "the same, programs kept": mapping, "its tiles, to label": tiling, "help": (*_MAIN, "--help"),
  }


def seconds(command: tuple[str, ...], folder: pathlib.Path) -> float:
  """Returns how long a command takes, without what an earlier one has written."""
  for name in ("maps", "tiles"):
    shutil.rmtree(folder / name, ignore_errors=True)
  environment = {**os.environ, "HOME": str(folder / "home")}
  environment.pop("JAX_COMPILATION_CACHE_DIR", None)
  start = time.perf_counter()
  subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL,
                 stderr=subprocess.DEVNULL)
  return time.perf_counter() - start


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--rounds", type=int, default=5)
  arguments = parser.parse_args()
  folder = arguments.output.absolute()
  each = commands(arguments.workdir.absolute(), folder)
  taken: dict[str, list[float]] = {name: [] for name in each}
  for _ in range(arguments.rounds):
    shutil.rmtree(folder / "home", ignore_errors=True)
    for name, command in each.items():
      taken[name].append(seconds(command, folder))
  print(rendering.markdown_table(("command", "s", "fastest and slowest"), [
    (name, f"{statistics.median(values):.1f}", f"{min(values):.1f} to {max(values):.1f}")
    for name, values in taken.items()
  ]))


if __name__ == "__main__":
  main()

"""Measures prediction on scenes: memory, speed and where it goes, and whether windows can be seen.

python -m benchmarks.scenes --workdir=runs/demo --output=runs/scenes --sizes 4000x4000 20000x20000

A scene is one synthetic drawing, repeated. Each is mapped by the command line in a process of its own;
with --seams the first also with other windows and overlaps, whose masks are compared with its own.
With --pairs, a workdir of a network for pairs, each is also mapped as the image after, with an image
before whose pixels lie half a pixel beside, so that all of them are resampled.
"""

import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import rasterio
from rasterio.windows import Window

from data.synthetic_landslides import drawing, pairs
from lgag_jax.geo import scale
from lgag_jax.mapping import window_pipeline, window_scores
from lgag_jax.runtime import compiled_programs, sharding
from lgag_jax.training import restore

_DRAWN = 2000  # Side of what is repeated.
_OVERLAPS = (0.25, 0.5)  # The first is the default.
_ROUNDS = 5


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--sizes", nargs="+", default=["4000x4000"], help="height x width")
  parser.add_argument(
    "--windows", nargs="+", type=int, default=[0, 320, 448],
    help="sides of windows in pixels, 0 the default's; all but --seams takes the first alone",
  )
  parser.add_argument(
    "--every", type=int, default=1, help="leave all but each n-th square of the drawing without data"
  )
  parser.add_argument("--pairs", type=pathlib.Path, help="the workdir of a network for pairs")
  parser.add_argument("--seams", action="store_true", help="compare window sizes and overlaps")
  arguments = parser.parse_args()
  arguments.output.mkdir(parents=True, exist_ok=True)
  bare = _bare(arguments.workdir, arguments.windows[0])
  print(f"bare model: {bare:.2f} windows/s")
  sparse = "" if arguments.every == 1 else f"-every{arguments.every}"
  for size in arguments.sizes:
    path = arguments.output / f"scene{size}{sparse}.tif"
    width, height = map(int, size.split("x"))
    scene = _write(path, width, height, arguments.every)
    found = _map(arguments, scene, f"maps{size}{sparse}", tile_size=arguments.windows[0])
    print(_line(size, found, bare), flush=True)
    if arguments.pairs:
      path = arguments.output / f"before{size}{sparse}.tif"
      before = _write(path, width, height, arguments.every, before=True)
      pair = _map(
        arguments, scene, f"pairs{size}{sparse}", workdir=arguments.pairs, before=before,
        tile_size=arguments.windows[0],
      )
      print(f"{_line(f'{size}, pair', pair)}, {pair['peak_gib'] / found['peak_gib'] - 1:+.0%} over one",
            flush=True)
  if arguments.seams:
    size = f"{arguments.sizes[0]}{sparse}"
    reference = _mask(arguments.output / f"maps{size}")
    for tile, overlap in list(itertools.product(arguments.windows, _OVERLAPS))[1:]:
      name = f"maps{size}-{tile}-{overlap}"
      _map(arguments, arguments.output / f"scene{size}.tif", name, tile_size=tile, overlap=overlap)
      mask = _mask(arguments.output / name)
      same = np.mean(mask == reference)
      print(f"window {tile or 'default'}, overlap {overlap}: {same:.2%} of the pixels agree, "
            f"IoU {_iou(mask, reference):.3f}", flush=True)


def _bare(workdir: pathlib.Path, tile_size: int) -> float:
  """Returns windows a second of the compiled model on the same batch over and over."""
  compiled_programs.enable_cache()
  mesh = sharding.make_mesh()
  config, network, state = restore.restore(workdir, mesh)
  windows = scale.plan_windows(scale.load(workdir, config), config, None, tile_size, (_DRAWN, _DRAWN))
  compute_scores = window_scores.make_window_scores(network, config, mesh, windows)
  size = window_pipeline.batch_size(config, mesh)
  pixels, _ = drawing.draw_scene(0, windows.side, windows.side)
  batch = np.stack([pixels] * size)
  rates = []
  for _ in range(_ROUNDS + 1):  # The first compiles.
    begin = time.perf_counter()
    jax.block_until_ready(compute_scores(state, batch))
    rates.append(size / (time.perf_counter() - begin))
  return float(np.median(rates[1:]))


def _write(
  path: pathlib.Path, height: int, width: int, every: int, *, before: bool = False
) -> pathlib.Path:
  """Writes a scene, or what was there before, whose pixels lie half of one beside the scene's."""
  if path.exists():
    return path
  pixels = _draw_before() if before else drawing.draw_scene(0, _DRAWN, _DRAWN)[0]
  pixels, shift = np.moveaxis(pixels, -1, 0), 0.25 * before
  profile = {
    "driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8", "tiled": True,
    "blockxsize": 512, "blockysize": 512, "compress": "deflate", "crs": "EPSG:32633",
    "transform": rasterio.Affine(0.5, 0, 5e5 + shift, 0, -0.5, 5.2e6 - shift), "nodata": 0,
    "BIGTIFF": "IF_SAFER", "sparse_ok": True,
  }
  squares = itertools.product(range(0, height, _DRAWN), range(0, width, _DRAWN))
  with rasterio.Env(GDAL_CACHEMAX=256 << 20), rasterio.open(path, "w", **profile) as raster:
    for top, left in itertools.islice(squares, 0, None, every):
      part = pixels[:, : height - top, : width - left]
      raster.write(part, window=Window(left, top, part.shape[2], part.shape[1]))
  return path


def _draw_before() -> np.ndarray:
  plan = pairs.make_plan(0, _DRAWN, _DRAWN, landslide=True, max_shift=0)
  pixels = np.empty((_DRAWN, _DRAWN, 3), np.uint8)
  for top, left, height, width in drawing.windows(_DRAWN, _DRAWN):
    part = pixels[top : top + height, left : left + width]
    part[:] = pairs.render(plan, top, left, height, width).before
  return pixels


def _map(arguments, scene: pathlib.Path, name: str, **flags) -> dict:
  """Maps a scene in another process; returns seconds, peak memory, and what the run noted itself."""
  command = [
    sys.executable, "-m", "lgag_jax.main", "--mode=predict", f"--input={scene}",
    f"--output={arguments.output / name}",
    *(f"--{flag}={value}" for flag, value in {"workdir": arguments.workdir, **flags}.items()),
  ]
  begin = time.perf_counter()
  process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
  _, status, usage = os.wait4(process.pid, 0)
  if status:
    raise SystemExit(f"{' '.join(command)} failed.")
  result = json.loads(next((arguments.output / name / "scenes").iterdir()).read_text())
  unit = 2**30 if sys.platform == "darwin" else 2**20
  return {**result, "whole": time.perf_counter() - begin, "peak_gib": usage.ru_maxrss / unit}


def _line(size: str, result: dict, bare: float | None = None) -> str:
  windows, wall = result["windows"], result["wall_seconds"]
  megapixels = result["height"] * result["width"] / 1e6
  parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result["seconds"].items())
  rate = f"{windows / wall / bare:.0%} of the bare model's rate, " if bare else ""
  return (
    f"{size}: {windows} windows in {wall:.1f} s ({parts}), {rate}{megapixels / wall:.2f} MP/s; with "
    "start and products "
    f"{result['whole']:.1f} s, peak {result['peak_gib']:.2f} GiB"
  )


def _mask(folder: pathlib.Path) -> np.ndarray:
  with rasterio.open(next((folder / "mask").glob("*.tif"))) as raster:
    return raster.read(1)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
  return float(np.sum((a == 1) & (b == 1)) / max(np.sum((a == 1) | (b == 1)), 1))


if __name__ == "__main__":
  main()

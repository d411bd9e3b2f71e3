"""Measures mapping beyond one machine: what Ray costs, and what many blocks cost the driver.

python -m benchmarks.engine overhead --workdir=runs/demo --output=runs/overhead
python -m benchmarks.engine many --output=runs/many --blocks=100000 --run=100000

`overhead` maps a drawn area by the single-process path and by Ray with one mapper, in turns, and gives
the median share of wall time and of processor time that Ray adds. Both are those between the first and
the last block: loading the network is left out.
`many` plans blocks, runs blocks without data through Ray, and scans an output in which all are mapped.
Both print a line of JSON per measurement.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import pathlib
import resource
import shutil
import statistics
import time

import numpy as np
import psutil
import rasterio
import shapely
from affine import Affine

from data.synthetic_landslides import drawing
from lgag_jax.blocks import area_job, local_engine, map_block, network, plan, ray_engine
from lgag_jax.blocks.block_arrays import BlockMap, BlockPixels
from lgag_jax.blocks.map_block import AreaJob
from lgag_jax.blocks.network_maker import NetworkMaker
from lgag_jax.blocks.plan import Block, BlockSize
from lgag_jax.catalogues import search
from lgag_jax.mapping.loaded_model import load_model
from lgag_jax.options.area import Area, Engine, Imagery

_WEST, _NORTH, _EPSG = 640_000, 3_080_000, 32645
_DRAWN = 512  # Side of what is repeated.
_RESOLUTION = 10.0
_SIZE = BlockSize(192, 144, 28)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("what", choices=("overhead", "many"))
  parser.add_argument("--workdir", type=pathlib.Path)
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--side", type=int, default=4096, help="pixels of the drawn area, overhead")
  parser.add_argument("--block_size", type=int, default=1024, help="overhead")
  parser.add_argument("--rounds", type=int, default=5, help="overhead")
  parser.add_argument("--blocks", type=int, default=100_000, help="many")
  parser.add_argument("--run", type=int, default=100_000, help="blocks that Ray runs, many")
  options = parser.parse_args()
  shutil.rmtree(options.output, ignore_errors=True)
  options.output.mkdir(parents=True)
  measure_overhead(options) if options.what == "overhead" else measure_many(options)


def measure_overhead(options: argparse.Namespace) -> None:
  """Maps the same blocks in this process and on Ray."""
  loaded = load_model(options.workdir)
  area = Area(block_size=options.block_size, training_gsd=_RESOLUTION)  # Drawn patches have no ground.
  resolution, windows, size = network.plan_windows(loaded.training_scale, loaded.config, area)
  image = draw(options.output / "image.tif", options.side, resolution)
  channels = loaded.config.data.channels
  images = search.find_images(str(image), None, channels, Imagery())
  blocks = plan.plan_blocks(None, resolution, size, [one.footprint for one in images])
  maps = network.BlockNetwork(loaded, windows, size, "uint8")
  make = NetworkMaker(options.workdir.absolute(), windows, size, "uint8")
  shares: dict[str, list[float]] = {"wall": [], "cpu": []}
  for number in range(options.rounds):
    costs = {}
    for name in ("local", "ray"):
      job = AreaJob(
        options.output / f"{name}{number}", tuple(images), Imagery(), resolution, size, channels,
        loaded.config.data.classes, "uint8", "benchmark",
      )
      marks: list[tuple[float, float]] = []
      done = lambda block, error, marks=marks: marks.append((time.monotonic(), cpu_seconds()))
      if name == "local":
        local_engine.run(job, blocks, maps, 1, done)
      else:
        ray_engine.run(job, blocks, make, Engine(engine="ray", mappers=1), done)
      costs[name] = [last - first for first, last in zip(marks[0], marks[-1], strict=True)]
      report(
        what=name, blocks=len(blocks), side=size.core, cpu_seconds=round(costs[name][1], 1),
        mp_per_second=round((len(blocks) - 1) * size.core**2 / 1e6 / costs[name][0], 3),
      )
    for kind, local, on_ray in zip(shares, costs["local"], costs["ray"], strict=True):
      shares[kind].append(on_ray / local - 1)
  medians = {kind: round(statistics.median(values), 3) for kind, values in shares.items()}
  report(what="overhead", **medians)


def cpu_seconds() -> float:
  """Returns the processor time of this process and of all below it that live."""
  own = psutil.Process()
  seconds = 0.0
  for process in (own, *own.children(recursive=True)):
    with contextlib.suppress(psutil.NoSuchProcess):
      seconds += sum(process.cpu_times()[:2])
  return seconds


def draw(path: pathlib.Path, side: int, resolution: float) -> pathlib.Path:
  """Writes a drawn area as a tiled TIFF; returns the path."""
  drawn = drawing.draw_patch(3, size=_DRAWN, landslide=True)[0]
  repeats = math.ceil(side / _DRAWN)
  values = np.tile(drawn, (repeats, repeats, 1))[:side, :side]
  with rasterio.open(
    path, "w", driver="GTiff", height=side, width=side, count=values.shape[2], dtype=values.dtype,
    crs=f"EPSG:{_EPSG}", transform=Affine(resolution, 0, _WEST, 0, -resolution, _NORTH), tiled=True,
    compress="DEFLATE",
  ) as raster:
    raster.write(np.moveaxis(values, -1, 0))
  return path


@dataclasses.dataclass(frozen=True)
class Stub:
  """Stands for the network; as a maker of networks it returns itself."""

  def __call__(self) -> "Stub":
    return self

  def map_pixels(self, name: str, pixels: BlockPixels) -> BlockMap:
    raise ValueError(f"{name} has data, unlike the blocks of this benchmark: {pixels.valid.sum()}")


def measure_many(options: argparse.Namespace) -> None:
  """Plans many blocks, runs them without data, and scans an output in which all are mapped."""
  degrees = math.sqrt(options.blocks) * _SIZE.core * _RESOLUTION / 111_320
  degrees = min(degrees, 70.0)
  resolution = degrees * 111_320 / math.sqrt(options.blocks) / _SIZE.core
  side = degrees / math.ceil(degrees)  # Of a footprint.
  corners = np.arange(0, degrees - 1e-9, side)
  footprints = [
    shapely.box(20 + x, -degrees / 2 + y, 20 + x + side, -degrees / 2 + y + side)
    for y in corners for x in corners
  ]
  started = time.monotonic()
  blocks = plan.plan_blocks(None, resolution, _SIZE, footprints)
  seconds = round(time.monotonic() - started, 2)
  report(
    what="plan", blocks=len(blocks), images=len(footprints), seconds=seconds, peak_mib=peak_mib()
  )
  blocks = [Block(block.epsg, block.row, block.col) for block in blocks]
  job = AreaJob(
    options.output, (), Imagery(), resolution, _SIZE, 3, ("landslide",), "uint8", "benchmark"
  )
  started = time.monotonic()
  engine = Engine(engine="ray", mappers=1)
  run = lambda job, blocks, done: ray_engine.run(job, blocks, Stub(), engine, done)
  failed = area_job.map_missing(job, blocks[: options.run], run)
  report(
    what="run", blocks=options.run, failed=len(failed), seconds=round(time.monotonic() - started, 1),
    peak_mib=peak_mib(),
  )
  for block in blocks[options.run :]:
    name = map_block.record_name(block, job.key(block), empty=True)
    (options.output / map_block.ITEMS / name).write_text("{}")
  started = time.monotonic()
  whole, _ = map_block.whole_blocks(job, blocks)
  report(
    what="resume", blocks=len(whole), seconds=round(time.monotonic() - started, 2), peak_mib=peak_mib()
  )


def peak_mib() -> int:
  """Returns the most memory that this process has had, in MiB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def report(**figures) -> None:
  print(json.dumps(figures), flush=True)


if __name__ == "__main__":
  main()

"""Writes a synthetic event: scenes before and after it, a mask of its landslides, and a DEM.

python -m data.synthetic_landslides.write_event --path=event --height=1024 --width=1024
"""

import argparse
import os
import pathlib

import numpy as np
import rasterio
from rasterio.windows import Window

from . import drawing, pairs, write_scene

NAMES = ("after", "before", "mask", "dem")
_DEM_STEP = 4  # Pixels of the scene on a side of one of the DEM's.


def write_event(
  path: str | os.PathLike, *, seed: int, height: int, width: int, gsd_m: float = 0.5,
  crs: str = "EPSG:32633", origin: tuple[float, float] = (500000.0, 5200000.0), max_shift: int = 2,
) -> list[pathlib.Path]:
  """Writes after.tif, before.tif, mask.tif and dem.tif into the folder `path`; returns their paths.

  The scene before lies up to `max_shift` pixels beside its place. `gsd_m` is the side of a pixel, which
  must be in metres. Raises ValueError for sizes that are too small for a scene.
  """
  folder = pathlib.Path(path)
  if min(height, width) < 48 or gsd_m <= 0:
    raise ValueError(f"{height=} {width=} {gsd_m=}: must be at least 48 x 48 pixels of positive size")
  folder.mkdir(parents=True, exist_ok=True)
  paths = [folder / f"{name}.tif" for name in NAMES]
  plan = pairs.make_plan(seed, height, width, landslide=True, max_shift=max_shift)
  profile = write_scene.profile_of(height, width, gsd_m, crs, origin, 0.0)
  heights = pairs.heights(plan.after, _DEM_STEP, gsd_m)
  dem = {
    **profile, "dtype": "float32", "height": heights.shape[0], "width": heights.shape[1],
    "transform": profile["transform"] @ rasterio.Affine.scale(_DEM_STEP), "predictor": 3,
  }
  with (
    write_scene.replacing(paths) as (after_part, before_part, mask_part, dem_part),
    rasterio.open(after_part, "w", count=3, photometric="RGB", **profile) as after,
    rasterio.open(before_part, "w", count=3, photometric="RGB", **profile) as before,
    rasterio.open(mask_part, "w", count=1, **profile) as mask,
    rasterio.open(dem_part, "w", count=1, **dem) as dem_file,
  ):
    for top, left, h, w in drawing.windows(height, width):
      part, box = pairs.render(plan, top, left, h, w), Window(left, top, w, h)
      after.write(np.moveaxis(part.after, -1, 0), window=box)
      before.write(np.moveaxis(part.before, -1, 0), window=box)
      mask.write(part.mask, 1, window=box)
    dem_file.write(heights, 1)
  return paths


def main(argv: list[str] | None = None) -> None:
  """Writes an event with the options of the command line."""
  parser = argparse.ArgumentParser(description="Writes scenes before and after an event, and a DEM.")
  parser.add_argument("--path", required=True, help="the folder")
  parser.add_argument("--height", type=int, required=True, help="pixels")
  parser.add_argument("--width", type=int, required=True, help="pixels")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--gsd_m", type=float, default=0.5, help="side of a pixel, in metres")
  parser.add_argument("--crs", default="EPSG:32633")
  parser.add_argument("--origin", type=float, nargs=2, default=(500000.0, 5200000.0))
  parser.add_argument("--max_shift", type=int, default=2, help="pixels between the dates, at most")
  print(*write_event(**vars(parser.parse_args(argv))), sep="\n")


if __name__ == "__main__":
  main()

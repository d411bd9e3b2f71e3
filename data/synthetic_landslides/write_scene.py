"""Writes a large synthetic scene as GeoTIFF, window by window, with its mask beside it.

python -m data.synthetic_landslides.write_scene --path=scene.tif --height=4096 --width=4096
"""

import argparse
import contextlib
import math
import os
import pathlib
import sys

import numpy as np
import rasterio
from rasterio.windows import Window

from . import drawing, noise

_NODATA = 255  # Value in the mask outside the image's footprint.


def _footprint(top: int, left: int, shape: tuple[int, int], scene: tuple[int, int], margin: float):
  """Returns which pixels of a window have data, bool[*shape], with a ragged edge.

  `scene` is the scene's height and width, `margin` the mean width of its edge without data, in pixels.
  """
  rows, cols = np.arange(top, top + shape[0]), np.arange(left, left + shape[1])
  if margin <= 0:
    return np.ones(shape, bool)
  edge = margin * (1 + 0.3 * noise.take("patch", rows, cols))
  lean = (rows[:, None] - scene[0] / 2) / scene[0]  # The swath of a sensor does not run due north.
  inside_y = np.minimum(rows, scene[0] - 1 - rows)[:, None]
  inside_x = np.minimum(cols[None] + lean * margin, scene[1] - 1 - cols[None] - lean * margin)
  return np.minimum(inside_y, inside_x) >= edge


def profile_of(height: int, width: int, gsd_m: float, crs: str, origin, angle: float) -> dict:
  along, across = gsd_m * math.cos(math.radians(angle)), gsd_m * math.sin(math.radians(angle))
  return {
    "driver": "GTiff",
    "height": height,
    "width": width,
    "dtype": "uint8",
    "crs": crs,
    "transform": rasterio.Affine(along, across, origin[0], across, -along, origin[1]),
    "tiled": True,
    "blockxsize": 256,
    "blockysize": 256,
    "compress": "deflate",
    "predictor": 2,
    "bigtiff": "IF_SAFER",
  }


@contextlib.contextmanager
def replacing(paths: list[pathlib.Path]):
  """Yields temporary names to write to; renames them to `paths` at the end if there was no error."""
  parts = [path.with_name(f".{path.name}.part") for path in paths]
  try:
    yield parts
    for part, path in zip(parts, paths, strict=True):
      with part.open("rb+") as file:
        os.fsync(file.fileno())
      os.replace(part, path)
  finally:
    for part in parts:
      part.unlink(missing_ok=True)


def _write_windows(plan, image_file, mask_file, nodata_margin: float, progress: bool) -> None:
  scene = plan.ground.shape
  boxes = list(drawing.windows(*scene))
  for number, (top, left, h, w) in enumerate(boxes, 1):
    image, mask = drawing.render(plan, top, left, h, w)
    valid = _footprint(top, left, (h, w), scene, nodata_margin)
    box = Window(left, top, w, h)
    image_file.write(np.moveaxis(image * valid[..., None], -1, 0), window=box)
    mask_file.write(np.where(valid, mask, _NODATA).astype(np.uint8), 1, window=box)
    if nodata_margin:
      image_file.write_mask(valid, window=box)
    if progress and (number == len(boxes) or number % math.ceil(len(boxes) / 20) == 0):
      print(f"{number}/{len(boxes)} windows", file=sys.stderr)


def write_scene(
  path: str | os.PathLike,
  *,
  seed: int,
  height: int,
  width: int,
  gsd_m: float = 0.5,
  crs: str = "EPSG:32633",
  origin: tuple[float, float] = (500000.0, 5200000.0),
  angle_deg: float = 0.0,
  nodata_margin: float = 0.0,
  progress: bool = False,
) -> tuple[pathlib.Path, pathlib.Path]:
  """Writes a scene's RGB GeoTIFF to `path` and its mask to `*_mask.tif`; returns both paths.

  Needs memory for the coarse ground (about 3 bytes per pixel of the scene) and one window. `gsd_m` is
  the side of a pixel and `origin` the upper left corner (x, y), in the unit of `crs`, metres by
  default. `angle_deg` rotates the grid anticlockwise. With a `nodata_margin` (pixels) the edge is
  nodata: black under an internal mask in the image, 255 in the mask file. Raises ValueError for sizes
  that are too small for a scene.
  """
  path = pathlib.Path(path)
  if min(height, width) < 48 or gsd_m <= 0:
    raise ValueError(f"{height=} {width=} {gsd_m=}: must be at least 48 x 48 pixels of positive size")
  if not 0 <= nodata_margin < min(height, width) / 4:
    raise ValueError(f"{nodata_margin=}: must be from 0 to a quarter of the scene's shorter side")
  mask_path = path.with_name(f"{path.stem}_mask.tif")
  plan = drawing.make_plan(seed, height, width, landslide=True)
  profile = profile_of(height, width, gsd_m, crs, origin, angle_deg)
  with (
    replacing([path, mask_path]) as (image_part, mask_part),
    rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
    rasterio.open(image_part, "w", count=3, photometric="RGB", **profile) as image_file,
    rasterio.open(mask_part, "w", count=1, nodata=_NODATA, **profile) as mask_file,
  ):
    _write_windows(plan, image_file, mask_file, nodata_margin, progress)
  return path, mask_path


def main(argv: list[str] | None = None) -> None:
  """Writes a scene with the options of the command line."""
  parser = argparse.ArgumentParser(description="Writes a synthetic scene and its mask as GeoTIFF.")
  parser.add_argument("--path", required=True, help="the image; its mask goes to *_mask.tif")
  parser.add_argument("--height", type=int, required=True, help="pixels")
  parser.add_argument("--width", type=int, required=True, help="pixels")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--gsd_m", type=float, default=0.5, help="side of a pixel, in units of the CRS")
  parser.add_argument("--crs", default="EPSG:32633")
  parser.add_argument("--origin", type=float, nargs=2, default=(500000.0, 5200000.0))
  parser.add_argument("--angle_deg", type=float, default=0.0, help="rotation of the grid")
  parser.add_argument("--nodata_margin", type=float, default=0.0, help="edge without data, pixels")
  image, mask = write_scene(**vars(parser.parse_args(argv)), progress=True)
  print(f"{image}\n{mask}")


if __name__ == "__main__":
  main()

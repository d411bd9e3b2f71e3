"""Opens images with their masks, and checks that both lie at the same place, if both say where.

Training reads masks pixel by pixel. Many published masks have no place, or none but pixels.
"""

import contextlib
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from lgag_jax.geo import crs_relation
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.placement import grid_of
from lgag_jax.imagery import own_rasters, reading, side_files
from lgag_jax.imagery.opening import ImageError
from lgag_jax.imagery.orientation import Raster

_TOLERANCE = 0.75  # Pixels. Writers that take a pixel's corner for its centre are off by half of one.


@contextlib.contextmanager
def open_with_mask(
  image_path: pathlib.Path, mask_path: pathlib.Path
) -> Iterator[tuple[Raster, Raster]]:
  """Opens an image and its mask; raises ImageError if their sizes differ, or their places.

  Also if the mask is another raster of a map by lgag.
  """
  with reading.open_raster(image_path) as image, reading.open_raster(mask_path) as mask:
    sizes = (mask.height, mask.width), (image.height, image.width)
    reading.check_same_size(mask_path, *sizes)
    own_rasters.refuse_other_than_masks(mask_path, mask)
    _check_place(image, image_path, mask, mask_path)
    yield image, mask


def _check_place(
  image: Raster, image_path: pathlib.Path, mask: Raster, mask_path: pathlib.Path
) -> None:
  if image.transform == mask.transform and not image.transform.is_identity and not any(
    side_files.beside(path, ".aux.xml") for path in (image_path, mask_path)
  ):
    return  # The usual case, which needs no more files.
  try:
    grid, other = grid_of(image, image_path), grid_of(mask, mask_path)
  except ImageError:
    return  # A place that cannot be read contradicts no other.
  distance = _distance(grid, other) if grid.placed and other.placed else 0.0
  if distance > _TOLERANCE:
    raise ImageError(
      f"{mask_path} lies elsewhere than its image {image_path}: their pixels are up to {distance:.4g} "
      "pixels apart. Save the mask on the image's grid (gdalwarp -r near). If the pixels fit "
      "each other as they are stored, remove the mask's place: gdal_edit.py -unsetgt mask.tif."
    )


def _distance(grid: Grid, other: Grid) -> float:
  """Returns the largest distance of the corners of both in pixels, 0 if it is unknown."""
  corners = np.array([(0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height)], float)
  x, y = (np.asarray(values) for values in grid.transform @ tuple(corners.T))
  found = [_apart(corners, other, x, y)]
  if grid.crs and other.crs and not crs_relation.same(grid.crs, other.crs):
    transformer = crs_relation.transformer(grid.crs, other.crs)
    if transformer is None:
      return 0.0
    found.append(_apart(corners, other, *transformer.transform(x, y)))
  return min(found)  # Equal numbers with another name of the system are equal places.


def _apart(corners: np.ndarray, other: Grid, x: Any, y: Any) -> float:
  with np.errstate(invalid="ignore"):
    pixels: Any = ~other.transform @ (x, y)
    distance = np.hypot(*(np.stack(pixels, axis=1) - corners).T).max()
  return float(distance) if np.isfinite(distance) else math.inf

"""Brings shapes to the longitudes of a scene: 181 and -179 degrees are the same meridian."""

import numpy as np
import shapely
from rasterio.crs import CRS

from lgag_jax.geo.grid import Grid

_WEB_MERCATOR_WIDTH = 2 * np.pi * 6378137.0  # Of EPSG:3857, in metres.


def period(crs: CRS | None) -> float:
  """Returns the width of the Earth along x if coordinates repeat after it, otherwise 0."""
  if crs is None:
    return 0.0
  if crs.is_geographic:
    return 360.0
  return _WEB_MERCATOR_WIDTH if crs.to_epsg() == 3857 else 0.0


def unwrapped(x: np.ndarray, owners: np.ndarray, width: float) -> np.ndarray:
  """Returns the x of shapes without a jump at the 180th meridian: none is wider than half the Earth."""
  if not width or not len(x):
    return x
  low, high = np.full(owners.max() + 1, np.inf), np.full(owners.max() + 1, -np.inf)
  np.minimum.at(low, owners, x)
  np.maximum.at(high, owners, x)
  wide = (high - low > width / 2)[owners]
  middle = (low + high)[owners] / 2
  return np.where(wide & (x < middle), x + width, x)


def copies_in_scene(shapes: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
  """Returns shapes in pixels, moved around the Earth into the scene, and each one's origin.

  A shape that reaches the scene several times is returned several times; one that never does stays.
  """
  width = period(grid.crs)
  if not width:
    return shapes, np.arange(len(shapes))
  inverse = ~grid.transform
  step = np.array([inverse.a, inverse.d]) * width  # In pixels.
  bounds = shapely.bounds(shapes)
  inside = {}
  for turns in (-1, 0, 1):
    left, top, right, bottom = (bounds + turns * np.r_[step, step]).T
    inside[turns] = (right > 0) & (left < grid.width) & (bottom > 0) & (top < grid.height)
  inside[0] |= ~(inside[-1] | inside[1])
  copies = [
    (shapely.transform(shapes[mask], lambda points, turns=turns: points + turns * step), mask)
    for turns, mask in inside.items()
  ]
  index = np.concatenate([np.flatnonzero(mask) for _, mask in copies])
  order = np.argsort(index, kind="stable")  # The last of several shapes wins, as in the layer.
  return np.concatenate([moved for moved, _ in copies])[order], index[order]

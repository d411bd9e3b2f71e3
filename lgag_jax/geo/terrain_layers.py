"""Lays the terrain of a DEM onto the pixels of a scene: slope, aspect, curvature and local relief.

All are measured on the DEM's own pixels, in metres on the ellipsoid, and then interpolated. Of a DEM
that is finer than the scene, several pixels become one. Memory does not depend on the size of either.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import scipy.ndimage
from affine import Affine
from rasterio.windows import Window

from lgag_jax.geo import crs_relation, resampling
from lgag_jax.geo.dem import Dem
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.windows import parts_below, windows_below
from lgag_jax.imagery.opening import ImageError

LAYERS = ("slope", "eastness", "northness", "curvature", "relief")
_RADIUS_PIXELS = 8  # Pixels along the radius of relief, at most: more make it slow, not better.
_MOST_PIXELS = 1 << 21  # Of a DEM that are in memory.
_TOLERANCE = 1.01  # Of ratios of lengths: projections distort them a little.
_LEVEL = 1e-9  # A gradient below it has no direction.
_CURVED = 100.0  # Metres: a gradient that changes by one within them counts as 45 degrees.


class TerrainLayers:
  """Some LAYERS of the terrain on the grid of a scene."""

  def __init__(
    self, dem: Dem, path: pathlib.Path, grid: Grid, names: Sequence[str], radius: float
  ):
    """`radius` is that of local relief, in metres.

    Raises ImageError naming `path`, the scene, if the DEM does not fit it; ValueError for the radius.
    """
    self._dem, self._grid, self._names, self._radius = dem, grid, names, radius
    if grid.crs is None or grid.to_wgs84() is None:
      raise ImageError(
        f"{path} has no place on the Earth, so no DEM can be laid under it. Give it its true CRS, such "
        "as gdal_edit.py -a_srs EPSG:32633."
      )
    self._to_dem = crs_relation.needed_transformer(grid.crs, dem.grid.crs)
    below = windows_below(grid.transform, (grid.height, grid.width), self._to_dem, dem.grid)
    if not below:
      raise ImageError(f"--dem={dem.path} does not overlap {path}: give a DEM of the same place.")
    side = _pixel_side(dem, below[0][0])
    pixels = _TOLERANCE * (grid.gsd() or 0.0) / side, _TOLERANCE * radius / _RADIUS_PIXELS / side
    self._reduction = max(1, math.floor(pixels[0]))
    self._reduction_of_relief = max(self._reduction, math.floor(pixels[1]))
    least = math.ceil(side * self._reduction_of_relief)
    if "relief" in names and radius < least:
      raise ValueError(
        f"--relief_radius={radius:g}: must be at least {least} metres, a pixel of the DEM or of {path}."
      )

  def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Returns the layers on a window of the scene, f64[h, w, n], and where all are known, bool[h, w].

    Slope and curvature are in degrees (see `_curvature`), relief in metres. Eastness and northness are
    sine and cosine of the aspect, the direction of descent clockwise from true north, or 0 on level
    ground. Raises ImageError naming a DEM that is damaged.
    """
    names, layers = self._names, {}
    known = np.ones((int(window.height), int(window.width)), bool)
    if set(names) & {"slope", "eastness", "northness"}:
      values, found = self._on_scene(window, self._reduction, self._gradients)
      steepness = np.hypot(*np.moveaxis(values, -1, 0))
      direction = np.where((steepness > _LEVEL)[..., None], -values, 0.0)
      direction /= np.maximum(steepness, _LEVEL)[..., None]
      layers |= {"slope": np.degrees(np.arctan(steepness))}
      layers |= {"eastness": direction[..., 0], "northness": direction[..., 1]}
      known &= found
    for name, reduction, measure in (
      ("curvature", self._reduction, self._curvature),
      ("relief", self._reduction_of_relief, self._relief),
    ):
      if name in names:
        values, found = self._on_scene(window, reduction, measure)
        layers[name] = values[..., 0]
        known &= found
    return np.stack([layers[name] for name in names], axis=-1), known

  def _on_scene(
    self, window: Window, reduction: int, measure: Callable[[Window, int], np.ndarray]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `measure` finds on the DEM, f64[h, w, n], on a window of the scene, and where."""
    grid, dem = self._grid, self._dem
    assert grid.crs is not None and dem.grid.crs is not None
    reduced = dataclasses.replace(
      dem.grid, height=-(-dem.grid.height // reduction), width=-(-dem.grid.width // reduction),
      transform=dem.grid.transform @ Affine.scale(reduction),
    )
    shape = int(window.height), int(window.width)
    target = grid.transform @ Affine.translation(window.col_off, window.row_off)
    values, known = None, np.zeros(shape, bool)
    for rows, cols, below in parts_below(
      dem.path, target, shape, self._to_dem, reduced, _MOST_PIXELS // reduction**2
    ):
      corner = target @ Affine.translation(cols.start, rows.start)
      for box, place in below:
        source = measure(box, reduction)
        finite = np.asarray(np.isfinite(source).all(axis=-1))
        some, found = resampling.bilinear(
          np.where(finite[..., None], source, 0.0), finite, (place, dem.grid.crs), (corner, grid.crs),
          known[rows, cols].shape,
        )
        values = np.zeros((*shape, source.shape[-1])) if values is None else values
        found &= ~known[rows, cols]
        values[rows, cols][found] = some[found]
        known[rows, cols] |= found
    return np.zeros((*shape, 2)) if values is None else values, known

  def _gradients(self, window: Window, reduction: int) -> np.ndarray:
    """Returns the gradients to the east and to the north, f64[h, w, 2]."""
    return np.stack(self._dem.gradients(window, reduction)[1:], axis=-1)

  def _curvature(self, window: Window, reduction: int) -> np.ndarray:
    """Returns the angle whose tangent is 100 m times the curvature, in degrees, f64[h, w, 1].

    The curvature is the negative Laplacian of the heights, from the quadratic surface of Evans (1979):
    above 0 on ridges, below 0 in hollows.
    """
    z = self._dem.heights(window, reduction, 1)
    part = {(i, j): z[1 + i : z.shape[0] - 1 + i, 1 + j : z.shape[1] - 1 + j]
            for i in (-1, 0, 1) for j in (-1, 0, 1)}
    across = sum(part[i, -1] - 2 * part[i, 0] + part[i, 1] for i in (-1, 0, 1)) / 3
    down = sum(part[-1, j] - 2 * part[0, j] + part[1, j] for j in (-1, 0, 1)) / 3
    mixed = (part[1, 1] - part[1, -1] - part[-1, 1] + part[-1, -1]) / 4
    metric = self._dem.inverse_metric(window, reduction)
    laplacian = sum(m[0] ** 2 * across + 2 * m[0] * m[1] * mixed + m[1] ** 2 * down for m in metric)
    return np.degrees(np.arctan(-_CURVED * laplacian))[..., None]

  def _relief(self, window: Window, reduction: int) -> np.ndarray:
    """Returns the range of the known heights within the radius, f64[h, w, 1]; NaN without a height."""
    footprint = _disc(self._dem, window, reduction, self._radius)
    margin = max(footprint.shape) // 2
    z = self._dem.heights(window, reduction, margin)
    highest, lowest = (
      sign * scipy.ndimage.maximum_filter(np.where(np.isnan(z), -np.inf, sign * z), footprint=footprint)
      for sign in (1, -1)
    )
    relief = np.where(np.isnan(z), np.nan, highest - lowest)
    return relief[margin : margin + window.height, margin : margin + window.width, None]


def _pixel_side(dem: Dem, window: Window) -> float:
  """Returns the side of a DEM's pixel in the middle of a window, in metres."""
  middle = Window(window.col_off + window.width // 2, window.row_off + window.height // 2, 1, 1)
  east, north = dem.inverse_metric(middle, 1)
  return float(np.abs(east[0] * north[1] - east[1] * north[0]).item() ** -0.5)


def _disc(dem: Dem, window: Window, reduction: int, radius: float) -> np.ndarray:
  """Returns which pixels around one lie within a radius in metres, bool[2 m + 1, 2 n + 1]."""
  middle = Window(window.col_off + window.width // 2, window.row_off + window.height // 2, 1, 1)
  inverse = np.reshape(dem.inverse_metric(middle, reduction), (2, 2))
  cols, rows = (math.floor(radius * _TOLERANCE * length) for length in np.hypot(*inverse))
  steps = np.meshgrid(np.arange(-cols, cols + 1), np.arange(-rows, rows + 1))
  metres = np.tensordot(np.linalg.inv(inverse.T), np.stack(steps), axes=1)
  return np.hypot(*metres) <= radius * _TOLERANCE

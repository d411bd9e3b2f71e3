"""Reads heights and their gradients from a DEM of any grid, resolution and coordinate system.

A DEM is opened as a scene is. Slopes are those of Horn (1981), as in GDAL's gdaldem, but in metres on
the ellipsoid.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.ndimage
from pyproj import CRS, Transformer
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from lgag_jax.geo import crs_relation
from lgag_jax.geo.grid import GEOD, Grid
from lgag_jax.geo.scene import Scene, open_scene
from lgag_jax.geo.vrt import open_scene_raster
from lgag_jax.imagery import opening, side_files
from lgag_jax.imagery.opening import ImageError

_NODES = 5  # On a side of a block, where the size of a pixel on the ground is computed.
_METRE_NAMES = ("", "m", "metre", "meter", "metres", "meters")
_HEIGHTS = (-11_000.0, 9_000.0)  # Metres. Other values mean missing where a file declares no nodata.
_VOID = -9999.0  # So does this one.


class Dem:
  """An open DEM; `open_dem` creates it. Windows are in pixels, of which `reduction` became one."""

  def __init__(self, scene: Scene, to_wgs84: Transformer):
    self.path, self.grid = scene.path, scene.grid
    self._scene, self._to_wgs84 = scene, to_wgs84

  def heights(self, window: Window, reduction: int, margin: int) -> np.ndarray:
    """Returns the mean known heights of a window and the pixels around it, f64; NaN if missing.

    It has `margin` pixels more on each side. Raises ImageError naming a DEM that is damaged.
    """
    height, width = window.height + 2 * margin, window.width + 2 * margin
    values, valid = self._scene.read(Window(*(
      reduction * length for length in (
        window.col_off - margin, window.row_off - margin, width, height)
    )))
    heights = values[..., 0].astype(np.float64)
    valid &= (heights >= _HEIGHTS[0]) & (heights <= _HEIGHTS[1]) & (heights != _VOID)
    if reduction == 1:
      return np.where(valid, heights, np.nan)
    blocks = height, reduction, width, reduction
    sums, known = (
      part.reshape(blocks).sum((1, 3)) for part in (np.where(valid, heights, 0.0), valid))
    return np.where(known > 0, sums / np.maximum(known, 1), np.nan)

  def gradients(
    self, window: Window, reduction: int
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns heights, and their gradients to the east and to the north, f64[h, w]; NaN if missing."""
    heights = self.heights(window, reduction, 1)
    # Sobel's weights are Horn's; where a neighbour is NaN, so is the result.
    down, across = (scipy.ndimage.sobel(heights, axis)[1:-1, 1:-1] / 8 for axis in (0, 1))
    to_east, to_north = self.inverse_metric(window, reduction)
    east = to_east[0] * across + to_east[1] * down
    return heights[1:-1, 1:-1], east, to_north[0] * across + to_north[1] * down

  def inverse_metric(self, window: Window, reduction: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns what turns gradients per column and row into gradients per metre east, and north.

    Each is f64[2, h, w]. It is computed from the ground's size of pixels at some nodes of the window,
    and interpolated between them.
    """
    cols = reduction * (window.col_off + np.linspace(0, window.width, _NODES))
    rows = reduction * (window.row_off + np.linspace(0, window.height, _NODES))
    col, row = (axis.ravel() for axis in np.meshgrid(cols, rows))
    ends: Any = np.concatenate([col - 0.5, col + 0.5, col, col]), np.concatenate(
      [row, row, row - 0.5, row + 0.5])
    places = self._to_wgs84.transform(*(self.grid.transform @ ends))
    lon, lat = (np.reshape(values, (4, -1)) for values in places)
    with np.errstate(all="ignore"):  # Outside the projection all is infinite or NaN.
      lon_steps = np.radians((np.stack([lon[1] - lon[0], lon[3] - lon[2]]) + 180) % 360 - 180)
      lat_steps = np.radians(np.stack([lat[1] - lat[0], lat[3] - lat[2]]))
      latitude = np.radians(lat.mean(axis=0))
      flattened = 1 - GEOD.es * np.sin(latitude) ** 2
      east = lon_steps * np.cos(latitude) * GEOD.a / np.sqrt(flattened)  # Per column, and per row.
      north = lat_steps * GEOD.a * (1 - GEOD.es) / flattened**1.5
      area = east[0] * north[1] - east[1] * north[0]
      nodes = np.stack([north[1], -north[0], -east[1], east[0]]) / area
    nodes = nodes.reshape(4, _NODES, _NODES)
    inverse = _weights(window.height) @ nodes @ _weights(window.width).T / reduction
    return inverse[:2], inverse[2:]


@contextlib.contextmanager
def open_dem(path: pathlib.Path) -> Iterator[Dem]:
  """Opens a DEM; raises ImageError naming a file that is not one, and the remedy."""
  if not path.is_file():
    raise ImageError(
      f"--dem={path}: no such file. Of several tiles make one mosaic first: gdalbuildvrt dem.vrt "
      "tiles/*.tif"
    )
  with open_scene_raster(path) as raster, opening.error_context(path):
    kinds = [kind for kind in raster.colorinterp if kind != ColorInterp.alpha]
    beside = "" if raster.driver == "VRT" else side_files.read_notes(path).unit
    unit = (beside or raster.units[0] or "").strip().lower()
  if len(kinds) != 1 or ColorInterp.palette in kinds:
    what = f"{len(kinds)} bands" if len(kinds) != 1 else "a palette of colours"
    raise ImageError(
      f"--dem={path} has {what}, but a DEM has one band of heights in metres. If band 1 holds them: "
      "gdal_translate -b 1 in.tif dem.tif"
    )
  with open_scene(path, 1, bands=(1,)) as scene:
    if (to_wgs84 := scene.grid.to_wgs84()) is None:
      system = crs_relation.full_name(scene.grid.crs) if scene.grid.crs else "none"
      raise ImageError(
        f"--dem={path} has no place on the Earth (CRS: {system}). Give it its true CRS, such as "
        "gdal_edit.py -a_srs EPSG:32633."
      )
    if unit not in _METRE_NAMES or _vertical_unit(scene.grid) != 1:
      raise ImageError(
        f"--dem={path} gives heights in {unit or 'a unit of its CRS'}, but they must be in metres. For "
        "feet: gdal_calc.py -A in.tif --calc='A*0.3048' --type=Float32 --outfile=dem.tif, then "
        "gdal_edit.py -units m -a_srs with a CRS without heights."
      )
    yield Dem(scene, to_wgs84)


def _vertical_unit(grid: Grid) -> float:
  """Returns the metres of the unit of heights in a compound CRS, 1 for any other."""
  assert grid.crs is not None
  for part in CRS.from_wkt(grid.crs.to_wkt()).sub_crs_list:
    if part.is_vertical:
      return part.axis_info[0].unit_conversion_factor
  return 1.0


def _weights(length: int) -> np.ndarray:
  """Returns the weights f64[length, _NODES] that interpolate nodes linearly at centres of pixels."""
  places = (np.arange(length) + 0.5) / length * (_NODES - 1)
  return np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(_NODES)))

"""Measures the terrain under the regions of a map, and drops those that are too flat (--min_slope)."""

import collections
import contextlib
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import rasterio.features
import shapely
from affine import Affine

from lgag_jax.geo import terrain
from lgag_jax.geo.dem import Dem, open_dem
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.terrain import Terrain
from lgag_jax.mapping import rasters
from lgag_jax.mapping.rasters import NO_DATA
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import files

_LOG = logging.getLogger(__name__)

_LEAST_SHARE = 0.5  # Of a region's ground that the DEM must cover before the region is dropped.


class TerrainFilter:
  """The terrain of one scene, and the pixels of its flat regions, which lie on disk."""

  def __init__(self, dem: Dem, path: pathlib.Path, grid: Grid, options: Options, folder: pathlib.Path):
    self.flat_regions = collections.Counter()  # Dropped, by class from 1.
    self._dem, self._path, self._grid, self._min_slope = dem, path, grid, options.min_slope
    self._name = pathlib.Path(options.dem).name
    self._polygons = self._kept_unmeasured = 0
    self._flat_path = folder / "flat.u8"
    if self.drops:
      folder.mkdir(parents=True, exist_ok=True)
      with files.new_file(self._flat_path) as file:
        file.truncate(grid.height * grid.width)

  @property
  def drops(self) -> bool:
    """Whether flat regions are dropped."""
    return self._min_slope > 0

  def examine(
    self, class_index: np.ndarray, outlines: np.ndarray, is_polygon: np.ndarray
  ) -> tuple[list[Terrain], np.ndarray]:
    """Returns the terrain under each region, and bool[N], which ones are flat and so dropped.

    `outlines` are in whole pixels. Only those that `is_polygon` marks become polygons; the others are
    only measured if flat ones are dropped, since they are in the mask, too.
    """
    terrains, flat = [Terrain()] * len(outlines), np.zeros(len(outlines), bool)
    numbers = np.arange(len(outlines)) if self.drops else np.flatnonzero(is_polygon)
    measured = terrain.measure(self._dem, outlines[numbers], self._grid)
    for i, under in zip(numbers, measured, strict=True):
      terrains[i] = under
      slope = under.slope_mean if under.share >= _LEAST_SHARE else None
      if slope is not None and slope < self._min_slope:
        flat[i] = True
        self.flat_regions[int(class_index[i])] += 1
        self._mark(outlines[i])
      elif is_polygon[i]:
        self._polygons += 1
        self._kept_unmeasured += slope is None
    return terrains, flat

  def _mark(self, outline: shapely.Polygon) -> None:
    left, top, right, bottom = (int(edge) for edge in outline.bounds)
    geometry, rows = shapely.geometry.mapping(outline), max(1, rasters.PIXELS_AT_ONCE // (right - left))
    for row in range(top, bottom, rows):
      stop = min(row + rows, bottom)
      inside = rasterio.features.geometry_mask(
        [geometry], (stop - row, right - left), Affine.translation(left, row), invert=True
      )
      self._mark_pixels(row, left, inside)

  def _mark_pixels(self, top: int, left: int, flat: np.ndarray) -> None:
    """Sets u8[H, W] on disk to 1 where `flat`, bool[h, w] from its top left corner on, is True."""
    with self._flat_path.open("r+b", buffering=0) as file:
      for row, inside in enumerate(flat, top):
        at = row * self._grid.width + left
        marked = np.frombuffer(os.pread(file.fileno(), len(inside), at), np.uint8) | inside
        files.write_at(file, marked.tobytes(), at)

  def without_flat(self, first: int, mask: np.ndarray) -> np.ndarray:
    """Returns rows of the mask u8[n, W], from row `first` on, with flat regions as background."""
    if not self.drops:
      return mask
    flat = np.fromfile(self._flat_path, np.uint8, mask.size, offset=first * mask.shape[1]) == 1
    flat = flat.reshape(mask.shape)
    return np.where(flat & (mask != NO_DATA), np.uint8(0), mask)

  def finish(self) -> list[str]:
    """Logs what was dropped; returns what a reader of the map must check."""
    if self.drops:
      _LOG.info(
        "%s: %d regions with a mean slope under %g degrees are not mapped (--min_slope).", self._path,
        sum(self.flat_regions.values()), self._min_slope,
      )
    if not self._kept_unmeasured:
      return []
    drop = ", so --min_slope does not drop them" if self.drops else ""
    return [
      f"{self._kept_unmeasured} of {self._polygons} polygons lie where {self._name} has no data, or "
      f"data for less than half of them{drop}. Check that it covers the scene."
    ]


@contextlib.contextmanager
def open_filter(
  path: pathlib.Path, grid: Grid, options: Options, folder: pathlib.Path
) -> Iterator[TerrainFilter | None]:
  """Yields the filter of the scene `path`; None without a DEM, or a place on the Earth."""
  if not options.dem or grid.to_wgs84() is None:
    yield None
    return
  with open_dem(pathlib.Path(options.dem)) as dem:
    yield TerrainFilter(dem, path, grid, options, folder)


def check(options: Options) -> None:
  """Raises ImageError naming a DEM that cannot be used."""
  if options.dem:
    with open_dem(pathlib.Path(options.dem)):
      pass


def without_dem(paths: list[pathlib.Path], options: Options) -> list[pathlib.Path]:
  """Returns the scenes without the DEM, which may lie beside them; ValueError if nothing else does."""
  scenes = [path for path in paths if not options.dem or not path.samefile(options.dem)]
  if not scenes:
    raise ValueError(f"--input holds only --dem={options.dem}: name the scene to map.")
  return scenes


def grid_warnings(grid: Grid, options: Options) -> Sequence[str]:
  """Returns why a DEM cannot be used for a scene."""
  if not options.dem or grid.to_wgs84() is not None:
    return ()
  return (
    "Its place on the Earth is unknown, so --dem is not used: no polygon has a slope, and none is "
    "dropped. Give the scene its CRS first.",
  )

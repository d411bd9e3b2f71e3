"""The density of landslides in a scene: the mapped share of each cell of a grid, and their number.

The cells follow the scene's rows and columns. Pixels and landslides are added as they are read, so that
memory only holds the cells.
"""

import math
import pathlib

import numpy as np
from affine import Affine

from lgag_jax.geo.grid import Grid
from lgag_jax.imagery.opening import ImageError
from lgag_jax.mapping import ground_measures, qgis_style, rasters
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.mapping.rasters import NO_DATA
from lgag_jax.runtime import files

BANDS = ("mapped_share", "landslides_per_km2")
_LEAST_CELLS = 20  # Along the longer side of a scene. With sides of 1, 2 or 5, it has 51 at most.
_LEAST_REST = 0.1  # Of a cell at the border. A smaller rest belongs to the cell before it.
_MOST_CELLS = 60  # That a file may have.
_LEAST_PIXELS = 8  # Along the side of a cell: of fewer, its mapped share says no more than the mask.


class Cells:
  """What a map adds to the cells of a grid; `cells_of` creates it."""

  def __init__(self, grid: Grid, side: float, pixel_size: tuple[float, float]):
    """Makes cells of `side` metres; `pixel_size` is that of `Grid.pixel_size`."""
    self.side = side
    steps = side / pixel_size[1], side / pixel_size[0]  # Pixels down, and across.
    self._rows, self._cols = map(_cell_numbers, (grid.height, grid.width), steps)
    shape = self._rows[-1] + 1, self._cols[-1] + 1
    self._pixels = steps[0] * steps[1]  # Of a cell.
    self._first_cols = np.searchsorted(self._cols, np.arange(shape[1]))
    self.valid, self.mapped, self.counts = (np.zeros(shape, np.int64) for _ in range(3))
    self.grid = Grid(*shape, grid.crs, grid.transform @ Affine.scale(steps[1], steps[0]))

  @property
  def landslides(self) -> int:
    """Returns the number of landslides so far."""
    return int(self.counts.sum())

  def add_rows(self, first: int, mask: np.ndarray) -> None:
    """Adds rows of the mask u8[n, W], from row `first` on."""
    rows = self._rows[first : first + len(mask)]
    valid = mask != NO_DATA
    for sums, pixels in ((self.valid, valid), (self.mapped, valid & (mask > 0))):
      np.add.at(sums, rows, np.add.reduceat(pixels, self._first_cols, axis=1, dtype=np.int64))

  def add_landslide(self, landslide: Landslide) -> None:
    """Adds a landslide to the cell of its central pixel."""
    row, col = landslide.pixel
    self.counts[self._rows[row], self._cols[col]] += 1

  def bands(self) -> np.ndarray:
    """Returns f32[rows, cols, 2]: the mapped share, 0..1, and the number per km²; NaN without data.

    Both are of the pixels with data.
    """
    row, col = np.indices(self.valid.shape)
    centres = np.stack([col.ravel() + 0.5, row.ravel() + 0.5], axis=1)
    areas = ground_measures.pixel_areas(centres, self.grid).reshape(self.valid.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
      share = self.mapped / self.valid
      density = self.counts / (areas / 1e6 * self.valid / self._pixels)
    values = np.stack([share, density], axis=-1)
    return np.where(self.valid[..., None] > 0, values, np.nan).astype(np.float32)


def cells_of(grid: Grid) -> Cells | None:
  """Returns empty cells over a scene; None if its place is unknown, or a cell had too few pixels."""
  size = grid.pixel_size()
  if size is None:
    return None
  side = _round_down(max(grid.width * size[0], grid.height * size[1]) / _LEAST_CELLS)
  return Cells(grid, side, size) if side >= _LEAST_PIXELS * max(size) else None


def _cell_numbers(length: int, step: float) -> np.ndarray:
  """Returns the number of the cell that each of `length` pixels lies in, i64[length]."""
  cells = max(1, math.ceil(length / step - _LEAST_REST))
  return np.minimum((np.arange(length) + 0.5) / step, cells - 1).astype(int)


def _round_down(length: float) -> float:
  """Returns the largest length of 1, 2 or 5 times a power of ten that is not larger."""
  length *= 1 + 1e-9
  power = 10.0 ** math.floor(math.log10(length))
  return power * max(digit for digit in (1, 2, 5) if digit * power <= length)


def file_names(stem: str) -> list[str]:
  """Returns the files of `write` below an output."""
  return [f"density/{stem}.tif", f"density/{stem}.qml"]


def write(cells: Cells, output: pathlib.Path, stem: str) -> None:
  """Writes a GeoTIFF of both bands, which names the side of its cells, and a QGIS style."""
  bands, path = cells.bands(), output / "density" / stem
  with rasters.write_and_open(
    path, cells.grid, len(BANDS), bands.dtype, iter([(0, bands)]), BANDS, averaged=True,
    product="density",
    description=(
      f"Landslides in cells of {cells.side:g} m. Band 1: share of the area with data that is mapped. "
      "Band 2: landslides per km2 of area with data."
    ),
  ):
    pass
  top = float(np.nanmax(bands[..., 1]))
  files.write_text(output / "density" / f"{stem}.qml", qgis_style.density_style(top))


def read(path: pathlib.Path) -> np.ndarray:
  """Returns what `write` wrote, f32[rows, cols, 2]; raises ImageError naming a file that is damaged."""
  with rasters.open_map_raster(path, len(BANDS)) as raster:
    if max(raster.dataset.shape) > _MOST_CELLS:
      raise ImageError(f"{path} is not the density of a map. {rasters.REMEDY}")
    return np.stack([raster.read(band).astype(np.float32) for band in (1, 2)], axis=-1)

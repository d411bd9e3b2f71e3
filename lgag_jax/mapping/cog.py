"""The rasters of a map: cloud-optimised GeoTIFFs with exactly the scene's grid, PNGs without one."""

import pathlib
from collections.abc import Iterator

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from lgag_jax.geo.formats import SCENE_OPTIONS
from lgag_jax.geo.grid import Grid
from lgag_jax.runtime import files

NO_DATA = 255  # In masks, and in scores of whole percent.
_BLOCK = 512


def encode(scores: np.ndarray, valid: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """Returns scores [h, w, C] in [0, 1] as they are written: whole percent, or as they are."""
  stored = np.round(scores * 100).astype(dtype) if dtype == np.uint8 else scores.astype(dtype)
  np.copyto(stored, NO_DATA if dtype == np.uint8 else np.nan, where=~valid[..., None])
  return stored


def file_of(path: pathlib.Path, grid: Grid, bands: int, dtype: np.dtype) -> pathlib.Path:
  """Returns the file that `write` writes: `path` and a suffix."""
  png = not grid.georeferenced and dtype == np.uint8 and bands in (1, 3, 4)
  return path.with_name(path.name + (".png" if png else ".tif"))


def write(
  path: pathlib.Path, grid: Grid, bands: int, dtype: np.dtype, rows: Iterator[tuple[int, np.ndarray]],
  names: tuple[str, ...], *, averaged: bool, colours: dict[int, tuple[int, int, int]] | None = None,
) -> pathlib.Path:
  """Writes rows, (first row, [n, W, bands]) from top to bottom; returns the file, as `file_of` does.

  Overviews are averages of scores, or for classes the nearest pixel. A raster without a georeference
  becomes a PNG where PNG can hold it; `colours` are what viewers show its values in. An OSError names
  the file when the disk is full.
  """
  final = file_of(path, grid, bands, dtype)
  png = final.suffix == ".png"
  profile = {
    "driver": "GTiff", "height": grid.height, "width": grid.width, "count": bands, "dtype": dtype.name,
    "crs": grid.crs, "transform": grid.transform, "BIGTIFF": "IF_SAFER",
    "nodata": NO_DATA if dtype == np.uint8 else np.nan,
  }
  if png:
    profile["nodata"] = None  # A PNG's is a colour that viewers would hide.
  plain = final.with_name(f".rows-{final.name[:200]}")
  options = {} if png else {
    "compress": "DEFLATE", "blocksize": _BLOCK, "BIGTIFF": "IF_SAFER", "NUM_THREADS": "2",
    "overview_resampling": "AVERAGE" if averaged else "NEAREST",
  }
  with files.atomic_path(final) as partial, rasterio.Env(**SCENE_OPTIONS):
    try:
      with rasterio.open(plain, "w", **profile) as raster:
        for first, values in rows:
          window = Window(0, first, grid.width, len(values))
          raster.write(np.moveaxis(values, -1, 0), window=window)
        for band, name in enumerate(names, 1):
          raster.set_band_description(band, name)
        if png and colours:
          raster.write_colormap(1, colours)
      rasterio.shutil.copy(plain, partial, driver="PNG" if png else "COG", **options)
      _check(partial)
    except (rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError) as error:
      raise OSError(f"{final} could not be written: {error}") from error
    finally:
      plain.unlink(missing_ok=True)
      for left in final.parent.glob(f"{partial.name}.*"):  # GDAL's own side files.
        left.unlink()
  return final


def _check(path: pathlib.Path) -> None:
  """Reads a raster through: GDAL may keep a full disk to itself."""
  with rasterio.open(path) as raster:
    for _, window in raster.block_windows(1):
      raster.read(window=window)


def read_small(path: pathlib.Path, shape: tuple[int, int]) -> np.ndarray:
  """Reads a raster's first band at `shape`, each pixel the nearest of the file or of its overviews."""
  with rasterio.Env(**SCENE_OPTIONS), rasterio.open(path) as raster:
    return raster.read(1, out_shape=shape)

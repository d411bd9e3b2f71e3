"""A map's rasters: cloud-optimised GeoTIFFs on the scene's grid, or PNGs without a georeference."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.vrt import SCENE_OPTIONS
from lgag_jax.imagery import map_products, opening
from lgag_jax.imagery.opening import ImageError
from lgag_jax.runtime import files

NO_DATA = 255  # In masks, and in scores as whole percent.
_TILE_SIDE = _MOST_BLOCK_ROWS = 512
_MOST_BANDS = 254  # Classes that a mask can tell apart.
PIXELS_AT_ONCE = 1 << 21
REMEDY = "Delete it, and run the same command again."


@dataclasses.dataclass(frozen=True)
class MapRaster:
  """An open raster of a map; errors name `path`, its final place, and the remedy."""

  path: pathlib.Path
  dataset: rasterio.DatasetReader

  @property
  def grid(self) -> Grid:
    with opening.error_context(self.path, REMEDY):
      return Grid.from_raster(self.dataset, self.path)

  def read(
    self, band: int, window: Window | None = None, *, shape: tuple[int, int] | None = None
  ) -> np.ndarray:
    """Reads a band; `shape` takes nearest pixels. Raises ImageError if the file is damaged."""
    with opening.error_context(self.path, REMEDY):
      return self.dataset.read(band, window=window, out_shape=shape)

  def row_blocks(self) -> Iterator[Window]:
    """Yields windows of whole rows from the top, each of about 2 million pixels or one tile high."""
    tile = self.dataset.block_shapes[0][0]
    height, width = self.dataset.shape
    rows = tile * max(1, PIXELS_AT_ONCE // (tile * width))
    for top in range(0, height, rows):
      yield Window(0, top, width, min(rows, height - top))


@contextlib.contextmanager
def open_map_raster(path: pathlib.Path, bands: int | None) -> Iterator[MapRaster]:
  """Opens a raster of `bands` bands for reading; raises ImageError naming any other file.

  `bands` is None for one per class, whose number is unknown. A foreign output may name a
  raster of any number of bands, or of blocks whose rows fill the memory.
  """
  with rasterio.Env(**SCENE_OPTIONS), opening.open_raster(path) as dataset:
    opening.check_extent(dataset, path)
    if dataset.count > _MOST_BANDS or bands not in (None, dataset.count):
      raise ImageError(
        f"{path} has {dataset.count} bands, but it must have {bands or 'some'} and at most "
        f"{_MOST_BANDS}. {REMEDY}"
      )
    if (types := set(dataset.dtypes)) not in ({"uint8"}, {"float32"}):
      raise ImageError(
        f"{path} holds {', '.join(sorted(types))}, but a map holds uint8 or float32. {REMEDY}"
      )
    if (rows := dataset.block_shapes[0][0]) > _MOST_BLOCK_ROWS:
      raise ImageError(
        f"{path} has blocks of {rows} rows, but a map has at most {_MOST_BLOCK_ROWS}. {REMEDY}"
      )
    yield MapRaster(path, dataset)


def encode(scores: np.ndarray, valid: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """Returns scores [h, w, C] in [0, 1] as files hold them: whole percent for uint8, else unchanged.

  Where `valid`, bool[h, w], is False, they become 255 or NaN.
  """
  encoded = np.round(scores * 100).astype(dtype) if dtype == np.uint8 else scores.astype(dtype)
  np.copyto(encoded, NO_DATA if dtype == np.uint8 else np.nan, where=~valid[..., None])
  return encoded


def path_with_suffix(path: pathlib.Path, grid: Grid, bands: int, dtype: np.dtype) -> pathlib.Path:
  """Appends .png to a path if the raster has no georeference and PNG can hold it, else .tif."""
  png = not grid.georeferenced and dtype == np.uint8 and bands in (1, 3, 4)
  return path.with_name(path.name + (".png" if png else ".tif"))


@contextlib.contextmanager
def write_and_open(
  path: pathlib.Path, grid: Grid, bands: int, dtype: np.dtype, rows: Iterator[tuple[int, np.ndarray]],
  names: tuple[str, ...], *, averaged: bool, colours: dict[int, tuple[int, int, int]] | None = None,
  description: str = "", product: str = "",
) -> Iterator[MapRaster]:
  """Writes a raster and yields it, open for reading, once its file is whole and in place.

  `rows` are (first row, [n, W, bands]) from top to bottom. The suffix is that of `path_with_suffix`.
  Overviews are averages if `averaged`, else the nearest pixels. Viewers show a PNG in `colours`, and
  the `description` of a GeoTIFF. `product`, its folder in a map, tells copies of it from masks.
  Raises OSError naming the file if it cannot be written, for example because the disk is full.
  """
  # GDAL takes a relative path such as s3:x for an address.
  final = path_with_suffix(path.absolute(), grid, bands, dtype)
  tags = {"TIFFTAG_IMAGEDESCRIPTION": description, map_products.TAG: product}
  tags = {name: text for name, text in tags.items() if text}
  with contextlib.ExitStack() as stack:
    stack.enter_context(rasterio.Env(**SCENE_OPTIONS))
    with files.atomic_path(final) as partial:
      uncompressed = final.with_name(f".rows-{final.name[:200]}")
      try:
        _write_rows(uncompressed, grid, bands, dtype, rows, names, colours, png=final.suffix == ".png")
        if tags and final.suffix == ".tif":
          with rasterio.open(uncompressed, "r+") as raster:
            raster.update_tags(**tags)
        _convert(uncompressed, partial, averaged=averaged)
        driver = "PNG" if final.suffix == ".png" else "GTiff"
        dataset = stack.enter_context(rasterio.open(partial, driver=driver))
        for _, window in dataset.block_windows(1):  # GDAL may not report that the disk is full.
          dataset.read(window=window)
      except (RasterioError, CPLE_BaseError) as error:
        raise files.write_error(final, error) from error
      finally:
        uncompressed.unlink(missing_ok=True)
        for side_file in final.parent.glob(f"{partial.name}.*"):  # GDAL's own.
          side_file.unlink()
    yield MapRaster(final, dataset)


def _write_rows(path, grid, bands, dtype, rows, names, colours, *, png: bool) -> None:
  """Writes an uncompressed GeoTIFF row by row, which a COG or a PNG cannot be written in."""
  nodata = NO_DATA if dtype == np.uint8 else np.nan
  with rasterio.open(
    path, "w", driver="GTiff", height=grid.height, width=grid.width, count=bands, dtype=dtype.name,
    crs=grid.crs, transform=grid.transform, BIGTIFF="IF_SAFER",
    nodata=None if png else nodata,  # In a PNG it would be a colour that viewers hide.
  ) as raster:
    for first, values in rows:
      window = Window(0, first, grid.width, len(values))
      raster.write(np.moveaxis(values, -1, 0), window=window)
    for band, name in enumerate(names, 1):
      raster.set_band_description(band, name)
    if png and colours:
      raster.write_colormap(1, colours)


def _convert(source: pathlib.Path, target: pathlib.Path, *, averaged: bool) -> None:
  if target.suffix == ".png":
    rasterio.shutil.copy(source, target, driver="PNG")
  else:
    rasterio.shutil.copy(
      source, target, driver="COG", compress="DEFLATE", blocksize=_TILE_SIDE, BIGTIFF="IF_SAFER",
      NUM_THREADS="2", overview_resampling="AVERAGE" if averaged else "NEAREST",
    )

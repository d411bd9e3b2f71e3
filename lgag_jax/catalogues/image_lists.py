"""Lists the images of a file, a folder, a glob, or a text file with an address in each line."""

import csv
import logging
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import rasterio
import shapely
from shapely.geometry.base import BaseGeometry

from lgag_jax.catalogues import addresses, open_image, value_types
from lgag_jax.catalogues.images import Band, Image
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery import listing, opening, tables
from lgag_jax.imagery.opening import ImageError
from lgag_jax.options.area import Imagery
from lgag_jax.runtime import printable

_LOG = logging.getLogger(__name__)

_LIST_SUFFIX = ".txt"
_MAX_LINES = 2_000_000  # Each takes the memory of a text, however short.
_EDGE_PARTS = 16  # Of each side of a footprint: a straight side is curved in degrees.


def listed_addresses(source: str, settings: Imagery) -> list[str]:
  """Returns the addresses of a list, folder, glob or single image."""
  if not source.lower().endswith(_LIST_SUFFIX):
    if addresses.is_remote(source):
      return [source]
    found = [str(path.absolute()) for path in listing.scene_files(source)]
    for text in listing.left_out(source):
      _LOG.warning("%s", text)
    return found
  if addresses.is_remote(source):
    raise ValueError(f"--input={source}: a list must be on this disk. Download it, and give --remote.")
  path = pathlib.Path(source)
  if not path.is_file():
    raise FileNotFoundError(f"--input={source}: no such file.")
  try:
    text = tables.read_text(path)
  except (csv.Error, UnicodeDecodeError) as error:
    raise ValueError(f"--input={source} is not text in UTF-8: {error}. Save it as such.") from error
  if text.count("\n") + text.count("\r") > _MAX_LINES:
    raise ValueError(f"--input={source} has more than {_MAX_LINES} lines: divide the list.")
  lines = [line for line in map(str.strip, text.splitlines()) if line and line[0] != "#"]
  if not lines:
    raise ValueError(f"--input={source} names no image: write one path or address a line.")
  base = str(path.absolute())
  return list(dict.fromkeys(
    addresses.resolve(line, base, allow_remote=settings.remote) for line in lines
  ))


def read_images(found: Sequence[str], channels: int, settings: Imagery) -> list[Image]:
  """Returns the images of addresses, in their order; opens each for its bands and its footprint."""
  with ThreadPoolExecutor(settings.readers) as pool:
    return list(pool.map(lambda address: _read(address, channels, settings), found))


def file_version(address: str) -> str:
  """Returns what changes when a local file changes; "" for a file at a server."""
  return "" if addresses.is_remote(address) else listing.file_key(pathlib.Path(address))


def _read(address: str, channels: int, settings: Imagery) -> Image:
  def read() -> tuple[tuple[Band, ...], tuple[np.dtype, ...], BaseGeometry]:
    with open_image.open_image(address, settings) as raster, opening.error_context(address):
      bands = tuple(Band(address, number) for number in _numbers(raster, address, channels, settings))
      footprint = footprint_of(raster, address)
      return bands, tuple(value_types.type_as_read(raster, band, settings) for band in bands), footprint

  bands, types, footprint = open_image.repeated(read, address, settings)
  source = printable.without_queries(address)
  return Image(
    pathlib.PurePosixPath(source).name, bands, footprint, source=source,
    version=file_version(address), types=types,
  )


def _numbers(
  raster: rasterio.DatasetReader, address: str, channels: int, settings: Imagery
) -> tuple[int, ...]:
  names = settings.assets or tuple(str(number) for number in range(1, channels + 1))
  known = {name: number for number, name in enumerate(raster.descriptions, 1) if name}
  known |= {str(number): number for number in range(1, raster.count + 1)}
  if missing := [name for name in names if name not in known]:
    raise ImageError(
      f"{address} has no band {missing[0]!r}: it has {', '.join(known)}. Choose the model's {channels} "
      "bands by number or name: --assets=4,3,2."
    )
  return tuple(known[name] for name in names)


def footprint_of(raster: rasterio.DatasetReader, address: str) -> BaseGeometry:
  """Returns a raster's outline in longitude and latitude; raises ImageError for one without a place."""
  grid = Grid.from_raster(raster, pathlib.Path(address))
  transformer = grid.to_wgs84()
  if transformer is None or grid.transform.is_identity:
    raise ImageError(
      f"{address} has no place on the Earth, so it is in no area. Map it with --mode=predict, or give "
      "it its CRS: gdal_edit.py -a_srs EPSG:32633."
    )
  height, width = grid.height, grid.width
  edge = shapely.segmentize(shapely.box(0, 0, width, height), max(height, width) / _EDGE_PARTS)
  points = np.array([grid.transform @ tuple(point) for point in shapely.get_coordinates(edge)])
  degrees = np.stack(transformer.transform(*points.T), axis=1)
  if not np.isfinite(degrees).all():
    raise ImageError(f"{address}: its corners are nowhere on the Earth. Check its CRS.")
  if np.ptp(degrees[:, 0]) > 180:  # It crosses the 180th meridian.
    degrees[:, 0] %= 360
  return _within_180(shapely.Polygon(degrees))


def _within_180(polygon: BaseGeometry) -> BaseGeometry:
  """Returns a polygon that reaches beyond 180 degrees as two parts."""
  east = shapely.intersection(polygon, shapely.box(-180, -90, 180, 90))
  west = shapely.intersection(polygon, shapely.box(180, -90, 540, 90))
  if west.is_empty:
    return east
  return shapely.union(east, shapely.transform(west, lambda points: points - [360, 0]))



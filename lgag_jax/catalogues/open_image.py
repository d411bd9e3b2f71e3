"""Opens the files of images, on this disk or at a server, with GDAL's TIFF driver only at a server."""

import contextlib
import logging
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from lgag_jax.catalogues import addresses
from lgag_jax.geo.vrt import SCENE_OPTIONS
from lgag_jax.imagery import opening, side_files
from lgag_jax.imagery.opening import ImageError
from lgag_jax.options.area import Imagery
from lgag_jax.runtime import printable

_LOG = logging.getLogger(__name__)

_Value = TypeVar("_Value")
_PAUSE = 0.5  # Seconds before the first repetition; doubled for each further one.
_LONGEST_PAUSE = 30.0
_SLOWEST = 1024  # Bytes a second; a server that stays below it for --timeout counts as stalled.
_READ_AHEAD = 1 << 16  # Bytes of a request, at least: one tile of a COG.


def gdal_options(settings: Imagery) -> dict[str, Any]:
  """Returns GDAL's options for reading: only the file itself, and a server only within limits."""
  seconds = max(1, round(settings.timeout))
  return SCENE_OPTIONS | {
    "GDAL_HTTP_TIMEOUT": 10 * seconds, "GDAL_HTTP_CONNECTTIMEOUT": seconds,
    "GDAL_HTTP_LOW_SPEED_TIME": seconds, "GDAL_HTTP_LOW_SPEED_LIMIT": _SLOWEST,
    "GDAL_HTTP_MAX_RETRY": settings.retries, "GDAL_HTTP_RETRY_DELAY": _PAUSE,
    "GDAL_HTTP_MULTIPLEX": "YES", "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": _READ_AHEAD, "CPL_VSIL_CURL_CHUNK_SIZE": _READ_AHEAD,
    # A part that arrived damaged must not be kept for the next try.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/", "CPL_VSIL_CURL_USE_HEAD": "NO",
  }


@contextlib.contextmanager
def open_image(address: str, settings: Imagery) -> Iterator[rasterio.DatasetReader]:
  """Opens a file of an image; raises ImageError naming a missing, unsupported or unsafe one.

  Its scale and offset, if any, are not applied.
  """
  with rasterio.Env(**gdal_options(settings)):
    if not addresses.is_remote(address):
      _refuse_side_files(pathlib.Path(address))
      with opening.open_raster(pathlib.Path(address), allow_scale=True) as raster:
        yield raster
      return
    with opening.error_context(address, "Check the address and the server."):
      # Other drivers may follow references to files and addresses.
      raster = rasterio.open(addresses.gdal_name(address), driver="GTiff")
    with raster:
      opening.check_structure(raster, address, allow_scale=True)
      yield raster


def _refuse_side_files(path: pathlib.Path) -> None:
  """Raises ImageError if a file beside an image changes it: images at a server have none."""
  mask = side_files.beside(path, ".msk")
  if mask or side_files.read_notes(path) != side_files.Notes():
    raise ImageError(
      f"{mask or f'{path}.aux.xml'} changes its image, and --mode=map reads images alone. Write a copy "
      f"that holds all: gdal_translate --config GDAL_TIFF_INTERNAL_MASK YES {path.name} new.tif"
    )


def repeated(read: Callable[[], _Value], address: str, settings: Imagery) -> _Value:
  """Returns what `read` returns; repeats it, with growing pauses, if a server fails."""
  tries = settings.retries if addresses.is_remote(address) else 0
  for number in range(tries):
    try:
      return read()
    except (ImageError, RasterioError, CPLE_BaseError, OSError) as error:
      pause = min(_PAUSE * 2**number, _LONGEST_PAUSE)
      text = printable.without_queries(f"{address}: {error}")
      _LOG.info("%s. Trying again in %g s.", text.rstrip("."), pause)
      time.sleep(pause)
  return read()

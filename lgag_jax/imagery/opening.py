"""Opens PNG, JPEG, TIFF and JPEG 2000 files, trusting none, with errors that name the file.

Files may come from anywhere, so nothing but the file itself is opened: not what it refers to, not what
lies beside it (.aux.xml, .msk, .ovr, world files), and what it unpacks to is bounded beforehand. An
animated PNG counts as its default image, as its standard has it; a TIFF of several pages is refused.
"""

import contextlib
import os
import pathlib
import stat
import warnings
from collections.abc import Iterator

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from lgag_jax.imagery import jpeg2000

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".jp2")
# GDAL's shortcut for whole PNGs hands on garbage for a truncated file without an error.
os.environ.setdefault("GDAL_PNG_WHOLE_IMAGE_OPTIM", "NO")
# Patches seldom carry a georeference, and need none.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
# GDAL passes alpha over where there is a nodata value; here both count.
warnings.filterwarnings("ignore", category=NodataShadowWarning)
# How files begin, and the only GDAL drivers that open them: others follow references to files and URLs.
_DRIVERS = {
  b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"\0\0\0\x0cjP  ": "JP2OpenJPEG",
  b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff",
}
# Without its list of a folder GDAL looks at no side file, where a mask may be a VRT of anything.
OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
MAX_BYTES = 1 << 30  # A larger window is refused before memory is taken for it.
_MAX_BLOCK_BYTES = 1 << 29  # Of what a file stores as one piece: unpacked whole for any window.
_MOST_ERROR = 300  # Characters of GDAL's messages, which may quote a whole VRT.
_REMEDY = "Restore it or set data.on_bad_image='skip'."


class ImageError(ValueError):
  """An image that cannot be used; the message names the file."""


@contextlib.contextmanager
def naming(path: pathlib.Path | str, remedy: str = _REMEDY) -> Iterator[None]:
  """Turns GDAL's errors into an ImageError that names the file."""
  try:
    yield
  # Properties of a raster raise GDAL's own errors, which rasterio does not turn into its own.
  except (RasterioError, CPLE_BaseError) as error:
    # Where rasterio says no more than that reading failed, GDAL's own words are the cause.
    cause = error.__cause__ or error.__context__ if "previous exception" in str(error) else None
    text = str(cause or error).rstrip(".")[:_MOST_ERROR]
    raise ImageError(f"{path} is damaged: {text}. {remedy}") from error


def open_raster(path: pathlib.Path, most_block_bytes: int = _MAX_BLOCK_BYTES) -> rasterio.DatasetReader:
  """Opens a raster; raises ImageError naming a file that is missing, no image, or not to be trusted."""
  return open_by(_driver(path), path, path.absolute(), most_block_bytes)


def open_by(
  driver: str, path: pathlib.Path, source: pathlib.Path | str,
  most_block_bytes: int = _MAX_BLOCK_BYTES,
) -> rasterio.DatasetReader:
  """Opens `source`, what GDAL is given for `path`, by one driver; raises ImageError naming `path`."""
  try:
    if driver == "JP2OpenJPEG":
      jpeg2000.check(path)
    with rasterio.Env(**OPTIONS):
      raster = rasterio.open(source, driver=driver)
  except (RasterioError, CPLE_BaseError, ValueError, OSError) as error:
    text = str(error)[:_MOST_ERROR]
    raise ImageError(f"{path} cannot be opened as an image: {text}") from error
  try:
    with naming(path):
      _check_structure(raster, path, most_block_bytes)
  except BaseException:
    raster.close()
    raise
  return raster


def read_start(path: pathlib.Path) -> bytes:
  """Returns a regular file's first bytes; raises ImageError naming any other."""
  start = None
  try:
    if stat.S_ISREG(path.stat().st_mode):  # A pipe would wait for ever.
      with path.open("rb") as file:
        start = file.read(8)
  except (OSError, ValueError) as error:
    raise ImageError(f"{path} cannot be opened as an image: {error}") from error
  if start is None:
    raise ImageError(f"{path} cannot be opened as an image: it is no regular file.")
  return start


def _driver(path: pathlib.Path) -> str:
  """Tells by a file's first bytes which driver reads it, whatever its suffix."""
  start = read_start(path)
  for signature, driver in _DRIVERS.items():
    if start.startswith(signature):
      return driver
  found = f"it begins with {start!r}" if start else "it is empty"
  raise ImageError(
    f"{path} cannot be opened as an image: {found}, and only PNG, JPEG, TIFF and JPEG 2000 are read. "
    "Convert or restore it, or leave it out (in training data.on_bad_image='skip')."
  )


def _check_structure(raster, path, most_block_bytes):
  if raster.subdatasets:
    raise ImageError(
      f"{path} has {len(raster.subdatasets)} pages: save each as a file of its own, or all as "
      "the bands of one picture."
    )
  if not raster.count:
    raise ImageError(f"{path} has no bands: restore it, or make it anew with some.")
  if any(name.startswith("complex") for name in raster.dtypes):
    raise ImageError(f"{path} holds complex numbers: save their parts or amounts as bands.")
  height, width = raster.block_shapes[0]
  # The whole file's number of bands, since most drivers unpack all bands of a block together.
  check_bytes(raster, path, height * width * raster.count, most_block_bytes, "in one piece", (
    "save it in tiles (a tiled TIFF) or as smaller images"))


def check_bytes(raster, path, values: int, limit: int, what: str, remedy: str) -> None:
  """Raises ImageError where so many values of a raster take more than `limit` bytes."""
  size = values * max(np.dtype(name).itemsize for name in raster.dtypes)
  if size > limit:
    raise ImageError(
      f"{path} is {raster.height} x {raster.width} with {raster.count} channels, too large to read "
      f"{what} ({size >> 20} of at most {limit >> 20} MiB): {remedy}."
    )


def check_window(raster, path, bands: int, window: Window | None) -> None:
  """Raises ImageError where a window, the whole without one, takes more than MAX_BYTES."""
  height, width = (window.height, window.width) if window else (raster.height, raster.width)
  check_bytes(raster, path, height * width * bands, MAX_BYTES, "whole", (
    "cut it into tiles (data.tile_size) or smaller images"))

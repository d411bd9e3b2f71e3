"""Opens untrusted PNG, JPEG, TIFF and JPEG 2000 files; errors name the file.

Only the file itself is opened, no file that it refers to and none beside it; `side_files` reads a mask
and notes. Its decoded size is checked before it is decoded. An animated PNG is read as its default
image, as the PNG standard says. A TIFF with several pages is refused. `orientation` turns photographs.
"""

import contextlib
import os
import pathlib
import stat
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from lgag_jax.imagery import jpeg2000, orientation, png, tiff
from lgag_jax.imagery.orientation import Raster

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".jp2")
# GDAL's fast path for whole PNGs returns garbage for a truncated file without an error.
os.environ.setdefault("GDAL_PNG_WHOLE_IMAGE_OPTIM", "NO")
# Memory for tags and a block of a TIFF. GDAL reads it once, with the first TIFF: no Env may set it.
os.environ.setdefault("GTIFF_MAX_CUMULATED_MEM_USAGE", str(256 << 20))
# Training images seldom have a georeference, and need none.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
# GDAL ignores alpha if a file has a nodata value; this package uses both.
warnings.filterwarnings("ignore", category=NodataShadowWarning)
# First bytes of files, and the GDAL driver for each. Other drivers follow references to files and URLs.
_DRIVERS = {
  b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"\0\0\0\x0cjP  ": "JP2OpenJPEG",
  b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff",
}
# Without a listing of the folder GDAL opens no side files. A side file may be a VRT of any file.
OPTIONS: dict[str, Any] = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
MAX_BYTES = 1 << 30  # A larger window is refused before memory is allocated for it.
_LONGEST_SIDE = 1 << 20
_MOST_PIXELS = 1 << 36
_MAX_BLOCK_BYTES = 1 << 27  # Of a block, which is decoded whole, into two copies, for any window.
_MAX_MESSAGE = 300  # Characters of GDAL's messages, which may quote a whole VRT.
_REMEDY = "Restore it or set data.on_bad_image='skip'."


class ImageError(ValueError):
  """An invalid or unsupported image; the message names the file."""


@contextlib.contextmanager
def error_context(path: pathlib.Path | str, remedy: str = _REMEDY) -> Iterator[None]:
  """Turns errors of GDAL into an ImageError that names the file."""
  try:
    yield
  # The properties of a raster raise GDAL's errors, which rasterio does not wrap, and those of texts.
  except (RasterioError, CPLE_BaseError, UnicodeDecodeError) as error:
    # If rasterio only says that reading failed, GDAL's message is in the cause.
    cause = error.__cause__ or error.__context__ if "previous exception" in str(error) else None
    text = str(cause or error).rstrip(".")[:_MAX_MESSAGE]
    raise ImageError(f"{path} is damaged: {text}. {remedy}") from error


def open_raster(
  path: pathlib.Path, max_block_bytes: int = _MAX_BLOCK_BYTES, *, allow_scale: bool = False
) -> Raster:
  """Opens a raster; raises ImageError naming a missing, unsupported or unsafe file.

  An image with an orientation tag is read as viewers show it, unless it has a place on the ground. With
  `allow_scale` its bands may have scales and offsets, which the caller applies.
  """
  raster = open_with_driver(
    _driver(path), path, path.absolute(), max_block_bytes, allow_scale=allow_scale
  )
  number = orientation.of_file(path)
  if number == 1:
    return raster
  with contextlib.ExitStack() as stack:
    stack.push(raster)
    with error_context(path):
      if raster.crs or not raster.transform.is_identity or raster.gcps[0] or raster.rpcs:
        refuse_orientation(path, number)
    stack.pop_all()
  return orientation.turned(raster, number)


def open_with_driver(
  driver: str, path: pathlib.Path, source: pathlib.Path | str, max_block_bytes: int = _MAX_BLOCK_BYTES,
  *, allow_scale: bool = False,
) -> rasterio.DatasetReader:
  """Opens `source`, GDAL's name for `path`, with one driver; raises ImageError naming `path`."""
  try:
    if driver == "JP2OpenJPEG":
      jpeg2000.check_headers(path)
    if driver == "PNG":
      png.check_texts(path)
    others = tiff.directories(path)[1:] if driver == "GTiff" else []
    with rasterio.Env(**OPTIONS):
      raster = rasterio.open(source, driver=driver)
  except (RasterioError, CPLE_BaseError, ValueError, OSError) as error:
    text = str(error)[:_MAX_MESSAGE]
    if isinstance(error, UnicodeEncodeError):
      text = "the name is not valid UTF-8. Rename the file or its folder."
    raise ImageError(f"{path} cannot be opened as an image: {text}") from error
  try:
    with error_context(path):
      check_structure(raster, path, max_block_bytes, allow_scale=allow_scale)
      if driver == "GTiff":
        _check_colours(raster, path)
      for offset in others:
        _check_directory(path, offset, max_block_bytes)
  except BaseException:
    raster.close()
    raise
  return raster


def read_signature(path: pathlib.Path) -> bytes:
  """Returns the first 8 bytes of a regular file; raises ImageError naming any other file."""
  signature = None
  try:
    if stat.S_ISREG(path.stat().st_mode):  # Opening a pipe would block.
      with path.open("rb") as file:
        signature = file.read(8)
  except (OSError, ValueError) as error:
    raise ImageError(f"{path} cannot be opened as an image: {error}") from error
  if signature is None:
    raise ImageError(f"{path} cannot be opened as an image: it is not a regular file.")
  return signature


def _driver(path: pathlib.Path) -> str:
  """Returns the driver for a file's first bytes, whatever its suffix."""
  signature = read_signature(path)
  for start, driver in _DRIVERS.items():
    if signature.startswith(start):
      return driver
  reason = f"it begins with {signature!r}" if signature else "it is empty"
  raise ImageError(
    f"{path} cannot be opened as an image: {reason}, and only PNG, JPEG, TIFF and JPEG 2000 are "
    "supported. Convert or restore it, or skip it (in training data.on_bad_image='skip')."
  )


def check_structure(
  raster: rasterio.DatasetReader, path: pathlib.Path | str, max_block_bytes: int = _MAX_BLOCK_BYTES,
  *, allow_scale: bool = False,
) -> None:
  """Raises ImageError if a raster refers to other files, or is nothing that this package reads."""
  if raster.subdatasets:
    raise ImageError(
      f"{path} has {len(raster.subdatasets)} pages: save each as a separate file, or all as the "
      "bands of one image."
    )
  if named := raster.tags(ns="OVERVIEWS"):  # GDAL would open any file, URL or pipe.
    raise ImageError(
      f"{path} says that its overviews lie in another file ({str([*named.values()])[:200]}), "
      "which lgag does not open: write a copy without metadata, gdal_translate -nomd in.tif out.tif."
    )
  if not raster.count:
    raise ImageError(f"{path} has no bands: restore it, or create it again with some.")
  if any(name.startswith("complex") for name in raster.dtypes):
    raise ImageError(f"{path} holds complex numbers: save their parts or magnitudes as bands.")
  for band, (scale, offset) in enumerate(zip(raster.scales, raster.offsets, strict=True), 1):
    if (scale, offset) != (1.0, 0.0) and not allow_scale:
      refuse_scale(path, band, scale, offset)
  _check_blocks(raster, path, max_block_bytes)


def _check_colours(raster: rasterio.DatasetReader, path: pathlib.Path) -> None:
  """Raises ImageError for colours that GDAL does not convert to RGB, or not to those of viewers."""
  space = tiff.other_colour_space(path)
  if space and not (space == "CMYK" == raster.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE")):
    raise ImageError(
      f"{path} holds colours as {space}, which lgag does not convert: save it as RGB. If its bands are "
      "measurements, correct the tag: gdal_translate -co PHOTOMETRIC=MINISBLACK in.tif out.tif."
    )


def _check_directory(path: pathlib.Path, offset: int, max_block_bytes: int) -> None:
  """Checks the blocks of a TIFF's mask or overview, which GDAL opens by itself when it reads."""
  name = f"GTIFF_DIR:off:{offset}:{path.absolute()}"
  with (
    contextlib.suppress(RasterioError), rasterio.Env(**OPTIONS),  # GDAL skips what it cannot open.
    rasterio.open(name, driver="GTiff") as raster,
  ):
    _check_blocks(raster, path, max_block_bytes)


def _check_blocks(
  raster: rasterio.DatasetReader, path: pathlib.Path | str, max_block_bytes: int
) -> None:
  height, width = raster.block_shapes[0] if raster.count else (0, 0)
  # Times all bands of the file, since most drivers decode all bands of a block together.
  check_size(raster, path, height * width * raster.count, max_block_bytes, "one of its blocks", (
    "save it in small tiles (gdal_translate -co TILED=YES in.tif out.tif)"))


def refuse_scale(path, band: int, scale: float, offset: float) -> NoReturn:
  """Raises ImageError: with a scale or an offset, values are not what the file holds."""
  raise ImageError(
    f"{path} gives band {band} the scale {scale:g} and the offset {offset:g}, which lgag does not "
    "apply: apply them with gdal_translate -unscale -ot Float32 in.tif out.tif, or, if the training "
    "images are not scaled either, remove them with gdal_edit.py -scale 1 -offset 0."
  )


def refuse_orientation(path, number: int) -> NoReturn:
  """Raises ImageError: a GIS shows a placed image as it is stored, other viewers turn it."""
  raise ImageError(
    f"{path} has a place on the ground and the orientation tag {number}. A GIS ignores the tag and "
    "other viewers turn the image, so it is unclear which of them its masks fit. Remove the tag: "
    "gdal_translate in.tif out.tif keeps the image as a GIS shows it."
  )


def check_extent(raster, path: pathlib.Path | str) -> None:
  """Raises ImageError if a raster is larger than any scene: its windows would never come to an end.

  A header may claim any size, and a file of some hundred bytes may have it.
  """
  size = f"{path} is {raster.height} x {raster.width}, more than"
  if max(raster.height, raster.width) > _LONGEST_SIDE:
    raise ImageError(
      f"{size} {_LONGEST_SIDE} on a side: restore it, or cut it with gdal_translate -srcwin."
    )
  if raster.height * raster.width > _MOST_PIXELS:
    raise ImageError(f"{size} {_MOST_PIXELS} pixels: cut it with gdal_translate -srcwin.")


def check_size(raster, path, values: int, limit: int, part: str, remedy: str) -> None:
  """Raises ImageError if `values`, the number of values in a part of a raster, exceed `limit` bytes."""
  size = values * max(np.dtype(name).itemsize for name in raster.dtypes)
  if size > limit:
    raise ImageError(
      f"{path} is {raster.height} x {raster.width} with {raster.count} channels, too large to read "
      f"{part} ({size >> 20} of at most {limit >> 20} MiB): {remedy}."
    )


def check_window(raster, path, bands: int, window: Window | None) -> None:
  """Raises ImageError if a window, by default the whole raster, takes more than MAX_BYTES."""
  height, width = (window.height, window.width) if window else (raster.height, raster.width)
  check_size(raster, path, height * width * bands, MAX_BYTES, "whole", (
    "cut it into tiles (data.tile_size) or smaller images"))

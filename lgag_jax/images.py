"""Reads PNG, JPEG and TIFF images and masks, whole or a window, with errors that name the file.

Files may come from anywhere, so nothing but the file itself is opened: not what it refers to, not what
lies beside it (.aux.xml, .msk, .ovr, world files), and what it unpacks to is bounded beforehand. An
animated PNG counts as its default image, as its standard has it; a TIFF of several pages is refused.
"""

import contextlib
import csv
import functools
import os
import pathlib
import stat
import warnings
from collections.abc import Iterator

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

UNKNOWN = 255  # In masks as this package hands them on: neither background nor a class.
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
# GDAL's shortcut for whole PNGs hands on garbage for a truncated file without an error.
os.environ.setdefault("GDAL_PNG_WHOLE_IMAGE_OPTIM", "NO")
# Patches seldom carry a georeference, and need none.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
# How files begin, and the only GDAL drivers that open them: others follow references to files and URLs.
_DRIVERS = {
  b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG",
  b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff",
}
# Without its list of a folder GDAL looks at no side file, where a mask may be a VRT of anything.
_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
_MAX_BYTES = 1 << 30  # A larger window is refused before memory is taken for it.
_MAX_BLOCK_BYTES = 1 << 29  # Of what a file stores as one piece: unpacked whole for any window.
_MAX_TABLE_BYTES = 1 << 28


class ImageError(ValueError):
  """An image that cannot be used; the message names the file."""


@contextlib.contextmanager
def _naming(path: pathlib.Path | str) -> Iterator[None]:
  """Turns GDAL's errors into an ImageError that names the file."""
  try:
    yield
  # Properties of a raster raise GDAL's own errors, which rasterio does not turn into its own.
  except (RasterioError, CPLE_BaseError) as error:
    text = str(error).rstrip(".")
    raise ImageError(f"{path} is damaged: {text}. Restore it or set data.on_bad_image.") from error


def open_raster(path: pathlib.Path) -> rasterio.DatasetReader:
  """Opens a raster; raises ImageError naming a file that is missing, no image, or not to be trusted."""
  driver = _driver(path)
  try:
    with rasterio.Env(**_OPTIONS):
      raster = rasterio.open(path.absolute(), driver=driver)
  except (RasterioError, CPLE_BaseError, ValueError) as error:
    raise ImageError(f"{path} cannot be opened as an image: {error}") from error
  try:
    with _naming(path):
      _check_structure(raster, path)
  except BaseException:
    raster.close()
    raise
  return raster


def _driver(path: pathlib.Path) -> str:
  """Tells by a regular file's first bytes which driver reads it, whatever its suffix."""
  start = None
  try:
    if stat.S_ISREG(path.stat().st_mode):  # A pipe would wait for ever.
      with path.open("rb") as file:
        start = file.read(8)
  except (OSError, ValueError) as error:
    raise ImageError(f"{path} cannot be opened as an image: {error}") from error
  if start is None:
    raise ImageError(f"{path} cannot be opened as an image: it is no regular file.")
  for signature, driver in _DRIVERS.items():
    if start.startswith(signature):
      return driver
  found = f"it begins with {start!r}" if start else "it is empty"
  raise ImageError(
    f"{path} cannot be opened as an image: {found}, and only PNG, JPEG and TIFF are read. Convert or "
    "restore it, or set data.on_bad_image."
  )


def _check_structure(raster, path):
  if raster.subdatasets:
    raise ImageError(
      f"{path} has {len(raster.subdatasets)} pages: save each as a file of its own, or all as "
      "the bands of one picture."
    )
  if any(name.startswith("complex") for name in raster.dtypes):
    raise ImageError(f"{path} holds complex numbers: save their parts or amounts as bands.")
  height, width = raster.block_shapes[0]
  # The whole file's number of bands, since most drivers unpack all bands of a block together.
  _check_bytes(raster, path, height * width * raster.count, _MAX_BLOCK_BYTES, "in one piece", (
    "save it in tiles (a tiled TIFF) or as smaller images"))


def _check_bytes(raster, path, values, limit, what, remedy):
  size = values * max(np.dtype(name).itemsize for name in raster.dtypes)
  if size > limit:
    raise ImageError(
      f"{path} is {raster.height} x {raster.width} with {raster.count} channels, too large to read "
      f"{what} ({size >> 20} of at most {limit >> 20} MiB): {remedy}."
    )


def read_image(path: pathlib.Path, channels: int, window: Window | None = None) -> np.ndarray:
  """Reads an image as [H, W, channels] in its own data type; raises ImageError.

  An alpha band beyond `channels` is left out, a palette is turned into colours, and pixels without
  data are zero.
  """
  with open_raster(path) as raster, _naming(path):
    bands = raster.count
    if bands == channels + 1 and raster.colorinterp[-1] == ColorInterp.alpha:
      bands -= 1
    palette = raster.count == 1 and channels == 3 and raster.colorinterp[0] == ColorInterp.palette
    if bands != channels and not palette:
      raise ImageError(
        f"{path} has {raster.count} channels, data.channels={channels} expects {channels}: "
        "convert the file or change data.channels."
      )
    array = _read(raster, path, list(range(1, bands + 1)), window)
    if palette:
      colours = raster.colormap(1)
      table = np.array([colours.get(i, (0, 0, 0, 0))[:3] for i in range(256)], np.uint8)
      array = np.moveaxis(table[array[0]], -1, 0)
    # A fourth band that is asked for is data, also where its file calls it alpha.
    if ColorInterp.alpha not in raster.colorinterp[:bands]:
      array[:, ~read_valid(raster, window)] = 0
  array = np.moveaxis(array, 0, -1)
  if np.issubdtype(array.dtype, np.inexact) and not np.all(np.isfinite(array)):
    raise ImageError(f"{path} holds values that are not finite numbers: replace or mask them.")
  return array


def read_mask(
  raster: rasterio.DatasetReader, *, classes: int, ignore: int, window: Window | None = None
) -> np.ndarray:
  """Reads a mask as uint8 [H, W]: 0 background, k class k, UNKNOWN where it equals `ignore`.

  With one class every other value but zero is that class, so 0/1 and 0/255 masks both do; with
  several, values are class indices. Raises ImageError.
  """
  values = _read(raster, raster.name, [1], window)[0]
  unknown = values == ignore
  if np.issubdtype(values.dtype, np.inexact):
    unknown |= ~np.isfinite(values)
  if classes == 1:
    mask = (values != 0).view(np.uint8)  # No copy: scenes are large.
  else:
    strange = values[~unknown & ((values > classes) | (values < 0))]
    if strange.size:
      raise ImageError(
        f"{raster.name} holds class {strange.flat[0]}, but data.classes names {classes}: set "
        "data.mask_ignore if it means unknown."
      )
    mask = np.where(unknown, 0, values).astype(np.uint8)
  mask[unknown] = UNKNOWN
  return mask


def read_valid(raster: rasterio.DatasetReader, window: Window | None = None) -> np.ndarray:
  """Reads where an image holds data, bool [H, W]: nodata values, alpha and internal masks."""
  # One byte a pixel and band, which are the masks that it is joined from.
  _check_window(raster, raster.name, raster.count, window)
  with _naming(raster.name):
    return raster.dataset_mask(window=window) > 0


@functools.lru_cache(maxsize=1 << 16)
def size(path: pathlib.Path) -> tuple[int, int]:
  """Returns an image's height and width without decoding it."""
  with open_raster(path) as raster:
    return raster.height, raster.width


def _check_window(raster, path, bands, window):
  height, width = (window.height, window.width) if window else (raster.height, raster.width)
  _check_bytes(raster, path, height * width * bands, _MAX_BYTES, "whole", (
    "cut it into tiles (data.tile_size) or smaller images"))


def _read(raster, path, bands, window):
  _check_window(raster, path, len(bands), window)
  with _naming(path):
    return raster.read(bands, window=window)


def image_files(directory: pathlib.Path) -> list[pathlib.Path]:
  """Lists a folder's images by name; raises FileNotFoundError naming a missing folder."""
  if not directory.is_dir():
    raise FileNotFoundError(f"The folder {directory} is missing.")
  return sorted(p for p in directory.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".")


def read_table(path: pathlib.Path, required: tuple[str, ...]) -> list[dict[str, str]]:
  """Reads a CSV with a header; raises ValueError naming the file and what is wrong with it."""
  if (size := path.stat().st_size) > _MAX_TABLE_BYTES:
    raise ValueError(f"{path} has {size >> 20} MiB, a table at most {_MAX_TABLE_BYTES >> 20}: cut it.")
  try:
    with path.open(newline="", encoding="utf-8-sig") as file:
      reader = csv.DictReader(file)
      rows, names = list(reader), reader.fieldnames or ()
  except (csv.Error, UnicodeDecodeError) as error:
    raise ValueError(f"{path} is no table in UTF-8 with commas: {error}. Save it as one.") from error
  missing = [name for name in required if name not in names]
  if missing:
    raise ValueError(f"{path} lacks the column {missing[0]}: its header must name it.")
  return rows


def mask_without_file(label: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """An image of no class is background throughout; of any other nothing is known."""
  return np.full(shape, UNKNOWN if label.max() > 0 else 0, np.uint8)


def check_same_size(path: pathlib.Path, mask_shape: tuple, image_shape: tuple) -> None:
  """Raises ImageError when a mask and its image differ in size."""
  if mask_shape != image_shape:
    raise ImageError(f"{path} is {mask_shape}, its image {image_shape}: sizes must agree.")


def by_stem(directory: pathlib.Path) -> dict[str, pathlib.Path]:
  """Maps names without suffix to a folder's images, {} without one; raises on a name held twice."""
  found: dict[str, pathlib.Path] = {}
  for path in image_files(directory) if directory.is_dir() else []:
    if path.stem in found:
      raise ValueError(f"{path} and {found[path.stem].name} share a name: keep one.")
    found[path.stem] = path
  return found


def file_key(path: pathlib.Path) -> str:
  """Tells a file from any other, and from what it was before it changed."""
  with contextlib.suppress(OSError):
    status = path.stat()
    return f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"
  return f"{path.absolute()} cannot be read"

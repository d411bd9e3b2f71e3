"""Turns images as their orientation tag says: EXIF in JPEG and PNG, tag 274 in TIFF.

A camera stores the rows of its sensor and states in the tag how to turn them. Viewers and labelling
tools do so, GDAL does not. A mask that was drawn in a viewer fits the turned image only. Pillow was
considered for the tag: it decodes a whole PNG to find it, and opens no TIFF of many bands.
"""

import functools
import io
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import rasterio
from rasterio.windows import Window

_TAG = 274
_UPRIGHT = 1
_TRANSPOSED = (5, 6, 7, 8)
_ROWS_REVERSED = (3, 4, 7, 8)  # Of the transposed image, as the columns.
_COLUMNS_REVERSED = (2, 3, 6, 7)
_MAX_SEGMENTS, _MAX_CHUNKS, _MAX_ENTRIES = 1 << 12, 1 << 20, 1 << 12
_MAX_EXIF_BYTES = 1 << 16
_FORMATS = {1: "B", 3: "H", 4: "I"}  # Of a value, by the type in its entry.
# Attributes of a raster that do not depend on how it is turned.
_UNTURNED = {
  "close", "closed", "colorinterp", "colormap", "compression", "count", "crs", "descriptions",
  "driver", "dtypes",
  "gcps", "mask_flag_enums", "name", "nodata", "nodatavals", "rpcs", "tags", "transform",
}


class TurnedRaster:
  """A raster as viewers show it: sizes, windows and arrays are those of the turned image.

  It offers what this package uses of a `rasterio.DatasetReader`. It has no place on the ground.
  """

  def __init__(self, stored: rasterio.DatasetReader, orientation: int):
    self.orientation = orientation
    self._stored = stored
    self.height, self.width = self.shape = self._swapped(stored.shape)
    self.block_shapes = [self._swapped(shape) for shape in stored.block_shapes]

  def __getattr__(self, name: str) -> Any:
    if name not in _UNTURNED:
      raise AttributeError(f"A turned raster has no attribute {name!r}.")
    return getattr(self._stored, name)

  def __enter__(self) -> "TurnedRaster":
    return self

  def __exit__(self, *_) -> None:
    self._stored.close()

  def read(self, indexes: int | list[int] | None = None, **options) -> np.ndarray:
    """Reads bands as `rasterio.DatasetReader.read` does."""
    return self._turned(self._stored.read(indexes, **self._stored_options(**options)))

  def read_masks(self, indexes: int | list[int] | None = None, **options) -> np.ndarray:
    """Reads masks as `rasterio.DatasetReader.read_masks` does."""
    return self._turned(self._stored.read_masks(indexes, **self._stored_options(**options)))

  def block_windows(self, band: int) -> Iterator[tuple[tuple[int, int], Window]]:
    """Yields the windows of a band's blocks."""
    height, width = self.block_shapes[band - 1]
    for row, top in enumerate(range(0, self.height, height)):
      for col, left in enumerate(range(0, self.width, width)):
        size = min(width, self.width - left), min(height, self.height - top)
        yield (row, col), Window(left, top, *size)

  def _swapped(self, pair: tuple) -> tuple:
    return pair[::-1] if self.orientation in _TRANSPOSED else pair

  def _stored_options(
    self, window: Window | None = None, out_shape: tuple[int, ...] | None = None, **options
  ) -> dict[str, Any]:
    if out_shape is not None:
      out_shape = (*out_shape[:-2], *self._swapped(out_shape[-2:]))
    if window is not None:
      row, col = window.row_off, window.col_off
      if self.orientation in _ROWS_REVERSED:
        row = self.height - row - window.height
      if self.orientation in _COLUMNS_REVERSED:
        col = self.width - col - window.width
      (row, col), (height, width) = map(self._swapped, ((row, col), (window.height, window.width)))
      window = Window(col, row, width, height)
    return {"window": window, "out_shape": out_shape, **options}

  def _turned(self, array: np.ndarray) -> np.ndarray:
    if self.orientation in _TRANSPOSED:
      array = np.swapaxes(array, -1, -2)
    if self.orientation in _ROWS_REVERSED:
      array = array[..., ::-1, :]
    if self.orientation in _COLUMNS_REVERSED:
      array = array[..., ::-1]
    return np.ascontiguousarray(array)


Raster = rasterio.DatasetReader | TurnedRaster


def turned(raster: Raster, orientation: int) -> Raster:
  """Returns a raster that is read turned; `orientation` is a number of the tag, 1 to 8."""
  if orientation == _UPRIGHT or isinstance(raster, TurnedRaster):
    return raster
  return TurnedRaster(raster, orientation)


def of_raster(raster: Raster) -> int:
  """Returns the orientation that a raster is turned by; 1 if it is read as it is stored."""
  return raster.orientation if isinstance(raster, TurnedRaster) else _UPRIGHT


def of_file(path: pathlib.Path) -> int:
  """Returns the orientation tag of an image, 1 to 8; 1 without a valid one, as in viewers."""
  try:
    status = os.stat(path)
    return _read(pathlib.Path(path), status.st_size, status.st_mtime_ns)
  except (OSError, ValueError):
    return _UPRIGHT


@functools.lru_cache(maxsize=1 << 16)
def _read(path: pathlib.Path, size: int, _: int) -> int:
  try:
    with path.open("rb") as file:
      signature = file.read(8)
      if signature.startswith(b"\xff\xd8\xff"):
        file = _exif_of_jpeg(file)
      elif signature == b"\x89PNG\r\n\x1a\n":
        file = _exif_of_png(file, size)
      elif not signature.startswith((b"II", b"MM")):
        return _UPRIGHT
      number = _tag(file) if file else _UPRIGHT
  except (struct.error, ValueError, OverflowError):
    return _UPRIGHT
  return number if 1 <= number <= 8 else _UPRIGHT


def _exif_of_jpeg(file: BinaryIO) -> BinaryIO | None:
  file.seek(2)
  for _ in range(_MAX_SEGMENTS):
    mark, kind = file.read(1), file.read(1)
    while kind == b"\xff":  # Fills the space between segments.
      kind = file.read(1)
    if mark != b"\xff" or kind in (b"\xda", b"\xd9"):  # The pixels, or the end.
      return None
    (length,) = struct.unpack(">H", file.read(2))
    if kind == b"\xe1":
      content = file.read(length - 2)
      if content.startswith(b"Exif\0"):
        return io.BytesIO(content[6:])
    else:
      file.seek(length - 2, os.SEEK_CUR)
  return None


def _exif_of_png(file: BinaryIO, size: int) -> BinaryIO | None:
  for _ in range(_MAX_CHUNKS):  # The chunk may also follow the pixels.
    if file.tell() + 8 > size:
      return None
    length, kind = struct.unpack(">I4s", file.read(8))
    if kind == b"eXIf":
      return io.BytesIO(file.read(min(length, _MAX_EXIF_BYTES)))
    file.seek(length + 4, os.SEEK_CUR)
  return None


def _tag(file: BinaryIO) -> int:
  """Returns the orientation in the first directory of a TIFF, or of EXIF, which has the same form."""
  file.seek(0)
  order = {b"II": "<", b"MM": ">"}.get(file.read(2))
  if order is None:
    return _UPRIGHT

  def unpack(form: str) -> tuple:
    return struct.unpack(order + form, file.read(struct.calcsize(order + form)))

  big = unpack("H") == (43,)
  if big:
    unpack("HH")
  (start,) = unpack("Q" if big else "I")
  file.seek(start)
  (count,) = unpack("Q" if big else "H")
  for _ in range(min(count, _MAX_ENTRIES)):
    number, kind, _, value = unpack("HHQ8s" if big else "HHI4s")
    if number == _TAG and kind in _FORMATS:
      return struct.unpack_from(order + _FORMATS[kind], value)[0]
  return _UPRIGHT

"""Checks how much memory a JPEG 2000 file's headers make OpenJPEG allocate before it decodes anything.

OpenJPEG allocates memory for every tile of an image, and for every code block and precinct of the tile
that it decodes. The headers alone determine how much. glymur was considered: it parses these headers,
but limits nothing.
"""

import pathlib
import struct
from typing import BinaryIO

_MAX_BLOCKS = 1 << 19  # Code blocks or precincts per tile, about 400 bytes each.
_MAX_TILES = 1 << 17  # Tiles times bands, about 1000 bytes each.
_TILE_OVERHEAD = 5  # Memory of a tile besides its bands, in bands.
_MAX_MARKERS = 1 << 20
_SIZ, _COD, _COC, _SOT, _SOD, _EOC = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9


def check_headers(path: pathlib.Path) -> None:
  """Raises ValueError for a JP2 file with damaged headers or headers that ask for too much memory."""
  try:
    with path.open("rb") as file:
      _seek_codestream(file)
      _check_codestream(file)
  except (struct.error, IndexError) as error:
    raise ValueError("its JPEG 2000 headers are damaged") from error


def _unpack(form: str, file: BinaryIO) -> tuple:
  return struct.unpack(form, file.read(struct.calcsize(form)))


def _seek_codestream(file: BinaryIO) -> None:
  for _ in range(_MAX_MARKERS):
    start = file.tell()
    length, kind = _unpack(">I4s", file)
    if length == 1:
      (length,) = _unpack(">Q", file)
    if kind == b"jp2c":
      return
    if length < 8:  # 0: the box ends with the file.
      break
    file.seek(start + length)
  raise ValueError("it is a JPEG 2000 file without an image")


def _check_codestream(file: BinaryIO) -> None:
  if _unpack(">H", file) != (0xFF4F,):
    raise struct.error
  samples, bands, tile_part = 0, 0, None  # tile_part: (start, length).
  for _ in range(_MAX_MARKERS):
    marker = _next_marker(file)
    if marker == _EOC:
      return
    if marker == _SOD:
      if tile_part is None or not tile_part[1]:  # Length 0: the last one ends with the file.
        return
      file.seek(sum(tile_part))
      continue
    start = file.tell()
    (length,) = _unpack(">H", file)
    if length < 2:
      raise struct.error
    if marker == _SIZ:
      samples, bands = _check_size(file)
    elif marker in (_COD, _COC):
      body = file.read(min(length - 2, 64))
      skipped = 5 if marker == _COD else (3 if bands > 256 else 2)
      # In a COC, the style follows the number of the band.
      style = body[0] if marker == _COD else body[skipped - 1]
      _check_blocks(samples, body[skipped:], bool(style & 1))
    elif marker == _SOT:
      _, size = _unpack(">HI", file)
      tile_part = start - 2, size
    file.seek(start + length)
  raise ValueError(f"it has more than {_MAX_MARKERS} JPEG 2000 headers: save it again")


def _next_marker(file: BinaryIO) -> int:
  """Returns the next marker, or _EOC at the end of a truncated file, which the decoder reports."""
  data = file.read(2)
  return struct.unpack(">H", data)[0] if len(data) == 2 else _EOC


def _check_size(file: BinaryIO) -> tuple[int, int]:
  """Returns the number of values in a tile, and the number of bands."""
  _, right, bottom, left, top, width, height, x, y, bands = _unpack(">H8IH", file)
  if not width or not height or right <= left or bottom <= top or x > left or y > top:
    raise struct.error
  tiles = -(-(right - x) // width) * -(-(bottom - y) // height)
  if tiles * (bands + _TILE_OVERHEAD) > _MAX_TILES:
    raise ValueError(f"it has {tiles} tiles of {bands} bands: save it with larger tiles")
  return min(width, right - left) * min(height, bottom - top) * bands, bands


def _check_blocks(samples: int, body: bytes, precincts: bool) -> None:
  """Assumes the smallest size for all; real files have code blocks of 32 or 64 and larger precincts."""
  levels, wide, high = body[0], body[1] & 15, body[2] & 15
  smallest = wide + high + 4
  if precincts:
    smallest = min(smallest, *((size & 15) + (size >> 4) for size in body[5 : 6 + levels]))
  if samples >> smallest > _MAX_BLOCKS:
    raise ValueError(
      f"it has tiles of {samples} values in more than {_MAX_BLOCKS} code blocks or precincts: save it "
      "with tiles of 1024"
    )

"""What a JPEG 2000 file's headers make a decoder allocate before it has decoded anything.

OpenJPEG takes memory for every tile of an image, and for every code block and precinct of the tile that
it decodes, of a size that the headers alone tell.
"""

import pathlib
import struct
from typing import BinaryIO

_MOST_PIECES = 1 << 19  # Code blocks or precincts of a tile: some 400 bytes each.
_MOST_TILES = 1 << 17  # Times bands: some 1000 bytes each.
_TILE = 5  # What a tile takes beside its bands, in bands.
_MOST_MARKERS = 1 << 20
_SIZ, _COD, _COC, _SOT, _SOD, _EOC = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9


def check(path: pathlib.Path) -> None:
  """Raises ValueError for a JP2 file whose headers are damaged or ask for too much memory."""
  try:
    with path.open("rb") as file:
      _to_codestream(file)
      _check_codestream(file)
  except (struct.error, IndexError) as error:
    raise ValueError("its JPEG 2000 headers are damaged") from error


def _unpack(form: str, file: BinaryIO) -> tuple:
  return struct.unpack(form, file.read(struct.calcsize(form)))


def _to_codestream(file: BinaryIO) -> None:
  """Goes from box to box to the first that holds a codestream."""
  for _ in range(_MOST_MARKERS):
    start = file.tell()
    length, kind = _unpack(">I4s", file)
    if length == 1:
      (length,) = _unpack(">Q", file)
    if kind == b"jp2c":
      return
    if length < 8:  # 0: up to the file's end.
      break
    file.seek(start + length)
  raise ValueError("it is a JPEG 2000 file without a picture")


def _check_codestream(file: BinaryIO) -> None:
  if _unpack(">H", file) != (0xFF4F,):
    raise struct.error
  samples, bands, part = 0, 0, None  # Part: start and length of a tile's.
  for _ in range(_MOST_MARKERS):
    marker = _next_marker(file)
    if marker == _EOC:
      return
    if marker == _SOD:
      if part is None or not part[1]:  # 0: the last, up to the end.
        return
      file.seek(sum(part))
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
      # A COC's style follows the number of its band.
      style = body[0] if marker == _COD else body[skipped - 1]
      _check_pieces(samples, body[skipped:], bool(style & 1))
    elif marker == _SOT:
      _, size = _unpack(">HI", file)
      part = start - 2, size
    file.seek(start + length)
  raise ValueError(f"it has more than {_MOST_MARKERS} JPEG 2000 headers: save it anew")


def _next_marker(file: BinaryIO) -> int:
  """At the end of a cut file there is none: what is missing is the decoder's to tell."""
  data = file.read(2)
  return struct.unpack(">H", data)[0] if len(data) == 2 else _EOC


def _check_size(file: BinaryIO) -> tuple[int, int]:
  """Returns the values of a tile, and the number of bands."""
  _, right, bottom, left, top, width, height, x, y, bands = _unpack(">H8IH", file)
  if not width or not height or right <= left or bottom <= top or x > left or y > top:
    raise struct.error
  tiles = -(-(right - x) // width) * -(-(bottom - y) // height)
  if tiles * (bands + _TILE) > _MOST_TILES:
    raise ValueError(f"it has {tiles} tiles of {bands} bands: save it with larger tiles")
  return min(width, right - left) * min(height, bottom - top) * bands, bands


def _check_pieces(samples: int, body: bytes, precincts: bool) -> None:
  """Takes the smallest piece for all: real files have code blocks of 32 or 64, larger precincts."""
  levels, wide, high = body[0], body[1] & 15, body[2] & 15
  smallest = wide + high + 4
  if precincts:
    smallest = min(smallest, *((size & 15) + (size >> 4) for size in body[5 : 6 + levels]))
  if samples >> smallest > _MOST_PIECES:
    raise ValueError(
      f"it is stored in tiles of {samples} values, in more than {_MOST_PIECES} pieces: save it with "
      "tiles of 1024"
    )

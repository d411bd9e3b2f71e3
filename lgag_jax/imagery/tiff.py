"""Finds the colour space of a TIFF file, and its directories, which hold image, masks and overviews.

GDAL reads any directory, but only tells the blocks of the first, and only a colour space that it
converts. tifffile was considered: it decodes all tags, and a file can have millions.
"""

import contextlib
import pathlib
import struct
from typing import BinaryIO

_MAX_DIRECTORIES = 256
_MAX_ENTRIES = 1 << 16  # More are invalid.
_SUB_DIRECTORIES, _COLOUR_SPACE = 330, 262  # The tags.
# Values of the latter whose pixels are neither measured bands nor red, green and blue.
_OTHER_SPACES = {
  5: "CMYK", 8: "CIELAB", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "a camera's raw pattern",
  32844: "LogL", 32845: "LogLuv",
}
_TYPE_BYTES = {  # Of a value, where it is more than one.
  3: 2, 8: 2, 4: 4, 9: 4, 11: 4, 13: 4, 5: 8, 10: 8, 12: 8, 16: 8, 17: 8, 18: 8,
}
# Offsets and sizes of strips and tiles; GDAL reads a part of them at a time, and has only one of each.
_BLOCK_TAGS = {273, 279, 324, 325}
# Of all other values. GDAL copies each into memory, and many may lie in the same bytes of the file.
_MAX_TAG_BYTES = 64 << 20
_ENTRY_BYTES = 64  # At least so many are needed to keep one.


def directories(path: pathlib.Path) -> list[int]:
  """Returns the offsets of a file's directories up to one that is cut off.

  Raises ValueError for too many, or for tags that take too much memory.
  """
  offsets: dict[int, None] = {}
  taken = 0
  with path.open("rb") as file, contextlib.suppress(struct.error):  # Of a file cut off in its head.
    word, first = _head(file)
    queue = [first]
    while queue:
      offset = queue.pop()
      if offset and offset not in offsets:
        offsets[offset] = None
        following, size = _next_directories(file, offset, word, is_first=len(offsets) == 1)
        queue, taken = queue + following, taken + size
      if len(offsets) + len(queue) > _MAX_DIRECTORIES:
        raise ValueError(f"it has more than {_MAX_DIRECTORIES} images, masks and overviews")
      if taken > _MAX_TAG_BYTES:
        raise ValueError(
          f"its tags claim {taken >> 20} MiB, more than the {_MAX_TAG_BYTES >> 20} MiB allowed. Write "
          "a copy without metadata: gdal_translate -nomd in.tif out.tif"
        )
  return list(offsets)


def other_colour_space(path: pathlib.Path) -> str:
  """Returns the colour space of a file's image; "" if it has bands, or red, green and blue."""
  with path.open("rb") as file, contextlib.suppress(struct.error, OSError, OverflowError):
    word, offset = _head(file)
    for tag, _, _, field in _read_directory(file, offset, word)[0]:
      if tag == _COLOUR_SPACE:
        return _OTHER_SPACES.get(struct.unpack_from(f"{word[0]}H", field)[0], "")
  return ""


def _head(file: BinaryIO) -> tuple[str, int]:
  """Returns the format of the file's offsets, for `struct`, and that of the first directory."""
  order = "<" if file.read(2) == b"II" else ">"
  (version,) = struct.unpack(f"{order}H", file.read(2))
  word = f"{order}{'Q' if version == 43 else 'I'}"
  file.seek(8 if version == 43 else 4)
  return word, _number(file, word)


def _read_directory(
  file: BinaryIO, offset: int, word: str
) -> tuple[list[tuple[int, int, int, bytes]], int]:
  """Returns a directory's entries (tag, type, number of values, field), and the offset of the next."""
  size = struct.calcsize(word)
  file.seek(offset)
  count = _number(file, word if size == 8 else f"{word[0]}H")
  data = file.read(min(count, _MAX_ENTRIES) * (2 * size + 4))
  following = _number(file, word)
  entries = struct.iter_unpack(f"{word[0]}HH{word[1]}{size}s", data)
  return list(entries), following


def _next_directories(
  file: BinaryIO, offset: int, word: str, *, is_first: bool
) -> tuple[list[int], int]:
  """Returns the offsets that a directory gives, and how many bytes its tags take in memory.

  Offsets of subdirectories count only in the first.
  """
  try:
    entries, next_offset = _read_directory(file, offset, word)
  except (struct.error, OSError, OverflowError):  # Cut off: GDAL says so, or skips it.
    return [], 0
  following, taken = [next_offset], 0
  for tag, kind, values, field in entries:
    width = _TYPE_BYTES.get(kind, 1)
    if tag not in _BLOCK_TAGS:
      taken += max(values * width, _ENTRY_BYTES)
    if tag == _SUB_DIRECTORIES and is_first:
      raw = _values(file, field, values * width, word)
      form = {2: "H", 4: "I", 8: "Q"}.get(width, "B")
      whole = raw[: len(raw) // width * width]
      following += [value for (value,) in struct.iter_unpack(word[0] + form, whole)]
  return following, taken


def _values(file: BinaryIO, field: bytes, count: int, word: str) -> bytes:
  """Returns the bytes of an entry's values, which lie in its field if they fit."""
  if count <= len(field):
    return field[:count]
  if count > 8 * _MAX_DIRECTORIES:
    raise ValueError(f"its directory has an entry of {count} bytes")
  (offset,) = struct.unpack(word, field)
  try:
    file.seek(offset)
  except (OSError, OverflowError):
    return b""
  return file.read(count)


def _number(file: BinaryIO, form: str) -> int:
  return struct.unpack(form, file.read(struct.calcsize(form)))[0]

"""Finds the directories of a TIFF file, which hold its image, masks and overviews.

GDAL reads any of them, but only tells the blocks of the first. tifffile was considered: it decodes all
tags, and a file can have millions.
"""

import contextlib
import pathlib
import struct
from typing import BinaryIO

_MAX_DIRECTORIES = 256
_MAX_ENTRIES = 1 << 16  # More are invalid.
_SUB_DIRECTORIES = 330  # The tag.
_TYPE_BYTES = {3: 2, 8: 2, 4: 4, 9: 4, 11: 4, 13: 4, 5: 8, 16: 8, 18: 8}


def directories(path: pathlib.Path) -> list[int]:
  """Returns the offsets of a file's directories up to one that is cut off; ValueError for too many."""
  offsets: dict[int, None] = {}
  with path.open("rb") as file, contextlib.suppress(struct.error):  # Of a file cut off in its head.
    order = "<" if file.read(2) == b"II" else ">"
    (version,) = struct.unpack(f"{order}H", file.read(2))
    word = f"{order}{'Q' if version == 43 else 'I'}"
    file.seek(8 if version == 43 else 4)
    queue = [_number(file, word)]
    while queue:
      offset = queue.pop()
      if offset and offset not in offsets:
        offsets[offset] = None
        queue += _next_directories(file, offset, word, is_first=len(offsets) == 1)
      if len(offsets) + len(queue) > _MAX_DIRECTORIES:
        raise ValueError(f"it has more than {_MAX_DIRECTORIES} images, masks and overviews")
  return list(offsets)


def _next_directories(file: BinaryIO, offset: int, word: str, *, is_first: bool) -> list[int]:
  """Returns the offsets that a directory gives, those of subdirectories only if it is the first."""
  size = struct.calcsize(word)
  head = f"{word[0]}HH{word[1]}"
  try:
    file.seek(offset)
    count = _number(file, word if size == 8 else f"{word[0]}H")
    data = file.read(min(count, _MAX_ENTRIES) * (2 * size + 4))
    following = [_number(file, word)]
  except (struct.error, OSError, OverflowError):  # Cut off: GDAL says so, or skips it.
    return []
  for at in range(0, len(data), 2 * size + 4):
    tag, kind, values = struct.unpack_from(head, data, at)
    if tag == _SUB_DIRECTORIES and is_first:
      width = _TYPE_BYTES.get(kind, 1)
      raw = _values(file, data[at + 4 + size :][:size], values * width, word)
      form = {2: "H", 4: "I", 8: "Q"}.get(width, "B")
      whole = raw[: len(raw) // width * width]
      following += [value for (value,) in struct.iter_unpack(word[0] + form, whole)]
  return following


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

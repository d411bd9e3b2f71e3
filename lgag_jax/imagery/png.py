"""Checks how much memory a PNG's compressed texts make libpng take when it opens the file.

libpng expands each text up to 8 MiB and keeps all of them, and no option limits their number.
"""

import pathlib
import struct

_MAX_TEXTS = 16  # Of 8 MiB each. Usual files have a colour profile and one or two texts.
_MAX_CHUNKS = 1 << 22  # Encoders write one per 8 KiB or more.
_COMPRESSED = (b"zTXt", b"iTXt", b"iCCP")


def check_texts(path: pathlib.Path) -> None:
  """Raises ValueError for a PNG with many compressed texts, or with more chunks than images need."""
  size, texts = path.stat().st_size, 0
  with path.open("rb") as file:
    file.seek(8)
    for _ in range(_MAX_CHUNKS):
      header = file.read(8)
      if len(header) < 8 or file.tell() > size:  # The decoder reports a truncated file.
        return
      length, kind = struct.unpack(">I4s", header)
      texts += kind in _COMPRESSED
      if texts > _MAX_TEXTS:
        raise ValueError(
          f"it has more than {_MAX_TEXTS} compressed texts, which may expand to any size. Write a copy "
          "without metadata: gdal_translate -nomd in.png out.png"
        )
      file.seek(length + 4, 1)
  raise ValueError("it has more parts than images have: write it again")

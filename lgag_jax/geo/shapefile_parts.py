"""Checks that the parts of a shapefile (.shp, .shx, .dbf) are whole and of one version.

GDAL reads the features that .shx lists, and no more than .dbf has rows: with parts of different
versions, the others are lost without an error.
"""

import pathlib
import struct

import numpy as np

_HEADER = 100  # Bytes of .shp and .shx.
_LEAST = 12  # Bytes of the shortest record, a null shape.
_LENGTH = 24  # Where the header of .shx has the file's length in words of two bytes.
_MAX_SHAPES = 1 << 24
_OWN_BYTES = "each shape must have bytes of its own"
_POINTS = (1, 11, 21)  # Types of single points, which have no parts.
_RECORD = 8  # Bytes of the header of a record, and of an entry of .shx.


def check(path: pathlib.Path) -> None:
  """Raises ValueError saying which part of a shapefile is cut, or does not fit the others."""
  if (index := _part(path, ".shx")) is None:
    return  # GDAL asks for it.
  shapes, header = np.memmap(path, np.uint8, "r"), np.fromfile(index, np.uint8, _HEADER)
  size, stated = index.stat().st_size, max(_HEADER, 2 * _number(header, _LENGTH))
  if size < stated:
    raise ValueError(f"{index.name} is cut: it has {size} of {stated} bytes")
  count = (stated - _HEADER) // _RECORD
  if count > len(shapes) // _LEAST:
    raise ValueError(f"{path.name} is cut, or its .shx is of another version: it lists {count} shapes")
  if count > _MAX_SHAPES:
    raise ValueError(
      f"it holds {count} shapes, more than the {_MAX_SHAPES} that are supported: give a part of them")
  entries = 2 * np.fromfile(index, ">u4", 2 * count, offset=_HEADER).astype(np.int64)
  _check_records(path, shapes, entries[::2])
  # GDAL reads as many bytes as .shx says. Some programs count the header of each record, too.
  if entries[1::2].sum() > len(shapes) + _RECORD * count:
    raise ValueError(f"{index.name} lists longer shapes than {path.name} holds: {_OWN_BYTES}")
  if table := _part(path, ".dbf"):
    _check_table(path, table, count)


def has_shape(path: pathlib.Path, number: int) -> bool:
  """Returns whether a shape, counted from 0, is neither null nor without parts; see `check`."""
  if (index := _part(path, ".shx")) is None:
    return True
  with index.open("rb") as file:
    file.seek(_HEADER + _RECORD * number)
    start = 2 * int.from_bytes(file.read(4), "big")
  with path.open("rb") as file:
    file.seek(start + _RECORD)
    kind, parts = struct.unpack("<I32xI", file.read(40).ljust(40, b"\0"))
  return kind in _POINTS or (kind != 0 and parts > 0)


def _check_records(path: pathlib.Path, shapes: np.ndarray, starts: np.ndarray) -> None:
  """Checks that records begin where .shx says, and that none follows them that it does not know."""
  end = _HEADER
  if len(starts):
    if starts.max() + _RECORD + 4 > len(shapes):
      raise ValueError(f"{path.name} is cut, or its .shx is of another version")
    lengths, kinds = (
      np.ascontiguousarray(shapes[starts[:, None] + np.arange(first, first + 4)]).view(order)[:, 0]
      for first, order in ((4, ">u4"), (_RECORD, "<u4"))
    )
    if (kind := shapes[32:36].tobytes()) != bytes(4) and not np.isin(kinds, (0, kind[0])).all():
      raise ValueError(f"its .shx lists shapes where {path.name} has none. {_other_version(path)}")
    ends = starts + _RECORD + 2 * lengths.astype(np.int64)
    end = int(ends[starts.argmax()])
    if ends.max() > len(shapes):
      raise ValueError(f"{path.name} is cut in the middle of a shape")
    _check_overlaps(path, starts, ends)
  # A record that an editor has replaced may stay behind. It has the number of the new one.
  if end + _RECORD <= len(shapes) and _number(shapes, end) > len(starts):
    raise ValueError(
      f"its .shx lists {len(starts)} shapes, but {path.name} has more. {_other_version(path)}")


def _check_overlaps(path: pathlib.Path, starts: np.ndarray, ends: np.ndarray) -> None:
  """Raises ValueError if shapes share bytes: a small file would hold shapes without limit."""
  in_file = starts > 0  # Some programs have 0 for a shape that is gone.
  starts, ends = starts[in_file], ends[in_file]
  order = starts.argsort()
  if (starts[order[1:]] < ends[order[:-1]]).any():
    raise ValueError(f"its .shx lists the same bytes of {path.name} twice: {_OWN_BYTES}")


def _check_table(path: pathlib.Path, table: pathlib.Path, count: int) -> None:
  with table.open("rb") as file:
    header = file.read(12)
  if len(header) < 12:
    raise ValueError(f"{table.name} is cut: it has {len(header)} bytes")
  rows, header_length, row_length = struct.unpack("<IHH", header[4:])
  if rows != count:
    raise ValueError(
      f"{table.name} has {rows} rows, but {path.name} {count} shapes. {_other_version(path)}")
  if (size := table.stat().st_size) < (stated := header_length + rows * row_length):
    raise ValueError(f"{table.name} is cut: it has {size} of {stated} bytes")


def _part(path: pathlib.Path, suffix: str) -> pathlib.Path | None:
  files = (path.with_suffix(s) for s in (suffix, suffix.upper()))
  return next((file for file in files if file.is_file()), None)


def _number(content: np.ndarray, at: int) -> int:
  return int.from_bytes(content[at : at + 4].tobytes(), "big")


def _other_version(path: pathlib.Path) -> str:
  return f"{path.stem}.shp, .shx and .dbf must be of one version"

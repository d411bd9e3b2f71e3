"""Damaged and hostile files, as Hypothesis strategies: valid ones changed, and bytes of any kind."""

import dataclasses
import gzip
import hashlib
import pathlib
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Literal

from hypothesis import strategies as st

# Where arithmetic goes wrong: the ends of the integer types, and what is next to them.
_INTERESTING = sorted({
  (sign << bits) + step
  for bits in (0, 7, 8, 15, 16, 24, 31, 32, 63, 64) for sign in (1, -1) for step in (-1, 0, 1)
})
_HEADER = 128  # Bytes in which most formats keep their fields.
_MAX_EDITS = 6
_MAX_INPUT = 1 << 18


@dataclasses.dataclass(frozen=True)
class Reader:
  """A reader, called with the path of a file `name` in a folder that `prepare` has filled."""

  name: str
  read: Callable[[pathlib.Path], None]
  seeds: Callable[[], Sequence[bytes]]
  repair: Callable[[bytes], bytes] | None = None
  prepare: Callable[[pathlib.Path], None] = lambda folder: None


def _packed() -> st.SearchStrategy[bytes]:
  def pack(value: int, size: int, order: Literal["little", "big"]) -> bytes:
    return (value % (1 << 8 * size)).to_bytes(size, order)

  return st.builds(
    pack, st.sampled_from(_INTERESTING), st.sampled_from((1, 2, 4, 8)),
    st.sampled_from(("little", "big")),
  )


def _places() -> st.SearchStrategy[int]:
  return st.one_of(st.integers(0, _HEADER), st.integers(0, _MAX_INPUT), st.integers(-_HEADER, -1))


def _small_edits() -> st.SearchStrategy[tuple]:
  return st.one_of(
    st.tuples(st.just("flip"), _places(), st.integers(0, 7)),
    st.tuples(st.just("write"), _places(), _packed()),
  )


def _edits(seeds: Sequence[bytes]) -> st.SearchStrategy[tuple]:
  lengths = st.one_of(st.integers(1, 16), st.integers(1, 4096))
  return st.one_of(
    _small_edits(),
    st.tuples(st.just("insert"), _places(), st.one_of(_packed(), st.binary(min_size=1, max_size=64))),
    st.tuples(st.just("splice"), _places(), st.tuples(st.sampled_from(seeds), _places(), lengths)),
    st.tuples(st.just("repeat"), _places(), lengths),
    st.tuples(st.just("delete"), _places(), lengths),
    st.tuples(st.just("cut"), _places(), st.none()),
  )


def _apply(data: bytes, edit: tuple) -> bytes:
  kind, place, what = edit
  place %= len(data) + 1
  head, tail = data[:place], data[place:]
  match kind:
    case "flip":
      return head + bytes([tail[0] ^ 1 << what]) + tail[1:] if tail else data
    case "write":
      return head + what + tail[len(what):]
    case "insert":
      return head + what + tail
    case "splice":
      other, start, length = what
      start %= len(other) + 1
      return head + other[start : start + length] + tail
    case "repeat":
      return head + tail[:what] + tail
    case "delete":
      return head + tail[what:]
  return head  # cut


def inputs(
  seeds: Sequence[bytes], repair: Callable[[bytes], bytes] | None
) -> st.SearchStrategy[bytes]:
  """Returns a strategy of changed seeds, of these with their checksums mended, and of any bytes."""
  def change(data: bytes, edits: list[tuple], mend: bool) -> bytes:
    for edit in edits:
      data = _apply(data, edit)[:_MAX_INPUT]
    return repair(data) if mend and repair else data

  # One small edit leaves most of a file readable, so that readers get far; several leave little.
  gentle = st.lists(_small_edits(), min_size=1, max_size=1)
  rough = st.lists(_edits(seeds), min_size=1, max_size=_MAX_EDITS)
  changed = [
    st.builds(change, st.sampled_from(seeds), edits, st.booleans()) for edits in (gentle, rough)
  ]
  # Random bytes alone seldom pass the first test of a reader: half of them begin as a valid file does.
  noise = st.binary(max_size=2000)
  begun = st.builds(lambda seed, data: seed[:8] + data, st.sampled_from(seeds), noise)
  return st.one_of(*changed, *changed, *changed, begun, noise)


def repair_png(data: bytes) -> bytes:
  """Makes the checksums of a PNG's chunks right again, so that a reader looks at what is in them."""
  out, at = data[:8], 8
  while at + 12 <= len(data):
    (length,) = struct.unpack(">I", data[at : at + 4])
    body = data[at + 4 : at + 8 + length]
    if at + 12 + length > len(data):
      break
    out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
    at += 12 + length
  return out + data[at:]


def repair_tar(data: bytes) -> bytes:
  """Makes the checksum right of every 512 bytes that look like a tar header."""
  out = bytearray(data)
  for at in range(0, len(out) - 511, 512):
    if out[at + 257 : at + 262] == b"ustar":
      out[at + 148 : at + 156] = b" " * 8
      out[at + 148 : at + 156] = b"%06o\0 " % (sum(out[at : at + 512]) & 0o777777)
  return bytes(out)


def repair_zip(data: bytes) -> bytes:
  """Makes the checksums right of the members of a zip that are not compressed."""
  out, at = bytearray(data), data.find(b"PK\1\2")
  while at >= 0 and len(data) >= at + 46:
    method, size, start = (int.from_bytes(data[at + k : at + k + n], "little")
                           for k, n in ((10, 2), (20, 4), (42, 4)))
    names = sum(int.from_bytes(data[start + k : start + k + 2], "little") for k in (26, 28))
    body = data[start + 30 + names :][:size]
    if not method:
      out[at + 16 : at + 20] = struct.pack("<I", zlib.crc32(body))
    at = data.find(b"PK\1\2", at + 4)
  return bytes(out)


def repair_digests(data: bytes) -> bytes:
  """Makes the last line of SHA256SUMS the digest of those before it."""
  lines = data.rpartition(b"# ")[0]
  return lines + f"# {hashlib.sha256(lines).hexdigest()}\n".encode()


def repacked(repair: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
  """Makes of changed bytes the content of a sound gzip file, where they are not one any more."""
  def pack(data: bytes) -> bytes:
    try:
      return gzip.compress(repair(gzip.decompress(data)), mtime=0)
    except (OSError, EOFError, zlib.error):
      return gzip.compress(repair(data), mtime=0)

  return pack

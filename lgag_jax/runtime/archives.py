"""Unpacks data sets from untrusted .zip, .tar and .tar.gz files.

An archive may name paths outside its folder, link to them, or unpack to far more than it seems to hold.
This module only writes plain files and folders, under names that mean the same on every file system. It
counts the bytes that it writes, not those that headers claim.

shutil.unpack_archive and tarfile's "data" filter limit neither sizes nor numbers of files.
"""

import errno
import gzip
import io
import os
import pathlib
import re
import shutil
import stat
import struct
import tarfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from lgag_jax.runtime import archive_records, lock, preemption

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_BYTES = 1 << 37  # Unpacked, over all files: 128 GiB.
MAX_FILES = 500_000  # Files and folders; each takes an inode.
MAX_RATIO = 100  # Unpacked bytes per byte of the archive. Empty masks reach it, data sets do not.
FREE_BYTES = 1 << 26  # Smaller contents may exceed MAX_RATIO.
MAX_DEPTH = 16  # Nested folders.
MAX_NAME = 200  # Bytes of a file's name; file systems allow 255.
_MAX_CONTENTS = 1 << 26  # Bytes of a zip's central directory, which is held in memory.
_MAX_HEADER = 1 << 14  # Bytes of a tar's header; tarfile's run time is quadratic in them.
_CHUNK = 1 << 20
_SKIPPED_FOLDER = "__MACOSX"  # macOS adds it to zip files, beside the data's own folder.
# What the standard library raises for damaged bytes, besides OSError.
_DAMAGE_ERRORS = (
  zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, struct.error, EOFError,
  NotImplementedError, RuntimeError, ValueError, OverflowError,
)


class ArchiveError(ValueError):
  """An archive that cannot be unpacked; the message names it, the member, and the remedy."""


def is_archive(path: pathlib.Path) -> bool:
  """Returns whether `path` is a file with an archive's suffix."""
  return path.name.lower().endswith(SUFFIXES) and path.is_file()


def unpack_once(archive: pathlib.Path) -> pathlib.Path:
  """Returns the content root of `<archive>.unpacked`; unpacks the archive if that folder is missing.

  Raises ArchiveError if the archive cannot be unpacked, or is newer than the folder or another one than
  it was unpacked from, and OSError naming what cannot be written.
  """
  target = archive.with_name(archive.name + ".unpacked")
  if not target.exists():
    lock_path = target.with_name(f"{target.name}.lock")
    with lock.wait_for(lock_path, f"unpacking {archive}"):
      try:
        if not target.exists():  # Another run may have unpacked it in the meantime.
          unpack(archive, target)
      finally:
        lock_path.unlink(missing_ok=True)
  elif archive.stat().st_mtime_ns > target.stat().st_mtime_ns:
    raise ArchiveError(f"{archive} is newer than {target}: remove that folder to unpack it again.")
  elif not archive_records.is_same(archive, target, lambda: _holds_contents(target, archive)):
    raise ArchiveError(
      f"{archive} is another archive than {target} was unpacked from: remove that folder to unpack the "
      "archive, or name the folder instead of the archive to use it as it is."
    )
  return content_root(target)


def content_root(folder: pathlib.Path) -> pathlib.Path:
  """Returns `folder`, or its only entry if that is a folder; ignores hidden files."""
  entries = [entry for entry in folder.iterdir() if entry.name[0] != "."]
  return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def unpack(archive: pathlib.Path, target: pathlib.Path) -> None:
  """Unpacks `archive` into the folder `target`; on failure `target` does not exist.

  Raises ArchiveError if the archive is damaged or encrypted, if it holds paths outside its folder,
  links, devices or duplicate names (names that differ only in case or in the encoding of accents are
  duplicates), or if it exceeds MAX_BYTES, MAX_FILES or MAX_RATIO. Raises OSError if the disk fails.
  """
  partial = target.with_name(f"{target.name}.partial")
  shutil.rmtree(partial, ignore_errors=True)  # A killed run leaves it.
  partial.mkdir()
  try:
    _call_naming_errors(lambda: _write_members(_members(archive), archive, partial), archive)
    # Not older than the archive, even if the clocks of two machines differ.
    now = max(time.time_ns(), archive.stat().st_mtime_ns)
    os.utime(partial, ns=(now, now))
    archive_records.write(archive, target)
    partial.rename(target)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _call_naming_errors(action: Callable[[], None], archive: pathlib.Path) -> None:
  """Calls `action`; its errors name the archive and say whether the archive or the disk failed."""
  try:
    action()
  except ArchiveError as error:
    raise ArchiveError(f"{archive} cannot be unpacked: {error}") from error
  except _DAMAGE_ERRORS as error:
    raise ArchiveError(f"{archive} is damaged: {error}. Download or pack it again.") from error
  except OSError as error:
    if error.errno in (None, errno.EINVAL):  # A seek to an impossible offset.
      raise ArchiveError(f"{archive} is damaged: {error}. Download or pack it again.") from error
    raise OSError(error.errno, error.strerror, error.filename or str(archive)) from error


def _write_members(members: Iterator[tuple[str, IO[bytes] | None]], archive, folder) -> None:
  """Writes members into `folder`; a member is (name, open file), or (name, None) for a folder."""
  limit = min(MAX_BYTES, max(MAX_RATIO * archive.stat().st_size, FREE_BYTES))
  names, written = _MemberNames(), 0
  for count, (name, file) in enumerate(members, 1):
    preemption.check_if_single_process()
    parts = names.add(name, is_folder=file is None)
    if max(count, len(names)) > MAX_FILES:  # A file's name may imply folders.
      raise ArchiveError(f"it holds more than {MAX_FILES} files and folders. Split it.")
    if not parts or parts[0] == _SKIPPED_FOLDER:
      continue
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    if file is None:
      path.mkdir(exist_ok=True)
      continue
    with file, path.open("xb") as output:  # "x" never overwrites a file.
      while chunk := file.read(_CHUNK):
        written += len(chunk)
        if written > limit:
          raise ArchiveError(
            f"{name!r} exceeds {limit} bytes, the limit for an archive of this size. Unpack it "
            "yourself if you trust it."
          )
        output.write(chunk)


class _MemberNames:
  """The names of an archive's members; none may be written twice on any file system."""

  def __init__(self):
    # Maps a name as case-insensitive file systems compare it to (name, whether it is a file).
    self._entries: dict[str, tuple[str, bool]] = {}

  def __len__(self) -> int:
    return len(self._entries)

  def add(self, name: str, *, is_folder: bool) -> tuple[str, ...]:
    """Returns the parts of a name; raises ArchiveError if it is unsafe or a duplicate."""
    parts = _safe_parts(name)
    if not parts and not is_folder:
      raise ArchiveError(f"it holds a file without a name, {name!r}. Pack the folder again.")
    for depth in range(1, len(parts) + 1):
      path, is_file = "/".join(parts[:depth]), depth == len(parts) and not is_folder
      key = unicodedata.normalize("NFKC", path).casefold()
      earlier = self._entries.get(key)
      self._entries[key] = path, is_file
      if earlier and (earlier != (path, False) or is_file):
        raise ArchiveError(f"{earlier[0]!r} and {name!r} are the same path. Rename one of them.")
    return parts


def _safe_parts(name: str) -> tuple[str, ...]:
  path = pathlib.PurePosixPath(name)
  remedy = "Pack the folder again, with plain relative names."
  if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:|.*\\", name, re.DOTALL):
    raise ArchiveError(f"{name!r} lies outside its folder. {remedy}")
  if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
    raise ArchiveError(f"{name!r} holds control characters. {remedy}")
  if len(path.parts) > MAX_DEPTH or any(len(part.encode()) > MAX_NAME for part in path.parts):
    raise ArchiveError(f"{name[:80]!r}... is too long or too deep. {remedy}")
  return path.parts


def _members(archive: pathlib.Path) -> Iterator[tuple[str, IO[bytes] | None]]:
  return _zip_members(archive) if archive.name.lower().endswith(".zip") else _tar_members(archive)


def _holds_contents(folder: pathlib.Path, archive: pathlib.Path) -> bool:
  files = ((_safe_parts(name), file) for name, file in _members(archive) if file is not None)
  answer = []
  _call_naming_errors(lambda: answer.append(archive_records.holds(folder, files)), archive)
  return answer[0]


def _zip_members(archive: pathlib.Path) -> Iterator[tuple[str, IO[bytes] | None]]:
  with archive.open("rb") as raw, zipfile.ZipFile(BoundedFile(raw, _MAX_CONTENTS)) as file:
    for info in file.infolist():
      kind = stat.S_IFMT(info.external_attr >> 16)
      # Not info.is_dir(), which raises IndexError for an empty name.
      is_folder = kind == stat.S_IFDIR or info.filename.endswith("/")
      if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError(f"{info.filename!r} is a link or a device. Pack the files themselves.")
      if info.flag_bits & 1:
        raise ArchiveError(f"{info.filename!r} is encrypted. Unpack it yourself.")
      # Other methods allocate as much memory as a header asks for.
      if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(
          f"{info.filename!r} has an unsupported compression. Pack it again with deflate."
        )
      yield info.filename, None if is_folder else file.open(info)


def _tar_members(archive: pathlib.Path) -> Iterator[tuple[str, IO[bytes] | None]]:
  opener = gzip.open if archive.name.lower().endswith("gz") else open
  with opener(archive, "rb") as raw:
    bounded = BoundedFile(raw, _MAX_HEADER)
    with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:") as file:
      while (member := file.next()) is not None:
        if member.issparse() or member.size < 0 or not (member.isreg() or member.isdir()):
          raise ArchiveError(f"{member.name!r} is a link or a device. Pack the files themselves.")
        bounded.limit = _CHUNK
        yield member.name, None if member.isdir() else file.extractfile(member)
        bounded.limit = _MAX_HEADER
        cast(Any, file).members.clear()  # tarfile would keep every member in memory.
      # tarfile takes a damaged header for the end; the true end is a block of zeros.
      raw.seek(file.offset)
      if raw.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"there is neither a header nor an end mark at byte {file.offset}")


class BoundedFile:
  """A file that refuses to read more than `limit` bytes at once, whatever a header claims."""

  def __init__(self, file: IO[bytes] | io.BufferedIOBase, limit: int):
    self._file, self.limit = file, limit

  def read(self, size: int = -1) -> bytes:
    data = self._file.read(self.limit + 1 if size < 0 else min(size, self.limit + 1))
    if len(data) > self.limit:
      raise ArchiveError(f"one of its headers exceeds {self.limit} bytes. Pack it again.")
    return data

  def seek(self, offset: int, whence: int = 0) -> int:
    return self._file.seek(offset, whence)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._file, name)

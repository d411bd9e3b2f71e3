"""Unpacks data sets from .zip, .tar and .tar.gz files that may come from anywhere.

An archive may name places outside its folder, link to them, or hold far more than it seems to. Only
plain files and folders are made, at names that mean the same on every file system, and what counts is
the bytes that are written, not those that headers claim.
"""

import errno
import gzip
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
from typing import IO, Any

from lgag_jax.runtime import lock, preemption

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_BYTES = 1 << 37  # Unpacked, over all files: 128 GiB.
MAX_FILES = 500_000  # And folders; each takes an inode.
MAX_RATIO = 100  # Unpacked bytes a byte of the archive. Empty masks reach it, sets do not ...
FREE_BYTES = 1 << 26  # ... so the ratio is asked of larger ones only.
MAX_DEPTH = 16  # Folders in each other.
MAX_NAME = 200  # Bytes of a file's name; file systems end at 255.
_MAX_CONTENTS = 1 << 26  # Bytes of a zip's list of contents, which is held in memory.
_MAX_HEADER = 1 << 14  # Bytes of a tar's header; tarfile's time for them grows with their square.
_CHUNK = 1 << 20
_LEFT_OUT = "__MACOSX"  # What macOS adds to zip files, beside the data's own folder.
# What the standard library raises for damaged bytes, besides OSError.
_DAMAGES = (
  zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, struct.error, EOFError,
  NotImplementedError, RuntimeError, ValueError, OverflowError,
)


class ArchiveError(ValueError):
  """An archive that is not unpacked; the message names it, the member, and the remedy."""


def is_archive(path: pathlib.Path) -> bool:
  """Whether `path` is a file whose name says that it is an archive."""
  return path.name.lower().endswith(SUFFIXES) and path.is_file()


def unpacked(archive: pathlib.Path) -> pathlib.Path:
  """Returns the root of what `<archive>.unpacked` holds, after unpacking it if it is not there.

  Raises ArchiveError, also where the archive has changed since; OSError naming what cannot be written.
  """
  target = archive.with_name(archive.name + ".unpacked")
  if not target.exists():
    path = target.with_name(f"{target.name}.lock")
    with lock.wait_for(path, f"unpacking {archive}"):
      try:
        if not target.exists():  # Still not: another run may have.
          unpack(archive, target)
      finally:
        path.unlink(missing_ok=True)
  elif archive.stat().st_mtime_ns > target.stat().st_mtime_ns:
    raise ArchiveError(f"{archive} is newer than {target}: remove that folder to unpack it anew.")
  return root(target)


def root(folder: pathlib.Path) -> pathlib.Path:
  """Returns the one folder that is all that `folder` holds, hidden files aside, or `folder` itself."""
  entries = [entry for entry in folder.iterdir() if entry.name[0] != "."]
  return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def unpack(archive: pathlib.Path, target: pathlib.Path) -> None:
  """Unpacks `archive` into the folder `target`, which is made whole or not at all.

  Raises ArchiveError for a damaged archive, an encrypted one, and one with members outside its folder,
  links, devices, names twice (also when only case or accents' encoding differ) or more than MAX_BYTES,
  MAX_FILES or MAX_RATIO allow; OSError where the disk does not take it.
  """
  partial = target.with_name(f"{target.name}.partial")
  read = _zip_members if archive.name.lower().endswith(".zip") else _tar_members
  shutil.rmtree(partial, ignore_errors=True)  # What a killed run left.
  partial.mkdir()
  try:
    _named_errors(lambda: _write(read(archive), archive, partial), archive)
    # No older than the archive, also where the clocks of two machines differ.
    now = max(time.time_ns(), archive.stat().st_mtime_ns)
    os.utime(partial, ns=(now, now))
    partial.rename(target)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _named_errors(action: Callable[[], None], archive: pathlib.Path) -> None:
  """Calls `action`; its errors name the archive and say whether it or the disk is at fault."""
  try:
    action()
  except ArchiveError as error:
    raise ArchiveError(f"{archive} is not unpacked: {error}") from error
  except _DAMAGES as error:
    raise ArchiveError(f"{archive} is damaged: {error}. Fetch or pack it again.") from error
  except OSError as error:
    if error.errno in (None, errno.EINVAL):  # A seek to where no byte can be.
      raise ArchiveError(f"{archive} is damaged: {error}. Fetch or pack it again.") from error
    raise OSError(error.errno, error.strerror, error.filename or str(archive)) from error


def _write(members: Iterator[tuple[str, IO[bytes] | None]], archive, folder) -> None:
  """Writes members, (name, opened file or None for a folder), into `folder`."""
  limit = min(MAX_BYTES, max(MAX_RATIO * archive.stat().st_size, FREE_BYTES))
  names, written = _Names(), 0
  for count, (name, file) in enumerate(members, 1):
    preemption.check_alone()
    parts = names.add(name, is_folder=file is None)
    if max(count, len(names)) > MAX_FILES:  # Folders come with names, too.
      raise ArchiveError(f"it holds more than {MAX_FILES} files and folders. Split it.")
    if not parts or parts[0] == _LEFT_OUT:
      continue
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    if file is None:
      path.mkdir(exist_ok=True)
      continue
    with file, path.open("xb") as out:  # x: never into what is there.
      while chunk := file.read(_CHUNK):
        written += len(chunk)
        if written > limit:
          raise ArchiveError(
            f"{name!r} takes it past {limit} bytes, the most for an archive of its size. Unpack it "
            "yourself if you trust it."
          )
        out.write(chunk)


class _Names:
  """The names so far, so that none is written twice on any file system."""

  def __init__(self):
    # As file systems see it that fold case: (as it was given, whether it is a file).
    self._seen: dict[str, tuple[str, bool]] = {}

  def __len__(self) -> int:
    return len(self._seen)

  def add(self, name: str, *, is_folder: bool) -> tuple[str, ...]:
    """Returns a name's parts; raises ArchiveError when it is unsafe or taken."""
    parts = _parts(name)
    if not parts and not is_folder:
      raise ArchiveError(f"it holds a file without a name, {name!r}. Pack the folder anew.")
    for depth in range(1, len(parts) + 1):
      path, is_file = "/".join(parts[:depth]), depth == len(parts) and not is_folder
      key = unicodedata.normalize("NFKC", path).casefold()
      known = self._seen.get(key)
      self._seen[key] = path, is_file
      if known and (known != (path, False) or is_file):
        raise ArchiveError(f"it names {known[0]!r} and {name!r}, which are one place. Rename one.")
    return parts


def _parts(name: str) -> tuple[str, ...]:
  path = pathlib.PurePosixPath(name)
  remedy = "Pack the folder anew, with plain names relative to it."
  if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:|.*\\", name, re.DOTALL):
    raise ArchiveError(f"{name!r} lies outside its folder. {remedy}")
  if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
    raise ArchiveError(f"{name!r} holds letters that are no text. {remedy}")
  if len(path.parts) > MAX_DEPTH or any(len(part.encode()) > MAX_NAME for part in path.parts):
    raise ArchiveError(f"{name[:80]!r}... is too long or too deep. {remedy}")
  return path.parts


def _zip_members(archive: pathlib.Path) -> Iterator[tuple[str, IO[bytes] | None]]:
  with archive.open("rb") as raw, zipfile.ZipFile(Bounded(raw, _MAX_CONTENTS)) as file:
    for info in file.infolist():
      kind = stat.S_IFMT(info.external_attr >> 16)
      # Not info.is_dir(), which a name without any letter ends with an IndexError.
      is_dir = kind == stat.S_IFDIR or info.filename.endswith("/")
      if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError(f"{info.filename!r} is a link or a device. Pack the files themselves.")
      if info.flag_bits & 1:
        raise ArchiveError(f"{info.filename!r} is encrypted. Unpack it yourself.")
      # Others reserve as much memory as a header asks for.
      if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(f"{info.filename!r} is not packed by deflate. Pack it anew.")
      yield info.filename, None if is_dir else file.open(info)


def _tar_members(archive: pathlib.Path) -> Iterator[tuple[str, IO[bytes] | None]]:
  opener = gzip.open if archive.name.lower().endswith("gz") else open
  with opener(archive, "rb") as raw:
    bounded = Bounded(raw, _MAX_HEADER)
    with tarfile.open(fileobj=bounded, mode="r:") as file:
      while (member := file.next()) is not None:
        if member.issparse() or member.size < 0 or not (member.isreg() or member.isdir()):
          raise ArchiveError(f"{member.name!r} is a link or a device. Pack the files themselves.")
        bounded.at_most = _CHUNK
        yield member.name, None if member.isdir() else file.extractfile(member)
        bounded.at_most = _MAX_HEADER
        file.members.clear()  # Kept, they would grow with the archive.
      # tarfile takes a damaged header for the end, which is a block of zeros.
      raw.seek(file.offset)
      if raw.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"there is no header and no end at byte {file.offset}")


class Bounded:
  """A file of which at most `at_most` bytes are read at once, whatever a header claims."""

  def __init__(self, file: IO[bytes], at_most: int):
    self._file, self.at_most = file, at_most

  def read(self, size: int = -1) -> bytes:
    data = self._file.read(self.at_most + 1 if size < 0 else min(size, self.at_most + 1))
    if len(data) > self.at_most:
      raise ArchiveError(f"a header in it takes more than {self.at_most} bytes. Pack it anew.")
    return data

  def __getattr__(self, name: str) -> Any:
    return getattr(self._file, name)

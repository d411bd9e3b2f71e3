"""Writes files atomically: to a partial file beside the target, synced to disk, then renamed.

atomicwrites was considered: it is unmaintained, and yields an open file where GDAL needs a path.
"""

import contextlib
import errno
import hashlib
import io
import itertools
import json
import os
import pathlib
import re
import shutil
import stat
import unicodedata
from collections.abc import Iterator
from typing import IO, Any, BinaryIO

# Partial files, those of GDAL and SQLite beside them, and rows of a raster. Not locks: runs hold them.
_PARTIAL = re.compile(r"\.partial-[0-9a-f]{16}([.-](?!lock$).*)?|\.rows-.*\.(?:tif|png)", re.DOTALL)
_LITTLE_ROOM = 1 << 20  # Bytes.
MAX_READ_BYTES = 256 << 20  # Of a text or picture of an output.
_MAX_JSON_VALUES = 1 << 23  # Python takes up to 60 bytes for each; a list or an object counts twice.


@contextlib.contextmanager
def atomic_path(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a path with the same suffix to write to, and renames it to `path` at the end of the block.

  If the block raises, removes the partial file and leaves `path` as it was. An OSError names `path`.
  """
  partial = path.with_name(f"{partial_name(path)}{path.suffix}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)  # Of a killed run; a symbolic link would be followed.
    yield partial
    with partial.open("rb") as file:
      os.fsync(file.fileno())
    partial.rename(path)
  except BaseException as error:
    with contextlib.suppress(OSError):
      partial.unlink(missing_ok=True)
    if isinstance(error, OSError) and error.errno is not None:
      raise OSError(error.errno, f"{error.strerror}, not written", str(path)) from error
    raise


def partial_name(path: pathlib.Path) -> str:
  """Returns the name that a file or folder has until it is whole, without a suffix.

  It has a fixed length, so that it fits where the name itself is as long as the file system allows.
  """
  return f".partial-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}"


def remove_partials(*folders: pathlib.Path) -> None:
  """Removes the partial files that killed runs left in folders; call it under their lock."""
  for path in itertools.chain.from_iterable(folder.glob(".*") for folder in folders):
    if _PARTIAL.fullmatch(path.name) and path.is_file() and not path.is_symlink():
      path.unlink(missing_ok=True)


def fitting_name(name: str, max_bytes: int, source: str) -> str:
  """Returns a file name of up to `max_bytes` bytes of UTF-8; a changed one ends in `source`'s digest.

  The name is cut between two characters, and bytes that are no characters are removed: GDAL takes
  neither half a character nor such bytes. Control characters, and those that libraries read as parts of
  a URL, become "_".
  """
  whole = os.fsencode(name).decode(errors="ignore")
  whole = "".join("_" if _is_misread(letter) else letter for letter in whole)
  if whole == name and len(whole.encode()) <= max_bytes:
    return name
  digest = hashlib.sha256(os.fsencode(source)).hexdigest()[:16]
  return f"{whole.encode()[: max_bytes - 17].decode(errors='ignore')}_{digest}"


def _is_misread(letter: str) -> bool:
  return letter in ";!" or unicodedata.category(letter) == "Cc"


def require_utf8(path: pathlib.Path, name: str) -> None:
  """Raises ValueError if a path, which `name` describes, is not valid UTF-8: GDAL opens no other."""
  try:
    str(path).encode()
  except UnicodeEncodeError:
    raise ValueError(f"{name}: the name is not valid UTF-8. Rename the file or the folder.") from None


def is_disk_full(error: BaseException) -> bool:
  """Returns whether an error, of any library, says that a disk or a quota is full."""
  return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def write_error(path: pathlib.Path, error: Exception) -> OSError:
  """Returns the error of a file that GDAL could not write; it seldom says that the disk is full."""
  if shutil.disk_usage(path.parent).free > _LITTLE_ROOM:
    return OSError(f"{path} could not be written: {error}")
  return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def require_free_space(folder: pathlib.Path, size: int, what: str) -> None:
  """Raises OSError naming `folder` if its disk has less than `size` bytes free; ignores quotas."""
  free = shutil.disk_usage(folder).free
  if free < size:
    raise OSError(
      errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for {what}: {size / 2**20:.0f} MiB are needed, "
      f"{free / 2**20:.0f} MiB are free. Free some space, then run the same command again", str(folder),
    )


def require_plain(path: pathlib.Path) -> None:
  """Raises ValueError for a symbolic link, a pipe or a device; files, folders and nothing are fine.

  What is written to a link would change a file elsewhere.
  """
  mode = path.lstat().st_mode if os.path.lexists(path) else stat.S_IFREG
  if stat.S_ISLNK(mode):
    raise ValueError(
      f"{path} is a symbolic link, which lgag does not follow. Remove it, or use another folder."
    )
  if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
    raise _irregular(path)


def _irregular(path: pathlib.Path) -> ValueError:
  return ValueError(f"{path} is not a regular file. Remove or restore it.")


def new_file(path: pathlib.Path) -> IO[bytes]:
  """Opens a new file to write in place of an older one, whose other names keep its content."""
  path.unlink(missing_ok=True)
  return path.open("xb")


def write_text(path: pathlib.Path, content: str) -> None:
  """Writes text atomically."""
  with atomic_path(path) as partial:
    partial.write_text(content, encoding="utf-8")


def write_json(path: pathlib.Path, content: dict) -> None:
  """Writes JSON atomically."""
  write_text(path, json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def open_regular(path: pathlib.Path) -> Iterator[BinaryIO]:
  """Opens a file to read; raises ValueError for a pipe or device, which may never end."""
  descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # No pipe waits.
  try:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
      raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
      raise _irregular(path)
    with os.fdopen(descriptor, "rb", closefd=False) as file:
      yield file
  finally:
    os.close(descriptor)


def read_regular(path: pathlib.Path, max_bytes: int = MAX_READ_BYTES) -> bytes:
  """Reads a file; raises ValueError naming one that is larger than `max_bytes`, a pipe or a device."""
  with open_regular(path) as file:
    if (size := os.fstat(file.fileno()).st_size) > max_bytes:
      raise ValueError(
        f"{path} has {size >> 20} MiB, more than the {max_bytes >> 20} MiB allowed. Remove or restore "
        "it."
      )
    return file.read()


def read_text(path: pathlib.Path) -> str:
  """Reads text; raises ValueError naming what is none, as `read_regular` does."""
  content = read_regular(path)
  try:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8").read()
  except UnicodeDecodeError as error:
    raise ValueError(f"{path} is not valid text: {error}") from error


def read_json(path: pathlib.Path) -> Any:
  """Reads JSON; raises ValueError naming a file that is not valid JSON."""
  return parse_json(read_text(path), str(path))


def parse_json(text: str, name: str) -> Any:
  """Parses JSON; raises ValueError naming the file `name` if it is invalid or holds too many values."""
  return _parsed([text], f"{name} is not valid JSON")[0]


def read_json_lines(path: pathlib.Path) -> list[Any]:
  """Reads one JSON value per line; skips a last line that a running or killed run has not finished."""
  return _parsed(read_text(path).split("\n")[:-1], f"{path} is not valid JSON lines")


def _parsed(texts: list[str], fault: str) -> list[Any]:
  """Parses each text; raises ValueError that begins with `fault`."""
  if sum(text.count(mark) for text in texts for mark in ",[[{{") > _MAX_JSON_VALUES:
    raise ValueError(f"{fault}: it holds more than {_MAX_JSON_VALUES} values, too many to read")
  try:
    return [json.loads(text) for text in texts]
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{fault}: {error}") from error


def append_line(path: pathlib.Path, line: str, *, sync: bool = False) -> None:
  """Appends a line, synced with `sync`; on failure nothing of it stays. An OSError names `path`."""
  content = f"{line}\n".encode()
  with path.open("ab", buffering=0) as file:
    end = file.tell()
    try:
      if file.write(content) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      if sync:
        os.fsync(file.fileno())
    except OSError as error:
      file.truncate(end)
      raise OSError(error.errno, error.strerror, str(path)) from error


def write_at(file: IO[bytes], content: bytes, offset: int) -> None:
  """Writes bytes into an open file at an offset; raises OSError naming the file.

  Where a file has holes, a memory map would not do: on a full disk, writing to it kills the process.
  """
  left = memoryview(content)
  while left:
    try:
      count = os.pwrite(file.fileno(), left, offset)
    except OSError as error:
      raise OSError(error.errno, error.strerror, str(file.name)) from error
    left, offset = left[count:], offset + count

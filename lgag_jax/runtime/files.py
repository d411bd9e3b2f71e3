"""Files that are whole or not there: written beside their place, brought to disk, then renamed."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_MOST_ARRAY_BYTES = 4 << 30  # An evaluation's examples take some megabytes.


@contextlib.contextmanager
def beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a path, of the same suffix, to write to; it becomes `path` when the block ends well.

  Otherwise it is removed, and `path` stays as it was. An OSError names `path`.
  """
  # Of one length, so that a name as long as a file system takes is none too long.
  short = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
  partial = path.with_name(f".partial-{short}{path.suffix}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
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


@contextlib.contextmanager
def folder_beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a new folder to fill; it becomes `path`, which may be an empty folder, when all goes well.

  Otherwise it is removed, also what a killed run left of it. Raises OSError when `path` holds anything.
  """
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise FileExistsError(f"{path} is there already, and is no empty folder: name a new one.")
  partial = path.with_name(f".partial-{path.name}")
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  try:
    yield partial
    partial.rename(path)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def is_full(error: BaseException) -> bool:
  """Whether an error, a library's own kind too, says that a disk or a quota is full."""
  return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def require_room(folder: pathlib.Path, size: int, what: str) -> None:
  """Raises OSError naming `folder` when its disk has no room for `size` bytes; sees no quotas."""
  free = shutil.disk_usage(folder).free
  if free < size:
    raise OSError(
      errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for {what}: they take {size / 2**20:.0f} MiB and "
      f"{free / 2**20:.0f} are free. Free some, then run the same command again", str(folder),
    )


def write_text(path: pathlib.Path, content: str) -> None:
  """Writes text whole or not at all."""
  with beside(path) as partial:
    partial.write_text(content)


def write_json(path: pathlib.Path, content: dict) -> None:
  """Writes JSON whole or not at all."""
  write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: pathlib.Path) -> Any:
  """Reads JSON; raises ValueError naming the file when it is none."""
  try:
    return json.loads(path.read_text())
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path} holds no JSON that can be read: {error}") from error


def read_json_lines(path: pathlib.Path) -> list[Any]:
  """Reads a JSON value a line; half a last line, of a run that writes or was killed, is left out."""
  lines = path.read_text().split("\n")[:-1]
  try:
    return [json.loads(line) for line in lines]
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path} holds no JSON lines that can be read: {error}") from error


def append_line(path: pathlib.Path, line: str) -> None:
  """Appends a line whole or not at all; an OSError names `path`."""
  content = f"{line}\n".encode()
  with path.open("ab", buffering=0) as file:
    before = file.tell()
    try:
      if file.write(content) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
      file.truncate(before)
      raise OSError(error.errno, error.strerror, str(path)) from error


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads an .npz; raises ValueError naming it when it is damaged, huge, or holds objects."""
  try:
    with zipfile.ZipFile(path) as archive:
      size = sum(entry.file_size for entry in archive.infolist())
    if size > _MOST_ARRAY_BYTES:
      raise ValueError(f"it claims {size / 2**30:.0f} GiB")
    with np.load(path, allow_pickle=False) as arrays:
      return dict(arrays)
  except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
    raise ValueError(f"{path} cannot be read: {error}. Run --mode=eval again.") from error

"""Files that are whole or not there: written beside their place, brought to disk, then renamed."""

import contextlib
import errno
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
  partial = path.with_name(f".partial-{path.name}")
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


def append_line(path: pathlib.Path, line: str) -> None:
  """Appends a line whole or not at all; an OSError names `path`."""
  content = f"{line}\n".encode()
  with path.open("ab", buffering=0) as file:
    before, written = file.tell(), 0
    with contextlib.suppress(OSError):
      written = file.write(content)
    if written < len(content):
      file.truncate(before)
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


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

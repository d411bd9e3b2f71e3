"""Records beside an unpacked folder which archive it was unpacked from: its size, time and digest.

Times alone do not tell: wget, rsync and cp -p give a new archive the time that it had elsewhere.
"""

import contextlib
import hashlib
import pathlib
from collections.abc import Callable, Iterable
from typing import IO

from lgag_jax.runtime import files, preemption

_CHUNK = 1 << 20


def write(archive: pathlib.Path, folder: pathlib.Path) -> None:
  """Records that `folder` holds the contents of `archive`; raises OSError."""
  with archive.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  files.write_json(_path(folder), {**_state(archive), "sha256": digest})


def has_record(folder: pathlib.Path) -> bool:
  """Returns whether it is recorded which archive a folder comes from."""
  return _read(folder) is not None


def is_same(
  archive: pathlib.Path, folder: pathlib.Path, holds_contents: Callable[[], bool]
) -> bool:
  """Returns whether an archive is the one that a folder was unpacked from.

  The archive is only read if its size or time differ from the record's. Earlier releases wrote none:
  then an archive that came to its place after the folder is the same if `holds_contents` returns that
  the folder holds its files.
  """
  record = _read(folder)
  if record is not None and all(record.get(name) == value for name, value in _state(archive).items()):
    return True
  if record is not None:
    with archive.open("rb") as file:
      same = hashlib.file_digest(file, "sha256").hexdigest() == record.get("sha256")
  else:
    # Unlike the time of its contents, a command that copies a file cannot set this time.
    same = archive.stat().st_ctime_ns <= folder.stat().st_mtime_ns or holds_contents()
  if same:
    with contextlib.suppress(OSError):  # The data may lie on a disk that cannot be written.
      write(archive, folder)
  return same


def holds(folder: pathlib.Path, members: Iterable[tuple[tuple[str, ...], IO[bytes]]]) -> bool:
  """Returns whether no file of an archive, given with its path, differs from that in a folder.

  Files that the folder lacks do not count: its owner may remove some.
  """
  for parts, file in members:
    preemption.check_if_single_process()
    path = folder.joinpath(*parts)
    if not path.is_file():
      continue
    with file, path.open("rb") as other:
      while (chunk := file.read(_CHUNK)) == other.read(len(chunk) or 1):
        if not chunk:
          break
      else:
        return False
  return True


def _path(folder: pathlib.Path) -> pathlib.Path:
  return folder.with_name(f".{folder.name}.json")


def _state(archive: pathlib.Path) -> dict[str, int]:
  status = archive.stat()
  return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _read(folder: pathlib.Path) -> dict | None:
  try:
    record = files.read_json(_path(folder))
  except (OSError, ValueError):  # Without a record, contents decide.
    return None
  return record if isinstance(record, dict) else None

"""Writes folders atomically: under another name beside the target, which is locked, then renamed."""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator

from lgag_jax.runtime import files, lock


@contextlib.contextmanager
def atomic_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a new folder to fill, and renames it to `path` at the end of the block.

  If the block raises, removes the folder. Also removes what a killed run left. Raises FileExistsError
  unless `path` is missing or an empty folder, ValueError if another process is writing it.
  """
  # A link is not replaced by the folder, nor can "." be renamed.
  followed = path.is_symlink() or path.name in ("", "..")
  target = pathlib.Path(os.path.realpath(path)) if followed else path
  _require_empty(target, path)
  partial = target.with_name(files.partial_name(target))
  lock_path = partial.with_suffix(".lock")
  file = lock.try_acquire(lock_path)
  if file is None:
    raise ValueError(
      f"{path} is being written by {lock.owner(lock_path)}. Wait for it, or use another --output."
    )
  try:
    _require_empty(target, path)  # The last owner of the lock may have written it.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    partial.rename(target)
  except OSError as error:
    if files.is_disk_full(error):
      raise OSError(
        error.errno, f"{os.strerror(errno.ENOSPC)}, nothing was written", str(path)
      ) from error
    raise
  finally:
    shutil.rmtree(partial, ignore_errors=True)
    lock_path.unlink(missing_ok=True)
    file.close()


def _require_empty(target: pathlib.Path, path: pathlib.Path) -> None:
  """Raises FileExistsError unless a folder can take the target's place."""
  if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
    raise FileExistsError(f"{path} exists and is not an empty folder: choose a new one.")
  if os.path.ismount(target):
    raise FileExistsError(f"{path} is where a disk is mounted: choose a new folder in it.")

"""Locks that allow one run at a time in a workdir.

filelock was considered: it truncates a lock file before locking it, which erases the owner's name.
"""

import contextlib
import errno
import fcntl
import logging
import os
import pathlib
import re
import socket
import stat
import time
from collections.abc import Iterator
from typing import IO

from lgag_jax.runtime import files, preemption, processes

_LOG = logging.getLogger(__name__)

FILE_NAME = "lock"
_OWNER = re.compile(rb"process \d+ on \S+ since [\d: -]+\n?")
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def acquire(
  workdir: pathlib.Path, flag: str = "workdir", *, shared: bool = False
) -> IO[bytes]:
  """Locks a folder, which `--flag` names, until the returned file is closed or the process ends.

  The kernel holds the lock, so a killed process does not keep it; partial files that it left in the
  folder, or in eval/, are removed. Processes that ask for a `shared` lock hold it together, and remove
  nothing; they must ask one after the other. Raises ValueError naming the owner's process and host if
  another process holds the lock.
  """
  file = try_acquire(workdir / FILE_NAME, shared=shared)
  if file is None:
    raise ValueError(
      f"{workdir} is in use by {owner(workdir / FILE_NAME)}. Wait for it, or use another --{flag}."
    )
  if shared:
    return file
  folders = (workdir, workdir / "eval")
  # The folder itself may be named by a link; one in it would lead to the files of another.
  files.remove_partials(*(one for one in folders if one is workdir or not one.is_symlink()))
  return file


@contextlib.contextmanager
def hold(workdir: pathlib.Path, flag: str = "workdir") -> Iterator[None]:
  """Locks a folder, as `acquire` does, for all processes of this run."""
  held = []
  processes.run_on_first(lambda: held.append(acquire(workdir, flag)))
  try:
    yield
  finally:
    for file in held:
      file.close()


def try_acquire(path: pathlib.Path, *, shared: bool = False) -> IO[bytes] | None:
  """Acquires a lock file, as `acquire` does for a workdir; returns None if another process holds it.

  Raises ValueError naming a file that is not a lock: it is neither followed, if it is a symbolic link,
  nor emptied.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  while True:
    file = _open(path)
    try:
      fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
      file.close()
      return None
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.fstat(file.fileno()), path.lstat()):
        break
    file.close()  # Its last owner has removed it: another process may hold a new one.
  since = time.strftime("%Y-%m-%d %H:%M:%S")
  with contextlib.suppress(OSError):  # On a full disk the lock holds without its owner's name.
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode())
  return file


def _open(path: pathlib.Path) -> IO[bytes]:
  try:
    descriptor = os.open(path, _FLAGS, 0o666)
  except OSError as error:
    if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):  # A link, a folder, a socket.
      raise _not_a_lock(path) from error
    raise
  file = os.fdopen(descriptor, "a+b", buffering=0)
  content = b"-"
  if stat.S_ISREG(os.fstat(descriptor).st_mode):
    content = os.pread(descriptor, 1000, 0)
  if content and not _OWNER.fullmatch(content):
    file.close()
    raise _not_a_lock(path)
  return file


def _not_a_lock(path: pathlib.Path) -> ValueError:
  return ValueError(
    f"{path} is not a lock file of lgag, which would replace it: move it, or use another folder."
  )


def wait_for(path: pathlib.Path, activity: str) -> IO[bytes]:
  """Acquires a lock file as soon as it is free; the log names the owner and its `activity`."""
  is_logged = False
  while (file := try_acquire(path)) is None:
    if not is_logged:
      _LOG.info("Waiting for %s, which is %s.", owner(path), activity)
      is_logged = True
    preemption.check_if_single_process()
    time.sleep(0.5)
  return file


def owner(path: pathlib.Path) -> str:
  """Returns the current or the last owner of a lock file, in words."""
  return path.read_text().strip() or "another process"

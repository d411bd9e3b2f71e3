"""One run at a time in a workdir."""

import contextlib
import fcntl
import logging
import os
import pathlib
import socket
import time
from collections.abc import Iterator
from typing import IO

from lgag_jax.runtime import preemption, processes

_LOG = logging.getLogger(__name__)

NAME = "lock"


def take(workdir: pathlib.Path) -> IO[bytes]:
  """Takes a workdir for this process, until the file returned is closed or the process ends.

  The kernel holds the lock, so what a killed process leaves needs no clearing. Raises ValueError
  naming process and host when another has it.
  """
  file = try_take(workdir / NAME)
  if file is None:
    raise ValueError(
      f"{workdir} is in use by {owner(workdir / NAME)}. Wait for it, or use another --workdir."
    )
  return file


@contextlib.contextmanager
def hold(workdir: pathlib.Path) -> Iterator[None]:
  """Holds a workdir, as `take` does, for all processes of this run."""
  held = []
  processes.from_first(lambda: held.append(take(workdir)))
  try:
    yield
  finally:
    for file in held:
      file.close()


def try_take(path: pathlib.Path) -> IO[bytes] | None:
  """Takes a lock file as `take` does a workdir's; None when another process has it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  file = path.open("a+b", buffering=0)
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.close()
    return None
  since = time.strftime("%Y-%m-%d %H:%M:%S")
  with contextlib.suppress(OSError):  # Held all the same where the disk is too full to say by whom.
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode())
  return file


def wait_for(path: pathlib.Path, what: str) -> IO[bytes]:
  """Takes a lock file once no other process has it; `what` is what that one is doing."""
  told = False
  while (file := try_take(path)) is None:
    if not told:
      _LOG.info("Waiting for %s, which is %s.", owner(path), what)
      told = True
    preemption.check_alone()
    time.sleep(0.5)
  return file


def owner(path: pathlib.Path) -> str:
  """Says who has a lock file, or had it last."""
  return path.read_text().strip() or "another process"

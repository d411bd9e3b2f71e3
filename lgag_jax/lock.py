"""One run at a time in a workdir."""

import fcntl
import os
import pathlib
import socket
import time
from typing import IO

NAME = "lock"


def take(workdir: pathlib.Path) -> IO[str]:
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


def try_take(path: pathlib.Path) -> IO[str] | None:
  """Takes a lock file as `take` does a workdir's; None when another process has it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  file = path.open("a+")
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.close()
    return None
  file.truncate(0)
  file.write(
    f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
  )
  file.flush()
  return file


def owner(path: pathlib.Path) -> str:
  """Says who has a lock file, or had it last."""
  return path.read_text().strip() or "another process"

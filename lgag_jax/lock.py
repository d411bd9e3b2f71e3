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
  workdir.mkdir(parents=True, exist_ok=True)
  file = (workdir / NAME).open("a+")
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.seek(0)
    owner = file.read().strip() or "another process"
    file.close()
    raise ValueError(
      f"{workdir} is in use by {owner}. Wait for it, or use another --workdir."
    ) from None
  file.truncate(0)
  file.write(
    f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
  )
  file.flush()
  return file

"""Tells whether a program opens a file that it should not: a named pipe, which a reader waits for."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time

_SECONDS = 30


def make_pipe(folder):
  """Makes a pipe in a folder; returns its path."""
  path = pathlib.Path(folder) / "pipe"
  if not path.exists():
    os.mkfifo(path)
  return path


def opens(pipe, code, *arguments):
  """Returns whether a Python program opens the pipe for reading, and what it writes to both streams."""
  program = subprocess.Popen(
    [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)], text=True,
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
  )
  end, opened = time.monotonic() + _SECONDS, False
  while program.poll() is None and not opened and time.monotonic() < end:
    with contextlib.suppress(OSError):  # Nobody has opened it for reading.
      os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
      opened = True
    time.sleep(0.005)
  program.kill()
  return opened, program.communicate()[0]

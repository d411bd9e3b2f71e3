"""A process that a killed server left running.

It is recognised by its number, the time of its start, and its command: the record of it may come from
somebody else, and name any process.
"""

import os
import pathlib
import signal
from typing import Any

_PLACES = ("--output=", "--workdir=")  # Flags with a folder that a command writes.
_START_FIELD = 19  # Of /proc/<pid>/stat, counted after the name: the time since the machine's start.


def identify(pid: int) -> dict[str, Any]:
  """Returns what tells a process from a later one of the same number."""
  return {"pid": pid, "started": _start_time(pid)}


def is_running(process: Any, program: str, folder: pathlib.Path) -> bool:
  """Returns whether a process that `identify` described still runs; False where nobody can tell.

  Its command must have the word `program`, and write a folder in `folder`.
  """
  try:
    pid, started = int(process["pid"]), process["started"]
  except (LookupError, TypeError, ValueError):
    return False
  return started is not None and _start_time(pid) == started and _writes(pid, program, folder)


def stop(process: dict[str, Any], program: str, folder: pathlib.Path) -> None:
  """Asks such a process to end in order."""
  if is_running(process, program, folder):
    os.kill(int(process["pid"]), signal.SIGTERM)


def _writes(pid: int, program: str, folder: pathlib.Path) -> bool:
  """Returns whether a process runs a program that writes a folder in `folder`."""
  try:
    content = pathlib.Path("/proc", str(pid), "cmdline").read_bytes()
    current = pathlib.Path("/proc", str(pid), "cwd").readlink()
  except OSError:
    return False
  words = os.fsdecode(content).split("\0")
  values = (word.partition("=")[2] for word in words if word.startswith(_PLACES))
  parents = (pathlib.Path(os.path.realpath(current / value)).parent for value in values)
  return program in words and pathlib.Path(os.path.realpath(folder)) in parents


def _start_time(pid: int) -> int | None:
  """Returns a process's time of start; None if it has ended, or the system has no /proc."""
  try:
    fields = pathlib.Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[_START_FIELD])
  except (OSError, LookupError, ValueError):
    return None

"""A process that a killed server left running, recognised by its number and the time of its start."""

import os
import pathlib
import signal
from typing import Any

_START_FIELD = 19  # Of /proc/<pid>/stat, counted after the name: the time since the machine's start.


def identify(pid: int) -> dict[str, Any]:
  """Returns what tells a process from a later one of the same number."""
  return {"pid": pid, "started": _start_time(pid)}


def is_running(process: Any) -> bool:
  """Returns whether a process that `identify` described still runs; False where nobody can tell."""
  try:
    pid, started = int(process["pid"]), process["started"]
  except (LookupError, TypeError, ValueError):
    return False
  return started is not None and _start_time(pid) == started


def stop(process: dict[str, Any]) -> None:
  """Asks such a process to end in order."""
  if is_running(process):
    os.kill(process["pid"], signal.SIGTERM)


def _start_time(pid: int) -> int | None:
  """Returns a process's time of start; None if it has ended, or the system has no /proc."""
  try:
    fields = pathlib.Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[_START_FIELD])
  except (OSError, LookupError, ValueError):
    return None

"""Measures how much memory uses take: each in a process of its own, or one would hide another."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping

ROOT = pathlib.Path(__file__).parent.parent


def peak() -> int:
  """Returns the largest memory of this process so far, in MiB."""
  status = pathlib.Path("/proc/self/status").read_text()
  return int(status.split("VmHWM:")[1].split()[0]) >> 10


def print_growths(uses: Mapping[str, Callable[[], object]]) -> None:
  """Prints by how many MiB each use grows a fork of this process."""
  for name, use in uses.items():
    if os.fork():
      assert os.wait()[1] == 0
      continue
    before = peak()
    use()
    print(json.dumps([name, peak() - before]), flush=True)
    os._exit(0)


def growths(script: str, *arguments: object) -> dict[str, int]:
  """Runs a script that calls `print_growths` in a new process; returns what it prints."""
  command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
  run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
  return dict(map(json.loads, run.stdout.splitlines()))

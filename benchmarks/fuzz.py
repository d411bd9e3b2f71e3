"""Feeds every reader damaged and hostile files, and counts what comes of it.

python -m benchmarks.fuzz --inputs=10000 --only=image-png,archive-zip --json=fuzz.json

Each reader runs in processes of its own, so that a crash ends none but these. A reader may read a file
or refuse it with an error that names it; all else is a fault: another error, a crash, more than
SECONDS, more than PEAK_MIB. Inputs at fault are kept in the folder that --keep names.
"""

import argparse
import collections
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import cast

from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks import fuzz_inputs
from benchmarks.fuzz_readers import READERS, Reader, find
from lgag_jax.pages import rendering

SECONDS = 5
PEAK_MIB = 600  # Memory that a process may take beyond that before its first input.
GIB = 4  # Address space beyond that of the process before its first input.
_CHUNK = 2500  # Inputs a process.


def feed(name: str, number: int, count: int, folder: pathlib.Path) -> None:
  """Feeds `count` inputs, drawn with seed `number`, to a reader, and logs a line for each.

  The input stays in `folder` while it is read, so that it is there after a crash.
  """
  reader, log = find(name), (folder / "log").open("a", buffering=1)
  place = folder / "place"
  place.mkdir()
  reader.prepare(place)
  seeds = reader.seeds()
  (place / reader.name).write_bytes(seeds[0])
  _outcome(reader, place / reader.name)  # Imports what it needs before memory is limited.
  _limit_memory()
  base, peak = _status("VmHWM"), [0.0]

  @seed(number)
  @settings(
    max_examples=count, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
    suppress_health_check=cast(list[HealthCheck], list(HealthCheck)),
  )
  @given(data=fuzz_inputs.inputs(seeds, reader.repair))
  def one(data: bytes) -> None:
    path = place / reader.name
    path.write_bytes(data)
    signal.alarm(2 * SECONDS)  # Ends the process also where it hangs in C.
    started = time.perf_counter()
    outcome, message = _outcome(reader, path)
    seconds = time.perf_counter() - started
    signal.alarm(0)
    if seconds > SECONDS:
      outcome, message = "slow", f"took {seconds:.1f} s"
    growth = (_status("VmHWM") - base) / 1024
    # The peak of a process never falls, so the first input above the limit counts.
    if growth > PEAK_MIB >= peak[0]:
      outcome, message = "memory", f"took {growth:.0f} MiB"
    peak[0] = max(peak[0], growth)
    if outcome not in ("read", "refused"):
      shutil.copy(path, folder / f"fault-{number}-{time.monotonic_ns()}-{reader.name}")
    log.write(json.dumps([outcome, message, 1000 * seconds, growth]) + "\n")

  one()


def _outcome(reader: Reader, path: pathlib.Path) -> tuple[str, str]:
  try:
    reader.read(path)
  except (ValueError, OSError) as error:
    # A manifest's images have names of their own.
    named = str(path.parent) in str(error) or path.name in str(error)
    return ("refused", "") if named else ("unnamed", f"{type(error).__name__}: {error}"[:300])
  except Exception as error:
    return "error", f"{type(error).__name__}: {error}"[:300]
  return "read", ""


def _limit_memory() -> None:
  limit = (_status("VmSize") << 10) + (GIB << 30)
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _status(field: str) -> int:
  """Returns a field of this process's status, in KiB."""
  text = pathlib.Path("/proc/self/status").read_text()
  return int(text.split(f"{field}:")[1].split()[0])


def run(name: str, inputs: int, keep: pathlib.Path | None = None, *, first_seed: int = 0) -> dict:
  """Fuzzes one reader in processes of its own; returns the table's row, with faults by message."""
  rows, number, faults = [], first_seed, collections.Counter()
  # A reader that crashes at once is not tried for ever.
  while len(rows) < inputs and number < first_seed + 20 + 2 * inputs // _CHUNK:
    with tempfile.TemporaryDirectory() as place:
      folder = pathlib.Path(place)
      command = [sys.executable, "-m", "benchmarks.fuzz", "--child", name, str(number)]
      count = min(_CHUNK, inputs - len(rows))
      child = subprocess.run([*command, str(count), place], capture_output=True, text=True)
      log = folder / "log"
      new = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
      if child.returncode:
        reason = f"exit {child.returncode}: {child.stderr[-300:]}"
        new.append(["crash", reason, 0.0, 0.0])
        _keep(keep, name, folder.glob(f"place/{find(name).name}"), f"crash-{number}-")
      _keep(keep, name, folder.glob("fault-*"), "")
      rows += new
    number += 1
  faults.update(message for outcome, message, *_ in rows if outcome not in ("read", "refused"))
  outcomes = collections.Counter(row[0] for row in rows)
  return {
    "reader": name, "inputs": len(rows), "read": outcomes["read"], "refused": outcomes["refused"],
    "crashes": outcomes["crash"], "faults": sum(faults.values()) - outcomes["crash"],
    "slowest_ms": round(max(row[2] for row in rows), 1), "peak_mib": round(max(row[3] for row in rows)),
    "messages": dict(faults.most_common(20)),
  }


def _keep(keep, name, paths, prefix):
  for path in paths if keep else ():
    (keep / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(path, keep / name / f"{prefix}{path.name}")


def table(rows: list[dict]) -> str:
  """Returns the rows as a Markdown table."""
  columns = ("reader", "inputs", "read", "refused", "crashes", "faults", "slowest_ms", "peak_mib")
  return rendering.markdown_table(columns, [[row[column] for column in columns] for row in rows])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--inputs", type=int, default=10_000, help="for each reader")
  parser.add_argument("--only", default=",".join(READERS), help="names of readers, with commas")
  parser.add_argument("--json", type=pathlib.Path, help="a file for the rows")
  parser.add_argument("--keep", type=pathlib.Path, help="a folder for inputs at fault")
  parser.add_argument("--seed", type=int, default=0, help="of the first process; others follow")
  parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.child:
    name, number, count, folder = arguments.child
    feed(name, int(number), int(count), pathlib.Path(folder))
    os._exit(0)  # Not through the ends of libraries that a damaged file may have left in any state.
  rows = []
  for name in arguments.only.split(","):
    rows.append(run(name, arguments.inputs, arguments.keep, first_seed=arguments.seed))
    print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
      arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
  print(table(rows))


if __name__ == "__main__":
  main()

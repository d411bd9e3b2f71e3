"""Measures speed, memory and FLOPs of training on this machine; a table and a JSON file of all of it.

python -m benchmarks.speed --output=runs/speed
python -m benchmarks.speed --output=runs/speed --only steps input
python -m benchmarks.speed --output=runs/speed --only torch --torch=/path/to/python-with-torch

Every measurement has a process of its own; one that fails is recorded, and the exit code is 1 at the
end. Sections measured before in the same folder are kept. Keep the machine free of other work.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from benchmarks.speed import plan, tables, timing

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_LIMIT_S = 900.0  # Of one process.


class Failed(Exception):
  """A measurement's process ended without a result; the text is its last line."""


def call(command: list[str], *, quick: bool, limit_s: float = _LIMIT_S) -> dict:
  """Runs a process that prints JSON as its last line, and returns that; raises Failed."""
  process = subprocess.Popen(
    command, cwd=ROOT, env=timing.environment(quick=quick), text=True, stdout=subprocess.PIPE,
    stderr=subprocess.PIPE, start_new_session=True,
  )
  try:
    out, errors = process.communicate(timeout=limit_s)
  except subprocess.TimeoutExpired:
    out, errors = None, f"it took more than {limit_s:.0f} s"
  finally:
    # Whatever it started itself, its session ends with it.
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()
  if out is None or process.returncode:
    last = [line.strip() for line in errors.splitlines() if line.strip()][-1:]
    raise Failed(last[0] if last else f"exit code {process.returncode}")
  return json.loads(out.strip().splitlines()[-1])


def measure(settings: dict, *, quick: bool, limit_s: float = _LIMIT_S) -> dict:
  """Runs one case in a new process of this Python."""
  command = [sys.executable, "-m", "benchmarks.speed.cases", json.dumps(settings)]
  return call(command, quick=quick, limit_s=limit_s)


def against_torch(settings: dict, python: str, *, quick: bool) -> dict:
  """Runs our trunk and PyTorch's forms in turn; raises Failed where parameters or FLOPs differ.

  A machine on which PyTorch cannot compile has the reason in "not_compiled".
  """
  script = str(ROOT / "benchmarks" / "speed" / "torch_trunks.py")
  rounds, last, reason = [], {}, None
  with tempfile.TemporaryDirectory() as cache:
    ours = {**settings, "kind": "trunk", "cache": cache}
    sides = {"ours": lambda: measure(ours, quick=quick)}
    for side, layout in tables.TORCH_FORMS.items():
      theirs = json.dumps({**settings, "layout": layout, "compile": side == "compiled"})
      sides[side] = lambda theirs=theirs: call([python, script, theirs], quick=quick)
    for number in range(settings["pairs"]):
      # Every other round goes backwards: a machine that slows down favours no side.
      for side in list(sides)[:: -1 if number % 2 else 1]:
        try:
          last[side] = sides[side]()
        except Failed as error:
          if side != "compiled" or number:
            raise
          reason = str(error)
          del sides[side]
      check_same(last["ours"], last["contiguous"])
      rounds.append({side: last[side]["images_per_s"] for side in sides})
  return {
    "rounds": rounds, **tables.torch_ratios(rounds), "parameters": count(last["ours"]["parameters"]),
    "flops": last["ours"]["flops"], "not_compiled": reason,
    **{key: last["contiguous"][key] for key in ("torch", "threads")},
  }


def count(shapes: dict[str, list[int]]) -> int:
  """Counts the numbers in arrays of these shapes."""
  total = 0
  for shape in shapes.values():
    product = 1
    for length in shape:
      product *= length
    total += product
  return total


def check_same(ours: dict, theirs: dict) -> None:
  """Raises Failed, naming the first layers, where parameters differ, or FLOPs by more than 0.5 %."""
  names, others = ours["parameters"], theirs["parameters"]
  different = [name for name in sorted(names | others) if names.get(name) != others.get(name)]
  if different:
    shown = ", ".join(f"{name} {names.get(name)} {others.get(name)}" for name in different[:3])
    raise Failed(f"{len(different)} parameters differ from PyTorch's: {shown}")
  # Position embeddings are brought to another grid by products here, which PyTorch does not count.
  if abs(ours["flops"] - theirs["flops"]) > 0.005 * theirs["flops"]:
    raise Failed(f"{ours['flops']:,} FLOPs, not PyTorch's {theirs['flops']:,}")


def run_section(name: str, arguments: argparse.Namespace, record: dict) -> bool:
  """Measures a section into `record`, written after every case; returns whether all went well."""
  start = time.monotonic()
  section = record["sections"][name] = {
    "quick": arguments.quick, "machine": timing.machine(), "load_before": timing.load(), "cases": [],
    "seconds": 0.0,
  }
  if name == "torch" and not arguments.torch:
    section["not_run"] = "give --torch, a Python that has torch."
    write(arguments.output, record)
    return True
  good = True
  for case in plan.cases(name, quick=arguments.quick, output=arguments.output):
    labels = ", ".join(f"{key} {value}" for key, value in case["labels"].items())
    print(f"{name}: {labels} ...", flush=True)
    settings, quick = case["settings"], arguments.quick
    try:
      if settings["kind"] == "torch":
        case["result"] = against_torch(settings, arguments.torch, quick=quick)
      else:
        case["result"] = measure(settings, quick=quick)
    except (Failed, OSError, ValueError) as error:
      case["error"] = str(error)
      good = False
      print(f"  failed: {error}", flush=True)
    section["cases"].append(case)
    section |= {"load_after": timing.load(), "seconds": time.monotonic() - start}
    write(arguments.output, record)
  print(tables.table(name, section["cases"]) + "\n", flush=True)
  return good


def write(output: pathlib.Path, record: dict) -> None:
  """Writes speed.json and speed.md, each whole or not at all."""
  texts = {"speed.json": json.dumps(record, indent=1), "speed.md": tables.report(record)}
  for name, text in texts.items():
    beside = output / f"{name}.new"
    beside.write_text(text)
    beside.replace(output / name)


def read(output: pathlib.Path) -> dict:
  """Returns what was measured into the folder before."""
  path = output / "speed.json"
  return json.loads(path.read_text()) if path.exists() else {"sections": {}}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--output", required=True, type=pathlib.Path)
  names = tables.SECTIONS
  parser.add_argument("--only", nargs="+", choices=names, default=names, help="sections")
  parser.add_argument("--torch", default="", help="a Python that has torch, for the section torch")
  parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it works")
  arguments = parser.parse_args()
  # So that what is being measured ends with this process.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  if "torch" in arguments.only and arguments.only is not names and not arguments.torch:
    parser.error("the section torch needs --torch, a Python that has torch.")
  arguments.output = arguments.output.absolute()
  arguments.output.mkdir(parents=True, exist_ok=True)
  record = read(arguments.output)
  good = [run_section(name, arguments, record) for name in arguments.only]
  print(f"{arguments.output}/speed.md")
  sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
  main()

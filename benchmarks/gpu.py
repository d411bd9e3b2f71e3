"""What one GPU does, checked and measured in eight minutes; the first thing to run on a new machine.

pip install .[cuda] && python -m benchmarks.gpu --output=runs/gpu

First whether the GPU computes what the CPU does. Then training and mapping by trunk, batch and
precision, the input pipeline beside training, and what a second process on the same GPU meets. Every
measurement has a process of its own. One that fails or takes too long is recorded, and the rest goes
on. Writes gpu.md and gpu.json after each; what no time was left for is named. The exit code is 1 if
anything failed or disagreed. `--quick` rehearses with tiny sizes, on any machine.
"""

import argparse
import concurrent.futures
import json
import pathlib
import sys
import time

from benchmarks.speed import timing
from benchmarks.speed.__main__ import Failed, call, measure

_BUDGET_S = 480.0
_LIMIT_S = 120.0  # Of one measurement.
_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}  # Of losses, relative, and of maps.
_QUICK = {
  "data.image_size": 64, "train.batch_size": 2, "model.head_width": 16, "bank.slots": 40,
  "localize.batch_size": 2,
}


def plan(quick: bool) -> list[dict]:
  """Returns the measurements, the most telling first."""
  repeats = {"repeats": 2} if quick else {"repeats": 10, "at_least_s": 2.0}
  base = {"file": "image_folder", "method": "lgag"}
  sizes = _QUICK if quick else {}
  trunk = lambda name: {"model.trunk": name, "model.weights": "random"}
  lite, resnet, vit = (trunk(n) for n in ("efficientnet_lite0", "resnet50", "dinov2_vits14"))
  trained = {"model.first_trainable_stage": 1, "data.augment": "image"}

  def agree(name: str, changes: dict, precision: str) -> dict:
    changes = {"train.batch_size": 8, **changes, "model.precision": precision, **sizes}
    return {"what": f"agreement, {name}", "precision": precision, "kind": "agreement", **base,
            "changes": changes, "steps": 3}

  def train(name: str, changes: dict, batch: int, precision: str = "float32", taps=False) -> dict:
    changes = {**changes, "train.batch_size": batch, "model.precision": precision, **sizes}
    return {"what": f"training, {name}", "batch": changes["train.batch_size"], "kind": "step",
            "precision": precision, **base, "changes": changes, "taps": taps, "warm": False, **repeats}

  def mapping(name: str, changes: dict, precision: str = "float32") -> dict:
    changes = {**changes, "model.precision": precision, "localize.batch_size": 32, **sizes}
    return {"what": f"mapping, {name}", "batch": changes["localize.batch_size"], "kind": "mapping",
            "precision": precision, **base, "changes": changes, **repeats}

  frozen = "Lite0, frozen, from its kept outputs"
  cases = [
    agree("Lite0, frozen", lite, "float32"), agree("Lite0, trained", {**lite, **trained}, "float32"),
    train(frozen, lite, 32, taps=True), mapping("Lite0", lite),
    train("Lite0, trained", {**lite, **trained}, 32),
    train("ResNet-50, trained", {**resnet, **trained}, 32),
    train("ResNet-50, trained", {**resnet, **trained}, 32, "bfloat16"),
    mapping("Lite0", lite, "bfloat16"), mapping("ResNet-50", resnet), mapping("ViT-S/14", vit),
    train("ViT-S/14, frozen", vit, 32), train("Lite0, trained", {**lite, **trained}, 32, "bfloat16"),
    agree("Lite0, frozen", lite, "bfloat16"),
    {"what": "input pipeline beside training", "kind": "input", "size": 64 if quick else 256, **base,
     "images": 8 if quick else 320, "passes": 2, "steps": 2 if quick else 8, "repeats": 2,
     "changes": {"train.batch_size": 32, **sizes}, "taps": True, "precision": "float32"},
    train(frozen, lite, 256, taps=True), train("Lite0, trained", {**lite, **trained}, 128),
    mapping("ResNet-50", resnet, "bfloat16"),
    {"what": "two processes at once", "kind": "two", "precision": "float32"},
  ]
  return [cases[i] for i in (0, 2, 3, -1)] if quick else cases


def run(case: dict, *, quick: bool, limit_s: float) -> dict:
  """Runs one measurement; raises Failed with the last line of its error."""
  if case["kind"] == "two":
    return _two(quick=quick, limit_s=limit_s)
  settings = {k: v for k, v in case.items() if k not in ("what", "batch", "precision")}
  return measure(settings, quick=quick, limit_s=limit_s)


def _two(*, quick: bool, limit_s: float) -> dict:
  """Trains in two processes at the same time; returns how each of them ended."""
  case = next(c for c in plan(quick) if c["kind"] == "step")

  def end(_: int) -> str:
    try:
      return f"{run(case, quick=quick, limit_s=limit_s)['images_per_s']:.3g} images/s"
    except Failed as error:
      return str(error)

  with concurrent.futures.ThreadPoolExecutor(2) as threads:
    first, second = threads.map(end, range(2))
  return {"first": first, "second": second}


def disagrees(case: dict) -> bool:
  """Whether the accelerator's numbers are further from the CPU's than rounding explains."""
  result = case.get("result", {})
  limit = _TOLERANCE[case["precision"]]
  return any(result.get(name, 0.0) > limit for name in ("loss_difference", "map_difference"))


def report(record: dict) -> str:
  """Returns the page."""
  machine, rows = record["machine"], []
  for case in record["cases"]:
    cells = [case["what"], case["precision"], str(case.get("batch", "")), _figure(case), _memory(case)]
    rows.append(f"| {' | '.join(cells)} |")
  missing = [case["what"] for case in record["left_out"]]
  return "\n".join([
    "# One accelerator", "", "Written by `python -m benchmarks.gpu`; all numbers are in gpu.json.", "",
    f"{record['device']}; {machine['cores']} cores of {machine['cpu']}; jax {machine['jax']}; "
    f"{machine['date']}; {record['seconds']:.0f} s.", "",
    "| what | precision | batch | result | peak MiB on the device |", "| --- | --- | --- | --- | --- |",
    *rows, "", f"No time was left for: {'; '.join(missing)}." if missing else "Everything was run.", "",
  ])


def _figure(case: dict) -> str:
  if "error" in case:
    return f"**failed**: {case['error']}".replace("|", "/")
  result = case["result"]
  if case["kind"] == "agreement":
    verdict = "**differs from the CPU**" if disagrees(case) else "as on the CPU"
    return (
      f"{verdict}: losses within {result['loss_difference']:.1e}, maps within "
      f"{result['map_difference']:.1e}"
    )
  if case["kind"] == "step":
    share = f"{100 * result['share_of_product']:.0f} % of a matrix product's rate"
    return f"{result['images_per_s']:.3g} images/s, {share}"
  if case["kind"] == "mapping":
    return f"{result['megapixels_per_s']:.3g} MP/s"
  if case["kind"] == "two":
    return f"the one: {result['first']}; the other: {result['second']}".replace("|", "/")
  return f"waiting for input {100 * result['waiting_share']:.1f} % of the time"


def _memory(case: dict) -> str:
  peak = case.get("result", {}).get("device_peak_mib")
  return "" if peak is None else f"{peak:,.0f}"


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--output", required=True, type=pathlib.Path)
  parser.add_argument("--seconds", type=float, default=_BUDGET_S, help="for all measurements together")
  parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it works")
  arguments = parser.parse_args()
  arguments.output.mkdir(parents=True, exist_ok=True)
  start, cases = time.monotonic(), plan(arguments.quick)
  record = {"device": _device(arguments.quick), "machine": timing.machine(), "cases": [],
            "left_out": [], "seconds": 0.0}
  print(record["device"], flush=True)
  for case in cases:
    left = arguments.seconds - (time.monotonic() - start)
    if left < 10.0:
      record["left_out"].append(case)
      continue
    print(f"{case['what']}, {case['precision']} ...", flush=True)
    try:
      case["result"] = run(case, quick=arguments.quick, limit_s=min(_LIMIT_S, left))
    except (Failed, OSError, ValueError) as error:
      case["error"] = str(error)
    print(f"  {_figure(case)}", flush=True)
    record["cases"].append(case)
    record["seconds"] = time.monotonic() - start
    _write(record, arguments.output)
  _write(record, arguments.output)
  print(f"{arguments.output}/gpu.md")
  sys.exit(1 if any("error" in case or disagrees(case) for case in record["cases"]) else 0)


def _write(record: dict, output: pathlib.Path) -> None:
  (output / "gpu.json").write_text(json.dumps(record, indent=1))
  (output / "gpu.md").write_text(report(record))


def _device(quick: bool) -> str:
  """Returns what JAX computes on, asked in a process of its own, which gives the device back."""
  code = """
import jax, json
devices = jax.devices()
print(json.dumps(f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"))
"""
  return str(call([sys.executable, "-c", code], quick=quick))


if __name__ == "__main__":
  main()

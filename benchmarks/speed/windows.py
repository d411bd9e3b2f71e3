"""Windows mapped a second: here, in ONNX Runtime, OpenVINO and PyTorch, in turns.

python -m benchmarks.speed.windows --workdir=runs/demo --onnx=PYTHON --torch=PYTHON

The first PYTHON has onnxruntime and openvino, which run the exported network. The other one has torch,
which runs the trunk of the default network alone, written plainly. Each takes its turn in a process of
its own, five rounds, on windows of the training size; a ratio is the median over the rounds. Keep the
machine free of other work.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from benchmarks.speed import tables, timing
from benchmarks.speed.__main__ import call
from lgag_jax.export import export
from lgag_jax.mapping import predict, window_pipeline, window_scores
from lgag_jax.options.export import Settings
from lgag_jax.pages import rendering

_SECONDS = 8.0  # Of a turn.
_ROUNDS = 5
_TOGETHER = 8  # Windows in one program.
_SIDE = 256  # Of PyTorch's, which is the default's training size.
_ONNX, _TORCH = (
  str(pathlib.Path(__file__).with_name(name)) for name in ("onnx_engines.py", "torch_trunks.py")
)


def here(workdir: pathlib.Path, together: bool) -> float:
  """Returns windows a second of the compiled program: several in one, or one in each of several."""
  model = predict.load_model(workdir)
  plan = export.training_windows(model)
  scores = window_scores.make_window_scores(model.network, model.config, model.mesh, plan)
  count = _TOGETHER if together else 1
  shape = count, plan.side, plan.side, model.config.data.channels
  pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  compute = lambda _: jax.block_until_ready(scores(model.state, pixels))
  threads = 1 if together else window_pipeline.programs_at_once(model.config, model.mesh, plan)
  compute(0)
  with ThreadPoolExecutor(threads) as pool:
    done, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < _SECONDS:
      done += len(list(pool.map(compute, range(4 * threads)))) * count
  return done / seconds


def measure(workdir: pathlib.Path, onnx: str, torch: str) -> dict[str, list[float]]:
  """Returns windows a second of each, a number per round."""
  own = [sys.executable, "-m", "benchmarks.speed.windows", f"--workdir={workdir}", "--turn"]
  commands = {"several programs of one window": [*own, "apart"],
              f"one program of {_TOGETHER} windows": [*own, "together"]}
  with tempfile.TemporaryDirectory() as folder:
    for batch in (1, _TOGETHER) if torch else ():
      for form, layout in tables.TORCH_FORMS.items():
        settings = {"trunk": "efficientnet_lite0", "batch": batch, "size": _SIDE, "layout": layout,
                    "compile": form == "compiled", "seconds": _SECONDS}
        name = f"PyTorch, trunk alone, {form.replace('_', ' ')}, {batch} at once"
        commands[name] = [torch, _TORCH, json.dumps(settings)]
    for batch in (1, _TOGETHER) if onnx else ():
      output = pathlib.Path(folder, str(batch))
      export.export(workdir, output, Settings(what=("onnx",), onnx_batch=batch))
      for engine in ("onnxruntime", "openvino"):
        commands[f"{engine}, {batch} at once"] = [
          onnx, _ONNX, engine, str(output / "model_uint8.onnx"), str(_SECONDS)]
    rates: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(_ROUNDS):
      # Every other round goes backwards: a machine that slows down favours no side.
      for name in list(commands)[:: -1 if number % 2 else 1]:
        rates[name].append(call(commands[name], quick=False)["rate"])
  return rates


def table(rates: dict[str, list[float]]) -> str:
  """Returns medians, and the first one's ratio to each, as Markdown."""
  first = next(iter(rates.values()))
  return rendering.markdown_table(("", "windows a second", "the first's ratio to it"), [
    (name, f"{statistics.median(values):.1f}", f"{timing.paired_ratio(first, values):.2f}")
    for name, values in rates.items()
  ])


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--onnx", default="", help="a Python with onnxruntime and openvino")
  parser.add_argument("--torch", default="", help="a Python with torch")
  parser.add_argument("--turn", choices=("apart", "together"), help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  workdir = arguments.workdir.absolute()
  if arguments.turn:
    print(json.dumps({"rate": here(workdir, arguments.turn == "together")}))
  else:
    print(table(measure(workdir, arguments.onnx, arguments.torch)))


if __name__ == "__main__":
  main()

"""Windows a second of an ONNX program: onnx_engines.py ENGINE FILE SECONDS. Imports nothing of lgag."""

import json
import sys
import time

import numpy as np


def onnxruntime(path: str, seconds: float) -> float:
  import onnxruntime as runtime

  session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
  (given,) = session.get_inputs()
  pixels = _pixels(given.shape)
  return _rate(lambda: session.run(None, {given.name: pixels}), len(pixels), seconds)


def openvino(path: str, seconds: float) -> float:
  """Runs as many requests at once as OpenVINO proposes for throughput, in float32."""
  import openvino as runtime  # pyright: ignore[reportMissingImports]

  compiled = runtime.Core().compile_model(
    path, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"})
  requests = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
  pixels = _pixels(list(compiled.inputs[0].shape))
  queue = runtime.AsyncInferQueue(compiled, requests)

  def run() -> None:
    for _ in range(4 * requests):
      queue.start_async({0: pixels})
    queue.wait_all()

  return _rate(run, 4 * requests * len(pixels), seconds)


def _pixels(shape: list) -> np.ndarray:
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _rate(run, windows: int, seconds: float) -> float:
  run()
  done, start = 0, time.perf_counter()
  while (passed := time.perf_counter() - start) < seconds:
    run()
    done += windows
  return done / passed


if __name__ == "__main__":
  engine = {"onnxruntime": onnxruntime, "openvino": openvino}[sys.argv[1]]
  print(json.dumps({"rate": engine(sys.argv[2], float(sys.argv[3]))}))

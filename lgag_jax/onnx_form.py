"""A function of JAX as a program for ONNX Runtime, by way of jax2onnx."""

import contextlib
import importlib.util
import logging
from collections.abc import Callable, Iterator
from typing import Any

import jax

from lgag_jax.fold import folded

INSTALL = (
  "    pip install onnx==1.23.2 onnxruntime==1.32.0 onnx-ir==1.1.0\n"
  "    pip install --no-deps jax2onnx==0.17.1"
)

_NEEDED = ("jax2onnx", "onnx", "onnx_ir", "onnxruntime")


def require() -> None:
  """Raises ValueError with what to install when the converter is not there."""
  if missing := [n for n in _NEEDED if importlib.util.find_spec(n) is None]:
    raise ValueError(
      f"--what=onnx needs {', '.join(missing)}. Install, the second without what it pins:\n\n{INSTALL}"
    )


def convert(function: Callable, image: jax.ShapeDtypeStruct, outputs: tuple[str, ...]) -> bytes:
  """Returns the ONNX program of a function from "images" to a tuple of arrays, named `outputs`.

  Raises ValueError naming the operation that has no counterpart.
  """
  require()
  with _quiet():
    import jax2onnx
    import onnxruntime

    try:
      model = jax2onnx.to_onnx(
        folded(function, image), [image], model_name="lgag_jax", input_names=["images"],
        output_names=outputs,
      )
    except (NotImplementedError, ValueError, TypeError, KeyError, RuntimeError) as error:
      raise ValueError(f"jax2onnx has no form for it: {error}") from error
  used = set(_used(model.graph))
  for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
    model.graph.initializer.remove(tensor)
  program = model.SerializeToString()
  try:
    onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
  except Exception as error:  # Of kinds of its own.
    raise ValueError(f"ONNX Runtime does not take what jax2onnx makes: {error}") from error
  return program


def _used(graph: Any) -> Iterator[str]:
  """Yields the names that a graph's operations read, those of loops' bodies too."""
  for node in graph.node:
    yield from node.input
    for attribute in node.attribute:
      if attribute.HasField("g"):
        yield from _used(attribute.g)
  yield from (output.name for output in graph.output)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps jax2onnx from telling which libraries that it could convert are not there."""
  logger = logging.getLogger("jax2onnx")
  before = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(before)

"""A function of JAX as a program for ONNX Runtime, by way of jax2onnx."""

import contextlib
import importlib.util
import logging
from collections.abc import Callable, Iterator

import jax

from lgag_jax.export.constant_folding import folded

INSTALL = (
  "    pip install onnx==1.23.2 onnxruntime==1.32.0 onnx-ir==1.1.0\n"
  "    pip install --no-deps jax2onnx==0.17.1"
)

# ONNX Runtime's own stops at 1e-8, of which a map's fourth root is a hundredth.
_INSTEAD = {"logistic": lambda x, **_: 1.0 / (1.0 + jax.lax.exp(-x))}
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
    import onnx_ir
    import onnxruntime
    from onnx_ir.passes import common as passes

    try:
      model = jax2onnx.to_onnx(
        folded(function, image, instead=_INSTEAD), [image], model_name="lgag_jax",
        input_names=["images"], output_names=outputs, return_mode="ir",
      )
      # A trunk that looks at several scales has the same weights each time.
      for tidy in (passes.DeduplicateHashedInitializersPass(), passes.RemoveUnusedNodesPass()):
        tidy(model)
    except (NotImplementedError, ValueError, TypeError, KeyError, RuntimeError) as error:
      raise ValueError(f"jax2onnx has no form for it: {error}") from error
  program = onnx_ir.to_proto(model).SerializeToString()
  try:
    onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
  except Exception as error:  # Of kinds of its own.
    raise ValueError(f"ONNX Runtime does not take what jax2onnx makes: {error}") from error
  return program


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps jax2onnx from telling what it does, and what else it could convert."""
  before = logging.root.manager.disable
  logging.disable(logging.WARNING)
  try:
    yield
  finally:
    logging.disable(before)

"""Converts a JAX function to a program for ONNX Runtime, with jax2onnx."""

import contextlib
import importlib.util
import logging
from collections.abc import Callable

import jax

from lgag_jax.export.constant_folding import fold_constants

INSTALL = (
  "    pip install onnx==1.23.2 onnxruntime==1.32.0 onnx-ir==1.1.0\n"
  "    pip install --no-deps jax2onnx==0.17.1"
)

# ONNX Runtime's sigmoid is never below 1e-8, whose fourth root in a map is 0.01.
_REPLACEMENTS = {"logistic": lambda x, **_: 1.0 / (1.0 + jax.lax.exp(-x))}
_PACKAGES = ("jax2onnx", "onnx", "onnx_ir", "onnxruntime")


def require() -> None:
  """Raises ValueError with the commands to install the converter if it is missing."""
  if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
    raise ValueError(
      f"--what=onnx needs {', '.join(missing)}. Install these, jax2onnx without the old versions that "
      f"it pins:\n\n{INSTALL}"
    )


def convert(function: Callable, image: jax.ShapeDtypeStruct, outputs: tuple[str, ...]) -> bytes:
  """Converts a function of "images" to arrays named `outputs`; raises ValueError if it cannot."""
  require()
  with contextlib.ExitStack() as stack:
    stack.callback(logging.disable, logging.root.manager.disable)
    logging.disable(logging.WARNING)  # jax2onnx logs a lot.
    import jax2onnx
    import onnx_ir
    import onnxruntime
    from onnx_ir.passes import common as passes

    try:
      model = jax2onnx.to_onnx(
        fold_constants(function, image, replacements=_REPLACEMENTS), [image], model_name="lgag_jax",
        input_names=["images"], output_names=outputs, return_mode="ir",
      )
      # The trunk's weights are repeated for every scale of localize.scales.
      for clean_up in (passes.DeduplicateHashedInitializersPass(), passes.RemoveUnusedNodesPass()):
        clean_up(model)
    except (NotImplementedError, ValueError, TypeError, KeyError, RuntimeError) as error:
      raise ValueError(f"jax2onnx cannot convert it: {error}") from error
  program = onnx_ir.to_proto(model).SerializeToString()
  try:
    onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
  except Exception as error:  # ONNX Runtime's own types.
    raise ValueError(f"ONNX Runtime cannot load the program of jax2onnx: {error}") from error
  return program

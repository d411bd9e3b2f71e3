"""Landslide maps learned from image-level labels.

    model = lgag_jax.load("runs/mine")
    result = model.predict(array)

Axis letters used throughout: B images; H, W pixels; h, w cells of the feature grid, N = h * w; C
foreground classes, K = C + 1 with background at 0; D anchor dimension; L slots of the memory bank
a class; M global anchors a class.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
  from lgag_jax.api import Model, Options, Result, load

__all__ = ["Model", "Options", "Result", "load"]


def __getattr__(name: str) -> Any:
  """Imports the interface when it is first asked for: JAX takes seconds."""
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  from lgag_jax import api

  return getattr(api, name)

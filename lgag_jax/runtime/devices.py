"""Checks that JAX has the devices that were asked for."""

import jax
from jax.extend import backend


def require() -> None:
  """Initializes JAX's devices; raises ValueError naming JAX_PLATFORMS if it asks for missing ones."""
  try:
    jax.devices()
  except (AssertionError, RuntimeError) as error:  # JAX raises a bare AssertionError without a plugin.
    asked = jax.config.values["jax_platforms"]
    reason = " ".join(str(error).partition(" (set JAX_PLATFORMS")[0].split()).rstrip(".")
    raise ValueError(
      f"JAX_PLATFORMS={asked or ''}: this machine has no such device, or JAX cannot use it"
      f"{f' ({reason})' if reason else ''}. Available: {', '.join(_available(asked))}. Unset the "
      "variable JAX_PLATFORMS, or set it to one of these. For a GPU or TPU install lgag_jax[cuda] or "
      "lgag_jax[tpu]."
    ) from error


def _available(asked: str | None) -> list[str]:
  """Returns the platforms that JAX finds by itself; leaves its setting as it was."""
  try:
    jax.config.update("jax_platforms", None)
    return sorted(backend.backends()) or ["none"]
  except (AssertionError, RuntimeError):
    return ["none"]
  finally:
    jax.config.update("jax_platforms", asked)
    backend.clear_backends()  # Otherwise the next call would take one of them.

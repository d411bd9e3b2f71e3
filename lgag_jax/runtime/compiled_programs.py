"""Keeps compiled programs between runs: compilation takes longer than many a small training."""

import hashlib
import os
import pathlib
import platform

import jax


def keep() -> None:
  """Turns on JAX's persistent cache of compiled programs.

  JAX's own variables, JAX_COMPILATION_CACHE_DIR and the like, come first.
  """
  directory = _program_folder()
  if jax.config.jax_compilation_cache_dir is None and directory:
    jax.config.update("jax_compilation_cache_dir", str(directory))
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _program_folder() -> pathlib.Path | None:
  """Returns where this processor's programs are kept; None for a user without a home."""
  try:
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
  except RuntimeError:
    return None
  # A home may be shared by machines, and a program uses all that the processor it was made on can do.
  info = pathlib.Path("/proc/cpuinfo")
  text = info.read_text() if info.exists() else platform.processor()
  flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), text)
  kind = hashlib.sha256(flags.encode()).hexdigest()[:8]
  return cache / "lgag_jax" / "compiled" / f"{platform.machine()}-{kind}"

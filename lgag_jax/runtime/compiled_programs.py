"""Keeps compiled programs between runs, since compiling takes longer than a small training."""

import hashlib
import os
import pathlib
import platform

import jax


def enable_cache(*, cpu_only: bool = False) -> None:
  """Enables JAX's persistent cache of programs, unless JAX_COMPILATION_CACHE_DIR and others set it.

  `cpu_only` leaves accelerators to other processes.
  """
  if cpu_only:
    jax.config.update("jax_platforms", "cpu")
  directory = _cache_folder()
  if jax.config.values["jax_compilation_cache_dir"] is None and directory:
    jax.config.update("jax_compilation_cache_dir", str(directory))
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _cache_folder(cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> pathlib.Path | None:
  """Returns the folder for this type of processor, or None for a user without a home directory."""
  try:
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
  except RuntimeError:
    return None
  # Machines may share a home directory, and a program may use every instruction of its processor.
  text = cpuinfo.read_text() if cpuinfo.exists() else platform.processor()
  flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), text)
  processor = hashlib.sha256(flags.encode()).hexdigest()[:8]
  return cache / "lgag_jax" / "compiled" / f"{platform.machine()}-{processor}"

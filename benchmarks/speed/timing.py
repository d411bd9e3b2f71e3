"""Clocks, ratios, peak memory and the machine; without JAX, so that a parent process stays small."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

TUNABLES = "GLIBC_TUNABLES"
LARGE_PAGES = "glibc.malloc.hugetlb=1"


def seconds(function: Callable[[], None]) -> float:
  """Returns how long one call takes, in seconds."""
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


def interleaved(
  functions: Mapping[str, Callable[[], None]], *, repeats: int, at_least_s: float = 0.0
) -> dict[str, list[float]]:
  """Times functions in turn, A B A B ..., after one untimed call of each; seconds by name.

  What else the machine does meets all of them alike. Goes on until both `repeats` rounds and
  `at_least_s` seconds are over, at most ten times the rounds.
  """
  for function in functions.values():
    function()
  times = {name: [] for name in functions}
  start = time.perf_counter()
  for done in range(10 * repeats):
    if done >= repeats and time.perf_counter() - start >= at_least_s:
      break
    for name, function in functions.items():
      times[name].append(seconds(function))
  return times


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
  """Returns the median of the pairs' ratios; raises ValueError where there are no pairs."""
  if len(numerators) != len(denominators) or not numerators:
    raise ValueError(f"{len(numerators)} and {len(denominators)} numbers make no pairs.")
  return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def peak_mib() -> float:
  """Returns this process's largest resident memory so far, in MiB."""
  status = pathlib.Path("/proc/self/status")
  if status.exists():
    for line in status.read_text().splitlines():
      if line.startswith("VmHWM:"):
        return int(line.split()[1]) / 1024
  # Elsewhere; on Linux it would begin with what the parent held when it started this process.
  unit = 2**20 if platform.system() == "Darwin" else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def device_peak_mib() -> float | None:
  """Returns the most memory that arrays took on the first device, in MiB, where it counts that."""
  import jax  # Not at the top: a parent process stays small.

  stats = jax.local_devices()[0].memory_stats() or {}
  return stats["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in stats else None


def load() -> list[float] | None:
  """Returns the load averages over 1, 5 and 15 minutes, where the system has them."""
  return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def cores() -> int:
  """Returns how many cores this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict:
  """Returns what the numbers depend on: processor, cores, memory, versions, settings, date."""
  page = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  return {
    "cpu": cpu_name(pathlib.Path("/proc/cpuinfo")),
    "cores": cores(),
    "memory_gib": round(page / 2**30, 1),
    "system": platform.platform(),
    "python": platform.python_version(),
    "jax": importlib.metadata.version("jax"),
    "jaxlib": importlib.metadata.version("jaxlib"),
    "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    TUNABLES: environment()[TUNABLES],
    "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
  }


def cpu_name(cpuinfo: pathlib.Path) -> str:
  """Returns the processor's name, with its family and model where the name alone says little."""
  if not cpuinfo.exists():
    return platform.processor() or platform.machine()
  lines = (line.partition(":") for line in cpuinfo.read_text().split("\n\n")[0].splitlines())
  fields = {name.strip(): value.strip() for name, _, value in lines}
  name = fields.get("model name") or platform.machine()
  numbers = [f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields]
  return f"{name} ({', '.join(numbers)})" if numbers else name


def environment(*, quick: bool = False) -> dict[str, str]:
  """Returns the environment of every measured process: large pages, quiet TensorFlow, no own cache.

  With `quick` XLA optimises little, since compiling is what takes the time of small programs.
  """
  result = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
  result.setdefault(TUNABLES, LARGE_PAGES)
  result.pop("JAX_COMPILATION_CACHE_DIR", None)
  if quick:
    result["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
  return result

"""Stops a run between two batches after SIGTERM, which schedulers send to take a machine back.

All processes stop at the same batch, whichever of them received the signal. Each calls `check` equally
often. JAX's preemption service, which listens from the start of jax.distributed, picks the call.
"""

import contextlib
import itertools
import signal
import threading
from collections.abc import Generator, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 128 + signal.SIGTERM  # A shell reports it for a process that SIGTERM ended.

_signal_received = threading.Event()
_check_count = itertools.count(1)


class Stopped(Exception):
  """SIGTERM stopped the run; `progress` says how far it came."""

  def __init__(self, progress: str):
    super().__init__(f"{progress} by SIGTERM; run the same command to resume.")


@contextlib.contextmanager
def watch() -> Iterator[None]:
  """Records SIGTERM instead of ending the process, until the end of the block."""
  if jax.process_count() > 1:  # JAX's service handles the signal; our handler would replace its own.
    yield
    return
  _signal_received.clear()
  old = signal.signal(signal.SIGTERM, lambda *_: _signal_received.set())
  try:
    yield
  finally:
    # None stands for a handler outside Python, which cannot be restored.
    signal.signal(signal.SIGTERM, signal.SIG_DFL if old is None else old)
    _signal_received.clear()


def check() -> None:
  """Raises Stopped after SIGTERM; all processes must call it equally often."""
  if jax.process_count() > 1:
    stop = multihost_utils.reached_preemption_sync_point(next(_check_count))
  else:
    stop = _signal_received.is_set()
  if stop:
    raise Stopped("Stopped")


def check_if_single_process() -> None:
  """Calls `check` in a single-process run; does nothing while other processes wait for process 0."""
  if jax.process_count() == 1:
    check()


def until_stopped(batches: Generator[Any, None, None]) -> Iterator[Any]:
  """Yields a generator's batches and calls `check` before each; always closes the generator."""
  # TensorFlow's threads abort the process if the interpreter has to close the generator.
  with contextlib.closing(batches):
    for batch in batches:
      check()
      yield batch

"""SIGTERM, by which schedulers take a machine back: noted when it comes, obeyed between two batches.

All processes obey at the same batch, whichever of them got the signal: each asks `check` equally
often, and jax's preemption service, which listens from jax.distributed's start, tells at which count.
"""

import contextlib
import itertools
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 128 + signal.SIGTERM  # What a shell reports of a process that SIGTERM ended.

_received = threading.Event()
_count = itertools.count(1)


class Stopped(Exception):
  """The run was told to end, having come as far as `how_far` says."""

  def __init__(self, how_far: str):
    super().__init__(f"{how_far} by SIGTERM; the same command goes on.")


@contextlib.contextmanager
def watch() -> Iterator[None]:
  """Notes SIGTERM instead of dying of it, until the end of the block."""
  if jax.process_count() > 1:  # jax's service has the signal, and a handler of ours would take it away.
    yield
    return
  _received.clear()
  old = signal.signal(signal.SIGTERM, lambda *_: _received.set())
  try:
    yield
  finally:
    # None stands for a handler that is not Python's, which cannot be put back.
    signal.signal(signal.SIGTERM, signal.SIG_DFL if old is None else old)
    _received.clear()


def check() -> None:
  """Raises Stopped when SIGTERM has come; all processes call it equally often."""
  if jax.process_count() > 1:
    stop = multihost_utils.reached_preemption_sync_point(next(_count))
  else:
    stop = _received.is_set()
  if stop:
    raise Stopped("Stopped")


def check_alone() -> None:
  """Checks within what process 0 does while others wait: heard only by a process without others."""
  if jax.process_count() == 1:
    check()


def until_stopped(batches: Iterator[Any]) -> Iterator[Any]:
  """Yields a generator's batches, with a check before each; ends the generator in any case."""
  # Left to the interpreter's end, TensorFlow's threads abort the process there.
  with contextlib.closing(batches):
    for batch in batches:
      check()
      yield batch

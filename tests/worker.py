"""lgag_jax.main as a process of its own for tests: it notes what it trains on, and signals itself.

SIGNAL_AT is the step after which the process sends itself SIGTERM, SIGNAL_IN the work, by its progress
line's name, in which it does, FAIL_IN the work in which it raises; SEEN is the file for the examples.
"""

import json
import os
import pathlib
import runpy
import signal
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from lgag_jax.inputs.split import Split
from lgag_jax.runtime import progress
from lgag_jax.training import loop

_SIGNAL_AT = int(os.environ.get("SIGNAL_AT", 10**9))


def _add(self, step, metrics, *, flush, add=loop.Log.add):
  note = add(self, step, metrics, flush=flush)
  if step == _SIGNAL_AT:
    os.kill(os.getpid(), signal.SIGTERM)
  if step >= _SIGNAL_AT:
    time.sleep(1.0)  # jax's service looks once a second; training goes on until all have agreed.
  return note


def _advance(self, count, note="", *, advance=progress.Progress.advance):
  advance(self, count, note)
  if self._title == os.environ.get("SIGNAL_IN"):
    os.kill(os.getpid(), signal.SIGTERM)
  if self._title == os.environ.get("FAIL_IN"):
    raise RuntimeError("A fault.")


def _batches(self, config, *, start_step, batches=Split.train_batches):
  seen = []
  for batch in batches(self, config, start_step=start_step):
    seen.append(batch["index"].tolist())
    pathlib.Path(os.environ["SEEN"]).write_text(json.dumps(seen))
    yield batch


if __name__ == "__main__":
  loop.Log.add, Split.train_batches = _add, _batches
  progress.Progress.advance = _advance
  runpy.run_module("lgag_jax.main", run_name="__main__", alter_sys=True)

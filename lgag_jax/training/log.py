"""What a training tells of itself: means over its steps, and steps that were not finite."""

import json
import logging
import pathlib
import time
from collections.abc import Sequence

import jax
import numpy as np
from clu import metric_writers

from lgag_jax.runtime import files, processes

_LOG = logging.getLogger(__name__)


class Log:
  """Means over the steps since the last line: JSON lines, TensorBoard events.

  Goes on from a checkpoint's `position`: lines written after it are dropped, their steps come again.
  """

  def __init__(self, workdir: pathlib.Path, lines: int, pending: list[dict[str, float]]):
    self.note = ""  # For the progress line.
    self._main = processes.is_first()
    self._path = workdir / "metrics.jsonl"
    self._writer = metric_writers.SummaryWriter(str(workdir)) if self._main else None
    self._lines = lines
    self._pending: list[dict] = pending
    self._new = 0
    self._since = time.monotonic()
    if self._main and self._path.exists():
      kept = self._path.read_text().splitlines(keepends=True)[:lines]
      files.write_text(self._path, "".join(kept))

  def add(self, step: int, metrics: dict, *, flush: bool) -> None:
    """Takes a step's sums, and with `flush` set writes the means since the last line."""
    self._pending.append(metrics)
    self._new += 1
    if not flush:
      return
    steps = self._fetched()
    sums = {name: float(np.sum([m[name] for m in steps])) for name in steps[0]}
    examples = max(sums.pop("examples"), 1.0)
    skipped = sums.pop("skipped")
    sound = max(len(steps) - skipped, 1.0)
    norm, anchors = sums.pop("gradient_norm") / sound, sums.pop("anchors") / sound
    means = {name: total / examples for name, total in sums.items()}
    means |= {"gradient_norm": norm, "anchors_per_step": anchors}
    self.note = f"loss {means['loss']:.4f}"
    if skipped == len(steps):  # There is nothing to take a mean of.
      means, self.note = {}, "loss not finite"
    rate = self._new / max(time.monotonic() - self._since, 1e-9)
    extra = {"steps_per_second": rate} | ({"skipped_steps": skipped} if skipped else {})
    self.write(step, "train", {**means, **extra})
    self._pending, self._new, self._since = [], 0, time.monotonic()

  def position(self) -> dict:
    """Returns what a checkpoint keeps: the lines written, and the sums of the steps since."""
    return {"lines": self._lines, "pending": self._fetched()}

  def _fetched(self) -> list[dict[str, float]]:
    # Fetched only here: until then the device runs ahead of the host.
    self._pending = [
      {name: float(value) for name, value in m.items()} for m in jax.device_get(self._pending)
    ]
    return self._pending

  def write(self, step: int, split: str, values: dict[str, float]) -> None:
    """Writes values of a step under a split's name."""
    self._lines += 1
    if self._writer is None:
      return
    files.append_line(self._path, json.dumps({"step": step, "split": split, **values}))
    self._writer.write_scalars(step, {f"{split}/{name}": value for name, value in values.items()})

  def close(self) -> None:
    """Flushes the TensorBoard events."""
    if self._writer is not None:
      self._writer.close()


class Skips:
  """Ends a run after too many steps in a row, also across a restart, that were not finite."""

  def __init__(self, ids: Sequence[str], most: int, row: list):
    self._ids = ids
    self._most = most
    self._pending: list[tuple] = []
    self._row = row  # (Step, examples) of those in a row.

  def add(self, step: int, index: np.ndarray, skipped: jax.Array, *, check: bool) -> None:
    """Takes a step; with `check` set, raises ValueError after too many in a row."""
    self._pending.append((step, index, skipped))
    if check:
      self.position()

  def position(self) -> list[tuple[int, list[int]]]:
    """Returns what a checkpoint keeps: the row so far; raises ValueError when it is too long."""
    pending, self._pending = jax.device_get(self._pending), []
    for step, examples, skipped in pending:
      if not skipped:
        self._row = []
        continue
      _LOG.warning("Step %d was not finite and changed nothing.", step)
      self._row = [*self._row, (int(step), examples.tolist())]
      if len(self._row) > self._most:
        first, indices = self._row[0]
        names = ", ".join(self._ids[int(i)] for i in indices)
        raise ValueError(
          f"{len(self._row)} steps in a row, from {first} on, were not finite; weights and bank are "
          f"as they were before. The first of them read {names}. "
          "Look at these, or lower optim.learning_rate in another --workdir."
        )
    return self._row

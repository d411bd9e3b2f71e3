"""One line of progress with rate and time left, for anything longer than a few seconds.

tqdm was considered: off a terminal it either redraws its line into the log or prints nothing.
"""

import sys
import time

from lgag_jax.runtime import processes


class Progress:
  """Prints a count's progress: in place on a terminal, as a new line every 20 s elsewhere."""

  def __init__(self, title: str, total: float, *, done: float = 0, unit: str = "images"):
    self._title, self._total, self._unit = title, total, unit
    self._start = self._last_print = time.monotonic()
    self._done = self._done_at_start = done
    self._visible = processes.is_first()

  def advance(self, count: float, note: str = "") -> None:
    """Adds `count`; `note` ends the line."""
    self._done = min(self._done + count, self._total)
    now = time.monotonic()
    in_place = sys.stderr.isatty()
    if self._visible and now - self._last_print >= (0.5 if in_place else 20.0):
      self._last_print = now
      print(f"\r{self.line(note):100}" if in_place else self.line(note),
            end="" if in_place else "\n", file=sys.stderr, flush=True)

  def line(self, note: str = "") -> str:
    """Returns the current line."""
    elapsed = max(time.monotonic() - self._start, 1e-9)
    rate = (self._done - self._done_at_start) / elapsed
    left = (self._total - self._done) / rate if rate else float("inf")
    clock = f"{left // 60:.0f}:{left % 60:02.0f}" if left < 1e6 else "?"
    done, total = (f"{n:.1f}" if isinstance(n, float) else n for n in (self._done, self._total))
    rate_text = f"{rate:.1f}" if rate >= 10 else f"{rate:.2g}"
    return f"{self._title}: {done}/{total} {self._unit}, {rate_text}/s, {clock} left  {note}"

  def close(self) -> None:
    """Prints the last line."""
    if self._visible:
      print(f"\r{self.line():100}", file=sys.stderr, flush=True)

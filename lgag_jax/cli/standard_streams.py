"""Ends the command in order when its output cannot be written, or when the user presses Ctrl-C."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator

from lgag_jax.runtime import printable

_CLOSED_PIPE_CODE = 128 + signal.SIGPIPE  # A shell reports it for other tools that lose their reader.


class _Output(io.TextIOWrapper):
  """Standard output, without control characters of a terminal.

  Ends the process when it cannot be written, where others raise OSError.
  """

  def write(self, text: str) -> int:
    with _ends_on_error():
      return super().write(printable.text(text))

  def flush(self) -> None:
    with _ends_on_error():
      super().flush()


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
  """Ends the process quietly if the reader of its output has gone (| head), and else in one line."""
  if sys.stdout is None:  # Closed by the shell (>&-).
    yield
    return
  whole = sys.stdout
  sys.stdout = _Output(
    whole.buffer, encoding=whole.encoding, errors=whole.errors, line_buffering=whole.isatty(),
    write_through=getattr(whole, "write_through", False),
  )
  try:
    yield
  finally:
    sys.stdout.flush()


def end_at_interrupt() -> None:
  """Lets Ctrl-C end the process as it ends other tools, unless a parent has turned it off (nohup).

  Python would raise KeyboardInterrupt wherever it is, also where libraries print or swallow it. All
  files are written so that a process may end at any moment.
  """
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def _ends_on_error() -> Iterator[None]:
  try:
    yield
  except OSError as error:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # What is buffered goes there when the interpreter ends.
    if isinstance(error, BrokenPipeError):
      sys.exit(_CLOSED_PIPE_CODE)
    sys.exit(f"Error: the standard output cannot be written: {error.strerror}.")

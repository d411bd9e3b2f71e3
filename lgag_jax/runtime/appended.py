"""A file that a server appends to, and puts back if another program changes or removes it meanwhile."""

import logging
import os
import pathlib
from collections.abc import Callable, Iterable

from lgag_jax.runtime import files

_LOG = logging.getLogger(__name__)


class AppendedFile:
  """A file of lines, all of which its owner also knows. Its owner locks it for several threads."""

  def __init__(self, path: pathlib.Path, aside: pathlib.Path, lines: Callable[[], Iterable[str]]):
    """`lines` returns all lines, to write the file anew. A changed file is moved into `aside`."""
    self._path, self._aside, self._lines = path, aside, lines
    self._size = path.stat().st_size

  def append(self, lines: Iterable[str]) -> None:
    """Appends lines, which are on disk when it returns; raises OSError, and keeps none of them."""
    self.restore()
    files.append_line(self._path, "\n".join(lines), sync=True)
    self._size = self._path.stat().st_size

  def restore(self) -> None:
    """Writes the file anew if it is gone or has another size; keeps the one of another program."""
    files.require_plain(self._path)
    kept = None
    if self._path.exists():
      if self._path.stat().st_size == self._size:
        return
      kept = free_name(self._aside / self._path.name)
      kept.parent.mkdir(exist_ok=True)
      self._path.rename(kept)
    _LOG.warning(
      "%s was %s by another program while this server runs. It is written again with all that the page "
      "shows.", self._path, f"changed (and is kept as {kept})" if kept else "removed",
    )
    self.rewrite()

  def rewrite(self) -> None:
    """Writes all lines anew."""
    files.write_text(self._path, "".join(f"{line}\n" for line in self._lines()))
    self._size = self._path.stat().st_size


def free_name(path: pathlib.Path) -> pathlib.Path:
  """Returns a name beside a file, to keep the original one under."""
  kept, number = path.with_suffix(f".original{path.suffix}"), 1
  while os.path.lexists(kept):  # Of an earlier time.
    kept, number = path.with_suffix(f".original_{number}{path.suffix}"), number + 1
  return kept

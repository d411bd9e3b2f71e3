"""What is settled of a scene's map, on disk until it is whole: a killed run goes on from there.

Plain arrays of rows, since a TIFF that was not closed cannot be read; a state beside them, renamed into
place, tells up to which row of windows they hold and has the band of rows that was under way.
"""

import contextlib
import os
import pathlib
import time

import numpy as np

from lgag_jax.runtime import files

_SAVE_EVERY = 5.0  # Seconds: what a kill costs at most, but for one row of windows.


class Store:
  """Rows [start, stop) of a map: scores as uint8 percent, 255 for no data, or float32, NaN; classes.

  `key` tells what the map is made of: what another key has left is not gone on with.
  """

  def __init__(
    self, folder: pathlib.Path, key: str, span: tuple[int, int], width: int, classes: int, dtype: str
  ):
    self.span, self._width, self._classes, self.dtype = span, width, classes, np.dtype(dtype)
    self._folder, self._key, self._saved = folder, key, time.monotonic()
    self._name = f"{span[0]}-{span[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("scores", "mask"):
      self._path(kind).touch()

  @property
  def bytes_a_row(self) -> int:
    """What a row of the map takes here."""
    return self._width * (self._classes * self.dtype.itemsize + 1)

  def resume(self) -> tuple[int, np.ndarray, list[float]] | None:
    """Returns the row of windows to go on with, the band before it and the image probabilities.

    None where there is nothing to go on with.
    """
    state = None
    with contextlib.suppress(OSError, ValueError):
      state = files.read_json(self._path("json"))
    if not isinstance(state, dict) or state.get("key") != self._key:
      return None
    with contextlib.suppress(OSError, ValueError):
      return state["row"], np.load(self._folder / state["band"], allow_pickle=False), state["found"]
    return None

  def write(self, first: int, scores: np.ndarray, mask: np.ndarray) -> None:
    """Writes rows from `first` on: scores [n, W, C] of the store's type and mask u8[n, W]."""
    for kind, rows in (("scores", scores), ("mask", mask)):
      with self._path(kind).open("r+b") as file:
        file.seek((first - self.span[0]) * rows[:1].nbytes)
        file.write(np.ascontiguousarray(rows).data)

  def save(self, row: int, band: np.ndarray, found: list[float], *, now: bool = False) -> None:
    """Notes that all before the row of windows `row` is written, every few seconds or `now`."""
    if not now and time.monotonic() - self._saved < _SAVE_EVERY:
      return
    for kind in ("scores", "mask"):
      with self._path(kind).open("rb") as file:
        os.fsync(file.fileno())
    name = f"{self._name}-{row}.npy"
    with files.atomic_path(self._folder / name) as partial:
      np.save(partial, band)
    files.write_json(self._path("json"), {"key": self._key, "row": row, "band": name, "found": found})
    for old in self._folder.glob(f"{self._name}-*.npy"):
      if old.name != name:
        old.unlink()
    self._saved = time.monotonic()

  def read(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads rows: scores [n, W, C] and mask [n, W]."""
    shapes = ("scores", self.dtype, (count, self._width, self._classes)), (
      "mask", np.dtype(np.uint8), (count, self._width)
    )
    found = []
    for kind, dtype, shape in shapes:
      row = int(np.prod(shape[1:])) * dtype.itemsize
      with self._path(kind).open("rb") as file:
        file.seek((first - self.span[0]) * row)
        found.append(np.frombuffer(file.read(count * row), dtype).reshape(shape))
    return found[0], found[1]

  def _path(self, kind: str) -> pathlib.Path:
    return self._folder / f"{self._name}.{kind}"

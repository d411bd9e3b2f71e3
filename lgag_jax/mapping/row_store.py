"""Keeps the finished rows of a scene's map on disk until the map is whole, so that a run can resume.

Rows lie in plain arrays, since a TIFF that was not closed cannot be read. A state file beside them is
renamed into place. It tells how many rows of windows the arrays hold, and names the file of the band of
rows that was in progress.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import shutil
import sys
import time
from typing import Any

import numpy as np

from lgag_jax.mapping import gate_windows
from lgag_jax.mapping.gate_windows import GateWindows
from lgag_jax.runtime import array_files, files, sealed_json

_SAVE_SECONDS = 5.0  # Between two saves. A kill loses this much work, and one row of windows.


@dataclasses.dataclass(frozen=True)
class SavedState:
  """How far a map has come."""

  next_row: int  # The row of windows to map next.
  band: np.ndarray  # f32[side, W, C], the canvas's band before that row.
  image_scores: list[float]  # [C], the highest over the windows so far.
  brightest: float | None = None  # The largest value so far; None if there has been no data.
  gate_windows: GateWindows | None = None  # Of the windows so far; None if the network has no gate.


class RowStore:
  """The rows [start, stop) of a map on disk: scores, as uint8 percent or float32, and classes.

  No data is 255, in float32 NaN. `key` identifies the network, scene and options: a store does not
  resume from the files of another key.
  """

  def __init__(
    self, folder: pathlib.Path, key: str, span: tuple[int, int], width: int, classes: int, dtype: str
  ):
    self.span, self._width, self._classes, self.dtype = span, width, classes, np.dtype(dtype)
    self._folder, self._key, self._saved_at = folder, key, time.monotonic()
    self._name = f"{span[0]}-{span[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("scores", "mask"):
      _ensure_own(self._path(kind))

  @property
  def total_bytes(self) -> int:
    """The size of all rows on disk."""
    row_bytes = self._width * (self._classes * self.dtype.itemsize + 1)
    return row_bytes * (self.span[1] - self.span[0])

  def load_state(self, windows: int, band_shape: tuple[int, ...]) -> SavedState | None:
    """Returns the state that `save` wrote; None if there is none of this key, or an odd one.

    `windows` is the number of rows of windows, `band_shape` the shape of the canvas's band.
    """
    state = None
    with contextlib.suppress(OSError, ValueError):
      state = files.read_json(self._path("json"))
    if not isinstance(state, dict) or state.get("key") != self._key:
      return None
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, MemoryError):
      row, found, brightest = int(state["row"]), state["found"], state.get("brightest")
      values = [*found] + ([] if brightest is None else [brightest])
      is_odd = len(found) != self._classes or not all(map(_is_finite, values))
      # Another name might lead out of the folder.
      if is_odd or not 0 <= row <= windows or state["band"] != self._band_name(row):
        return None
      names = "band", *gate_windows.NAMES
      most = math.prod(band_shape) * np.dtype(np.float32).itemsize + files.MAX_READ_BYTES
      parts = array_files.read_arrays(self._folder / state["band"], names, most)
      band = parts.pop("band")
      before_gate = GateWindows(**parts) if parts else None
      if band.dtype == np.float32 and band.shape == band_shape:
        return SavedState(row, band, found, brightest, before_gate)
    return None

  def write(self, first: int, scores: np.ndarray, mask: np.ndarray) -> None:
    """Writes rows from `first` on: scores [n, W, C] of the store's type and mask u8[n, W]."""
    for kind, rows in (("scores", scores), ("mask", mask)):
      with self._path(kind).open("r+b") as file:
        file.seek((first - self.span[0]) * rows[:1].nbytes)
        file.write(np.ascontiguousarray(rows).data)

  def save(self, state: SavedState, *, now: bool = False) -> None:
    """Saves the state if the last save is some seconds ago, or `now`; waits for the disk."""
    if not now and time.monotonic() - self._saved_at < _SAVE_SECONDS:
      return
    for kind in ("scores", "mask"):
      with self._path(kind).open("rb") as file:
        os.fsync(file.fileno())
    band_name = self._band_name(state.next_row)
    with files.atomic_path(self._folder / band_name) as partial, partial.open("wb") as file:
      before_gate = state.gate_windows.arrays() if state.gate_windows else {}
      np.savez(file, allow_pickle=False, band=state.band, **before_gate)
    files.write_json(self._path("json"), {
      "key": self._key, "row": state.next_row, "band": band_name, "found": state.image_scores,
      "brightest": state.brightest,
    })
    for path in self._folder.glob(f"{self._name}-*.npz"):
      if path.name != band_name:
        path.unlink()
    self._saved_at = time.monotonic()

  def read(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads rows: scores [n, W, C] and mask [n, W]."""
    scores = self._read("scores", first, (count, self._width, self._classes), self.dtype)
    return scores, self._read("mask", first, (count, self._width), np.dtype(np.uint8))

  def _read(self, kind: str, first: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
    with self._path(kind).open("rb") as file:
      file.seek((first - self.span[0]) * row_bytes)
      return np.frombuffer(file.read(shape[0] * row_bytes), dtype).reshape(shape)

  def _band_name(self, next_row: int) -> str:
    return f"{self._name}-{next_row}.npz"

  def _path(self, kind: str) -> pathlib.Path:
    return self._folder / f"{self._name}.{kind}"


def _is_finite(value: Any) -> bool:
  return sealed_json.is_number(value, -sys.float_info.max, sys.float_info.max)


def _ensure_own(path: pathlib.Path) -> None:
  """Makes a file to write into; one that has other names, as in some backups, becomes a copy."""
  path.touch()
  if path.stat().st_nlink > 1:
    with files.atomic_path(path) as partial:
      shutil.copyfile(path, partial)

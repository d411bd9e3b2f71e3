"""One scene's map in progress: what its windows and rows of windows add to it."""

import collections
import dataclasses
import pathlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from rasterio.windows import Window

from lgag_jax.config import DataConfig
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scale import WindowPlan
from lgag_jax.geo.windows import Axis
from lgag_jax.imagery import reading, scaling
from lgag_jax.inference import exclusive_classes
from lgag_jax.mapping.canvas import Canvas
from lgag_jax.mapping.gate_windows import GateRecorder
from lgag_jax.mapping.rasters import NO_DATA, encode
from lgag_jax.mapping.row_store import SavedState

_ROWS_AT_ONCE = 64  # Classifying rows takes several times the memory of their scores.


class WindowSource(Protocol):
  """What windows are read from: a `Scene`, or anything that reads as one."""

  @property
  def path(self) -> pathlib.Path:
    """What errors name."""
    ...

  @property
  def grid(self) -> Grid:
    """The grid of its pixels."""
    ...

  def read(
    self, window: Window, out_shape: tuple[int, int] | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels [h, w, channels] and their valid mask, as `Scene.read` does."""
    ...

  def valid(self, window: Window) -> np.ndarray:
    """Returns a window's valid mask, bool[h, w]."""
    ...


class MapRows(Protocol):
  """Takes the rows of a map, as `RowStore` does on disk."""

  @property
  def dtype(self) -> np.dtype:
    """The type in which the scores are stored."""
    ...

  def write(self, first: int, scores: np.ndarray, mask: np.ndarray) -> None:
    """Takes rows from `first` on: scores [n, W, C] and mask u8[n, W]."""

  def save(self, state: SavedState) -> None:
    """Keeps the state to resume from, if a run can resume."""


@dataclasses.dataclass
class SceneJob:
  """A scene, or a range of its rows, while it is mapped.

  `rows`, `cols` and `span` are in pixels of the reduced scene: the average of `windows.reduction` by
  `windows.reduction` pixels of the file.
  """

  open: Callable[[], AbstractContextManager[WindowSource]]
  windows: WindowPlan  # How the pixels become inputs of the network.
  rows: Axis  # The windows down the scene.
  cols: Axis  # The windows across it.
  span: tuple[int, int]  # The rows of pixels to map.
  store: MapRows
  thresholds: np.ndarray  # f32[C]
  gate: float  # The image score that a window must exceed for a class to be mapped in it.
  on_finish: Callable[["SceneJob"], None]  # Called when all rows are in the store, or on failure.
  on_progress: Callable[[int], None] | None = None  # Called with the pixels that were just written.
  recorder: GateRecorder | None = None  # Takes the windows as they are before the gate.
  failure: reading.ImageError | None = None  # Why the scene could not be read to its end.
  canvas: Canvas = dataclasses.field(init=False)
  next_row: int = dataclasses.field(init=False)  # The row of windows to start with.
  image_scores: np.ndarray = dataclasses.field(init=False)  # f32[C], the highest of the windows so far.
  brightest: float | None = None  # The largest value of the pixels so far; None without any data.
  scored_windows: int = 0
  seconds: dict[str, float] = dataclasses.field(
    default_factory=lambda: collections.defaultdict(float)
  )
  started: float = dataclasses.field(default_factory=time.monotonic)

  def __post_init__(self):
    self.canvas = Canvas(self.rows, self.cols, len(self.thresholds), *self.span)
    self.next_row = self.rows.overlapping(*self.span)[0]
    self.image_scores = np.zeros(len(self.thresholds), np.float32)

  def resume(self, saved: SavedState) -> None:
    """Continues a map from where an earlier run stopped."""
    self.next_row = saved.next_row
    self.image_scores = np.array(saved.image_scores, np.float32)
    self.brightest = saved.brightest
    if saved.next_row < len(self.rows.starts):
      self.canvas.restore(saved.next_row, saved.band)
    if self.recorder and saved.gate_windows:
      self.recorder.resume(saved.gate_windows)

  def state_before(self, row: int) -> SavedState:
    """Returns the state to save when the row of windows `row` is next."""
    gate_windows = self.recorder.windows() if self.recorder else None
    return SavedState(
      row, self.canvas.band, self.image_scores.tolist(), self.brightest, gate_windows)

  def add_values(self, pixels: np.ndarray, valid: np.ndarray) -> None:
    """Takes note of the largest value of pixels [h, w, channels] where `valid`, bool[h, w]."""
    if valid.any():
      largest = float(np.max(pixels, where=valid[..., None], initial=0))
      self.brightest = max(largest, self.brightest or 0.0)

  def add_window(self, row: int, col: int, scores: np.ndarray, image_scores: np.ndarray) -> None:
    """Blends a window's scores f32[side, side, C], of classes that pass the gate, into the map."""
    started = time.monotonic()
    present = image_scores > self.gate
    if present.any():
      self.canvas.add(row, col, scores if present.all() else scores * present)
    if self.recorder:
      self.recorder.add(row, col, scores, image_scores)
    self.image_scores = np.maximum(self.image_scores, image_scores)
    self.scored_windows += 1
    self.seconds["blend"] += time.monotonic() - started

  def finish_row(self, row: int, valid: np.ndarray) -> None:
    """Ends a row of windows: classifies and writes the rows of pixels that are now final.

    `valid`, bool[h, W], tells where the file holds data, from the row of windows' first pixel on.
    """
    started = time.monotonic()
    reduction, top = self.windows.reduction, self.rows.starts[row]
    first, scores = self.canvas.finish_row(row)
    written = 0
    if len(scores):
      is_last = first + len(scores) == self.rows.length
      valid = valid[(first - top) * reduction :][: None if is_last else len(scores) * reduction]
      written = valid.size
      for start in range(0, len(valid), _ROWS_AT_ONCE):
        part_valid = valid[start : start + _ROWS_AT_ONCE]
        part = scores[start : start + _ROWS_AT_ONCE]
        if reduction > 1:
          part = _enlarged(scores, reduction, start, part_valid.shape)
        mask = exclusive_classes.drawn(part, self.thresholds)
        mask[~part_valid] = NO_DATA
        stored_scores = encode(part, part_valid, self.store.dtype)
        self.store.write(first * reduction + start, stored_scores, mask)
    if row + 1 < len(self.rows.starts):
      self.store.save(self.state_before(row + 1))
    self.seconds["write"] += time.monotonic() - started
    if self.on_progress:
      self.on_progress(written)

  def effort(self) -> dict:
    """Returns the number of windows, the seconds in all, and the seconds of each part of the work."""
    return {
      "windows": self.scored_windows, "wall_seconds": round(time.monotonic() - self.started, 3),
      "seconds": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
    }


def value_warnings(brightest: float | None, dtype: np.dtype, config: DataConfig) -> list[str]:
  """Returns what to check in a scene of which `brightest` is the largest value, None without data."""
  if brightest is None:
    return ["it has no data: every pixel is nodata or under clouds, so its map is empty. Check both."]
  return [text for text in [scaling.dark_warning(brightest, dtype, config)] if text]


def _enlarged(
  scores: np.ndarray, reduction: int, start: int, shape: tuple[int, int]
) -> np.ndarray:
  """Returns the scores of the file's pixels from row `start` on, [*shape, C].

  Those beyond the last reduced pixel, at the scene's border, have its scores.
  """
  rows, cols = (
    np.minimum((np.arange(size) + first) // reduction, count - 1)
    for size, first, count in zip(shape, (start, 0), scores.shape[:2], strict=True)
  )
  return scores[rows[:, None], cols]

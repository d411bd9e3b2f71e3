"""The network as blocks need it: loaded once, compiled once for windows of one size."""

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Iterator

import numpy as np
from rasterio.windows import Window

from lgag_jax.blocks.block_arrays import BlockMap, BlockPixels
from lgag_jax.blocks.plan import BlockSize
from lgag_jax.config import Config
from lgag_jax.geo import scale, windows
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scale import Scale, WindowPlan
from lgag_jax.imagery import reading
from lgag_jax.mapping import window_pipeline
from lgag_jax.mapping.loaded_model import LoadedModel
from lgag_jax.mapping.row_store import SavedState
from lgag_jax.mapping.scene_job import SceneJob, value_warnings
from lgag_jax.options.area import Area

_LOG = logging.getLogger(__name__)

_LARGE = (1 << 20, 1 << 20)  # An area is larger than any window.


def plan_windows(
  loaded_scale: Scale, config: Config, area: Area
) -> tuple[float, WindowPlan, BlockSize]:
  """Returns the resolution of an area's maps, the network's windows, and the size of blocks.

  Raises ValueError if the resolution of training is unknown, or the one asked for does not suit it.
  """
  gsd = area.training_gsd or loaded_scale.gsd
  if gsd is None:
    raise ValueError(
      "The ground resolution of the training images is unknown: give --training_gsd, in metres per "
      "pixel."
    )
  training = Scale(loaded_scale.side, gsd)
  finest = gsd * scale.plan_windows(training, config, gsd, 0, _LARGE).reduction
  resolution = area.resolution or finest
  plan = scale.plan_windows(training, config, resolution, area.tile_size, _LARGE)
  if plan.reduction > 1:
    raise ValueError(
      f"--resolution={resolution:g} is finer than the network sees: use {finest:g} metres or more, "
      "which gives the same landslides in less time."
    )
  starts = windows.cover(4 * plan.side, plan.side, area.overlap, plan.stride).starts
  # Windows must lie on whole pixels of one grid in all blocks.
  return resolution, plan, BlockSize.fitting(area.block_size, plan.side, starts[1] - starts[0])


class BlockNetwork:
  """A trained network that maps blocks, one at a time, on the devices of its mesh."""

  def __init__(self, loaded: LoadedModel, plan: WindowPlan, size: BlockSize, dtype: str):
    self._loaded, self._plan, self._size, self._dtype = loaded, plan, size, np.dtype(dtype)
    starts = range(0, size.length - size.side + 1, size.step)
    self._axis = windows.axis_at(starts, size.length, size.side)
    self._has_warned = False

  def map_pixels(self, name: str, pixels: BlockPixels) -> BlockMap:
    """Returns the map of a block, which errors call `name`; raises ImageError for unsuitable values."""
    size, loaded = self._size, self._loaded
    span = slice(size.lead, size.lead + size.core)
    classes = len(loaded.thresholds)
    rows = _CoreRows(
      span, np.zeros((size.core, size.core, classes), self._dtype),
      np.zeros((size.core, size.core), np.uint8),
    )
    finished: list[SceneJob] = []
    job = SceneJob(
      lambda: _open_pixels(name, pixels), self._plan, self._axis, self._axis, (span.start, span.stop),
      rows, np.array(loaded.thresholds, np.float32), loaded.gate, on_finish=finished.append,
    )
    window_pipeline.run(iter([job]), loaded.network, loaded.state, loaded.config, loaded.mesh)
    if job.failure or not finished:
      raise job.failure or reading.ImageError(f"{name} was not mapped to its end.")
    texts = value_warnings(job.brightest, pixels.values.dtype, loaded.config.data)
    if texts and not self._has_warned:
      _LOG.warning("Block %s: %s Others may be the same.", name, texts[0])
      self._has_warned = True
    return BlockMap(rows.scores, rows.mask, tuple(job.image_scores.tolist()))


@dataclasses.dataclass(frozen=True)
class _CoreRows:
  """Takes the rows of a block's map, and leaves out the halo's columns."""

  span: slice  # The block's rows and columns in what is mapped.
  scores: np.ndarray
  mask: np.ndarray

  @property
  def dtype(self) -> np.dtype:
    return self.scores.dtype

  def write(self, first: int, scores: np.ndarray, mask: np.ndarray) -> None:
    rows = slice(first - self.span.start, first - self.span.start + len(scores))
    self.scores[rows], self.mask[rows] = scores[:, self.span], mask[:, self.span]

  def save(self, state: SavedState) -> None:
    """Does nothing: a block that is not whole is mapped again."""


@dataclasses.dataclass(frozen=True)
class _PixelSource:
  """Pixels in memory, read as a scene is."""

  path: pathlib.Path
  grid: Grid
  pixels: BlockPixels

  def read(
    self, window: Window, out_shape: tuple[int, int] | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    if out_shape is not None:
      raise ValueError("Blocks are at the network's resolution.")
    place = _slices(window)
    pixels, valid = self.pixels.values[place].copy(), self.pixels.valid[place].copy()
    if not valid.all():
      reading.fill_invalid(pixels, valid)
    return pixels, valid

  def valid(self, window: Window) -> np.ndarray:
    return self.pixels.valid[_slices(window)]


def _slices(window: Window) -> tuple[slice, slice]:
  rows = slice(window.row_off, window.row_off + window.height)
  return rows, slice(window.col_off, window.col_off + window.width)


@contextlib.contextmanager
def _open_pixels(name: str, pixels: BlockPixels) -> Iterator[_PixelSource]:
  yield _PixelSource(pathlib.Path(name), pixels.grid, pixels)

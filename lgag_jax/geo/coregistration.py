"""Estimates and corrects the shift between two images of one place, by phase correlation in blocks."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import scipy.ndimage
from skimage.registration import phase_cross_correlation

from lgag_jax.imagery import reading

_SIDES = (256, 128, 64, 32)  # Of a block in pixels; the largest that gives enough blocks is used.
_ENOUGH = 9  # Blocks.
_UPSAMPLING = 10  # Shifts are known to a tenth of a pixel.
_TOLERANCE = 0.75  # Pixels between the shifts of blocks that agree.
_MAJORITY = 0.6  # Of the blocks must agree.
_LEAST = 0.25  # Pixels. A shorter shift is not corrected, since interpolation would blur the image.
_KNOWN = 0.8  # Share of a block that must have data on both dates.


@dataclasses.dataclass(frozen=True)
class Shift:
  """How far the image before lies from the one after, in pixels of the latter.

  Its content must move by (`rows`, `cols`). Both are None if too few blocks agree on a shift.
  """

  rows: float | None = None
  cols: float | None = None
  blocks: int = 0  # Blocks with enough data on both dates.
  agreeing: int = 0  # Blocks that agree on the shift.

  @property
  def length(self) -> float | None:
    """Returns the length of the shift in pixels."""
    if self.rows is None or self.cols is None:
      return None
    return float(np.hypot(self.rows, self.cols))

  def within(self, most: float) -> tuple[float, float]:
    """Returns the shift to correct: (0, 0) if it is unknown, longer than `most`, or hardly one."""
    if self.rows is None or self.cols is None:
      return 0.0, 0.0
    if not _LEAST <= np.hypot(self.rows, self.cols) <= most:
      return 0.0, 0.0
    return self.rows, self.cols


def estimate(after: np.ndarray, before: np.ndarray, valid: np.ndarray) -> Shift:
  """Returns the shift between two images [H, W, E] of one size; `valid` is bool[H, W], of both."""
  blocks = blocks_of(after.shape[:2])
  return combine(of_block(after[block], before[block], valid[block]) for block in blocks)


def blocks_of(shape: tuple[int, int], most: int = 25) -> Iterator[tuple[slice, slice]]:
  """Yields at most about `most` blocks that are spread over an image of that shape."""
  side = next((s for s in _SIDES if _count(shape, s) >= _ENOUGH), min(*_SIDES, *shape))
  starts = []
  for length in shape:
    count = min(max(1, 2 * length // side - 1), round(most**0.5))
    starts.append(np.linspace(0, max(length - side, 0), count).astype(int))
  for top in starts[0]:
    for left in starts[1]:
      yield slice(top, top + side), slice(left, left + side)


def _count(shape: tuple[int, int], side: int) -> int:
  return int(np.prod([max(0, 2 * length // side - 1) for length in shape]))


def of_block(after: np.ndarray, before: np.ndarray, valid: np.ndarray) -> np.ndarray | None:
  """Returns the shift f64[2] of a block; None if it has too little data or no contrast."""
  if min(after.shape[:2]) < 16 or valid.mean() < _KNOWN:
    return None
  window = np.outer(*(np.hanning(length) for length in after.shape[:2])) * valid
  images = []
  for image in (after, before):
    grey = image.astype(np.float64).mean(axis=-1)
    grey = (grey - grey[valid].mean()) * window
    if not np.isfinite(grey).all() or grey.std() == 0:
      return None
    images.append(grey)
  return phase_cross_correlation(*images, upsample_factor=_UPSAMPLING, normalization="phase")[0]


def combine(shifts: Iterable[np.ndarray | None]) -> Shift:
  """Returns the shift that most blocks agree on."""
  known = np.array([shift for shift in shifts if shift is not None]).reshape(-1, 2)
  if not len(known):
    return Shift()
  median = np.median(known, axis=0)
  agree = np.abs(known - median).max(axis=1) <= _TOLERANCE
  if agree.mean() < _MAJORITY:
    return Shift(None, None, len(known), int(agree.sum()))
  rows, cols = known[agree].mean(axis=0)
  return Shift(float(rows), float(cols), len(known), int(agree.sum()))


def moved(
  image: np.ndarray, valid: np.ndarray, shift: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns an image [H, W, E] and bool[H, W] with their content moved by (rows, columns).

  Interpolates linearly. What no pixel reaches is invalid.
  """
  if shift == (0.0, 0.0):
    return image, valid
  move = lambda x, **options: scipy.ndimage.shift(x.astype(np.float32), shift, order=1, **options)
  there = move(valid, mode="constant", cval=0.0) > 1 - 1e-3
  bands = [move(image[..., band], mode="nearest") for band in range(image.shape[-1])]
  result = np.stack(bands, axis=-1)
  if np.issubdtype(image.dtype, np.integer):
    result = np.rint(result)
  return result.astype(image.dtype), there


def aligned(
  pixels: np.ndarray, valid: np.ndarray, max_shift: float, found: Shift | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Moves the second half of the bands, the image before, onto the first, by up to `max_shift` pixels.

  Pixels are [H, W, E], `valid` is bool[H, W] of both dates. 0 moves nothing. The shift is estimated
  unless it was `found` earlier.
  """
  if not max_shift:
    return pixels, valid
  after, before = np.split(pixels, 2, axis=-1)
  shift = (found or estimate(after, before, valid)).within(max_shift)
  before, known = moved(before, valid, shift)
  pixels, valid = np.concatenate([after, before], axis=-1), valid & known
  if not valid.all():
    reading.fill_invalid(pixels, valid)
  return pixels, valid

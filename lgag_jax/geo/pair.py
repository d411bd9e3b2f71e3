"""Reads an image after an event together with the one before, on the grid of the former.

The image before may have any grid, resolution and coordinate system. It is resampled on the fly, in
windows, and moved by the shift between the dates. A pixel without data on either date has none.
"""

import contextlib
import logging
import math
import pathlib

import numpy as np
import pyproj
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from lgag_jax.geo import coregistration, crs_relation, placement, resampling, scene_files
from lgag_jax.geo.coregistration import Shift
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scene import Scene, open_scene
from lgag_jax.geo.windows import parts_below, share_below, windows_below
from lgag_jax.imagery import reading
from lgag_jax.imagery.opening import ImageError

_LOG = logging.getLogger(__name__)

_PLAIN = CRS.from_epsg(3857)  # Stands for the pixels of two images without a place.
_MOST_PIXELS = 1 << 24  # Of the image before that are read at once, at the scale of the image after.
_MOST_RESAMPLED = 1 << 18  # Of the image after, since resampling takes 50 bytes and more for each.
_FINER, _BORDER = 4, 4  # How much finer along one axis, and pixels around, that are then resampled.
_SAME = 1e-6  # Pixels between the corners of two grids that are the same.


class Pair:
  """Both dates of a scene, which reads like a `Scene` of twice the bands: after, then before."""

  def __init__(self, after: Scene, before: Scene, max_shift: float, keys: tuple[str, ...]):
    """Finds the shift, which `keys` identify, unless `max_shift` is 0; raises ImageError."""
    self.path, self.grid, self.dtype = after.path, after.grid, after.dtype
    self.channels = after.channels + before.channels
    self.band_types, self.notes = [*after.band_types, *before.band_types], after.notes
    self._after, self._before, self._shift = after, before, (0.0, 0.0)
    self._to_before = _transformer(after, before)
    own = before.grid.crs or _PLAIN
    self._crs = (after.grid.crs or _PLAIN) if self._to_before else own, own
    self._check()
    self.shift = Shift()
    if max_shift:
      self.shift = _shift(self, *keys)
      self._shift = self.shift.within(max_shift)

  def __enter__(self) -> "Pair":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    self._after.close()
    self._before.close()

  def read(
    self, window: Window, out_shape: tuple[int, int] | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels [h, w, channels] of both dates and their valid mask, as `Scene.read` does."""
    after, valid = self._after.read(window, out_shape)
    before, also_valid = self._read_before(window, valid.shape)
    pixels, valid = np.concatenate([after, before], axis=-1), valid & also_valid
    if not valid.all():
      reading.fill_invalid(pixels, valid)
    return pixels, valid

  def valid(self, window: Window) -> np.ndarray:
    """Returns where both dates have data, bool[h, w]."""
    valid = self._after.valid(window)
    return valid & self._read_before(window, valid.shape)[1]

  def covered(self) -> float:
    """Returns the fraction of the image after that lies in the image before, to about a hundredth."""
    size = self.grid.height, self.grid.width
    return share_below(self.grid.transform, size, self._to_before, self._before.grid)

  def estimate_shift(self) -> Shift:
    """Returns the shift between the dates, from blocks over the whole scene."""
    blocks = coregistration.blocks_of((self.grid.height, self.grid.width))
    windows = (
      Window(c.start, r.start, c.stop - c.start, r.stop - r.start) for r, c in blocks
    )

    def of(window: Window) -> np.ndarray | None:
      pixels, valid = self.read(window)
      after, before = np.split(pixels, 2, axis=-1)
      return coregistration.of_block(after, before, valid)

    return coregistration.combine(map(of, windows))

  def _read_before(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the image before on a window of the image after, and where it has data."""
    if self._shift == (0.0, 0.0) and _same_grid(self._after.grid, self._before.grid):
      return self._before.read(window, shape)
    rows, cols = window.height / shape[0], window.width / shape[1]
    down, across = self._shift
    target = self.grid.transform @ Affine.translation(window.col_off - across, window.row_off - down)
    pixels, valid = np.zeros((*shape, self._before.channels), self.dtype), np.zeros(shape, bool)
    target @= Affine.scale(cols, rows)
    for part_rows, part_cols, below in parts_below(
      self._before.path, target, shape, self._to_before, self._before.grid, _MOST_PIXELS,
      largest=_MOST_RESAMPLED,
    ):
      some, also_valid = pixels[part_rows, part_cols], valid[part_rows, part_cols]
      corner = target @ Affine.translation(part_cols.start, part_rows.start)
      for box, place in below:
        values, known = self._resampled(box, place, corner, also_valid.shape)
        some[known & ~also_valid] = values[known & ~also_valid]
        also_valid |= known
    return pixels, valid

  def _resampled(
    self, box: Window, place: Affine, target: Affine, shape: tuple[int, int]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns a window of the image before, which lies at `place`, on pixels that lie at `target`."""
    factor = max(1, math.floor(min(box.width / shape[1], box.height / shape[0])))
    small = [  # Its pixels may be far finer along one axis than along the other.
      max(1, min(length // factor, _FINER * count + _BORDER))
      for length, count in zip((box.height, box.width), shape, strict=True)
    ]
    source, known = self._before.read(box, (small[0], small[1]))
    values, known = resampling.bilinear(
      source.astype(np.float64 if source.dtype.itemsize > 2 else np.float32), known,
      (place @ Affine.scale(box.width / small[1], box.height / small[0]), self._crs[1]),
      (target, self._crs[0]), shape,
    )
    values = np.rint(values) if np.issubdtype(self.dtype, np.integer) else values
    return values.astype(self.dtype), known

  def _check(self) -> None:
    """Raises ImageError unless the images can be laid over each other."""
    after, before = self._after, self._before
    if after.dtype != before.dtype:
      raise ImageError(
        f"{before.path} holds {before.dtype}, but {after.path}, the image after, holds {after.dtype}: "
        "give both the same type and range of values, such as with gdal_translate -ot -scale."
      )
    size = self.grid.height, self.grid.width
    if not windows_below(self.grid.transform, size, self._to_before, before.grid):
      raise ImageError(
        f"{before.path} does not overlap {after.path}, the image after: name the image before of the "
        "same place, or correct its CRS (gdal_edit.py -a_srs)."
      )


def open_pair(
  after: pathlib.Path, before: pathlib.Path, channels: int, *, bands: tuple[int, ...] = (),
  max_shift: float = 0.0,
) -> Pair:
  """Opens both dates of a scene; raises ImageError naming the file that cannot be used.

  A shift between the dates of up to `max_shift` pixels of the image after is corrected; 0 corrects
  none, and does not estimate it.
  """
  with contextlib.ExitStack() as stack:
    first, second = (
      stack.enter_context(open_scene(path, channels, bands=bands)) for path in (after, before)
    )
    pair = Pair(first, second, max_shift, (scene_files.key(after), scene_files.key(before)))
    stack.pop_all()
  return pair


def warnings(scene: Scene | Pair, max_shift: float) -> list[str]:
  """Returns what to check in the image before of a scene; nothing if it has none."""
  if not isinstance(scene, Pair):
    return []
  texts, share = shift_warnings(scene.shift, max_shift), scene.covered()
  if share < 1.0:
    texts.append(
      f"the image before covers {100 * share:.0f} % of the image after. The rest counts as nodata. For "
      "a whole map, give an image before that covers all of it."
    )
  return texts


def shift_warnings(shift: Shift, max_shift: float) -> list[str]:
  """Returns what to check if a shift is not corrected."""
  if not max_shift or not shift.blocks:
    return []
  if shift.length is None:
    return [
      f"the shift between the dates is unknown: only {shift.agreeing} of {shift.blocks} blocks agree. "
      "Check that the images before and after lie on each other."
    ]
  if shift.length > max_shift:
    return [
      f"the image before lies {shift.length:.1f} pixels beside the image after, more than "
      f"max_shift={max_shift:g}, so it was not moved. Align the images, or raise max_shift."
    ]
  return []


def _transformer(after: Scene, before: Scene) -> pyproj.Transformer | None:
  """Returns what leads from coordinates after to those before, None where they are the same."""
  first, second = after.grid, before.grid
  if (first.crs is None) != (second.crs is None) or first.georeferenced != second.georeferenced:
    places = [(grid.georeferenced, grid.crs is not None) for grid in (first, second)]
    without = after if places[0] < places[1] else before
    if warning := placement.unplaced_warning(without.grid):
      raise ImageError(f"{without.path} does not fit its image of the other date: {warning}")
    raise ImageError(
      f"{without.path} has no coordinate reference system, unlike its image of the other date: give it "
      "its own, such as gdal_edit.py -a_srs EPSG:32633."
    )
  if not first.placed and not second.placed:
    reading.check_same_size(before.path, (second.height, second.width), (first.height, first.width))
    return None
  if first.crs is None or second.crs is None or crs_relation.same(first.crs, second.crs):
    return None
  transformer = crs_relation.transformer(first.crs, second.crs)
  if transformer is None:
    raise ImageError(
      f"{before.path} is in {crs_relation.full_name(second.crs)}, which does not relate to that of "
      f"{after.path}: give both a CRS that lies on the Earth."
    )
  return transformer


def _same_grid(first: Grid, second: Grid) -> bool:
  """Whether the pixels of both are the same."""
  if (first.height, first.width) != (second.height, second.width):
    return False
  if first.crs and second.crs and not crs_relation.same(first.crs, second.crs):
    return False
  corners = [(0, 0), (first.width, 0), (0, first.height)]
  return all(
    math.dist(~second.transform @ (first.transform @ corner), corner) < _SAME for corner in corners
  )


_shifts: dict[tuple, Shift] = {}


def _shift(pair: Pair, *keys: str) -> Shift:
  """Returns the shift of two files, which is estimated once."""
  key = (*keys, pair.channels)
  if key not in _shifts:
    _shifts[key] = pair.estimate_shift()
  return _shifts[key]

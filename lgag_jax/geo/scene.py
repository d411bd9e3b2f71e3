"""Reads scenes, georeferenced rasters, in windows and in bounded memory.

Supports GeoTIFF of any kind (COG, BigTIFF), JPEG 2000, PNG and JPEG, and plain mosaics of them (VRT).
`placement` says which files beside it give its place, `imagery.side_files` how its mask is read.

`open_scene` opens a GeoTIFF by `vrt.open_scene_raster`, which opens all files that are not VRTs by
`imagery.opening.open_raster`. That function checks the first bytes, lets only the one GDAL driver for
them open the file, and checks its size.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.windows import Window

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.placement import grid_of
from lgag_jax.geo.vrt import SCENE_OPTIONS, open_scene_raster
from lgag_jax.imagery import band_notes, opening, reading
from lgag_jax.imagery.band_notes import BandNotes
from lgag_jax.imagery.opening import ImageError
from lgag_jax.imagery.orientation import Raster

_REMEDY = "Restore it."


class Hiding(Protocol):
  """Hides parts of a scene, as `clouds.Clouds` does."""

  def hidden(self, window: Window, shape: tuple[int, int]) -> np.ndarray:
    """Returns where a window of the scene, read at `shape`, is hidden, bool[h, w]."""
    ...

  def close(self) -> None:
    ...


class Scene:
  """An open scene, a context manager for one thread at a time; `open_scene` creates it."""

  def __init__(
    self, path: pathlib.Path, raster: Raster, grid: Grid, bands: list[int],
    palette: np.ndarray | None,
  ):
    self.path = path
    self.grid = grid
    self.channels = len(bands) if palette is None else palette.shape[1]
    self.band_types = [np.dtype(raster.dtypes[band - 1]) for band in bands]  # Of a mosaic, any.
    self.dtype = np.result_type(*self.band_types) if palette is None else palette.dtype
    self._raster, self._bands, self._palette = raster, bands, palette
    self._clouds: Hiding | None = None

  def __enter__(self) -> "Scene":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    self._raster.close()
    if self._clouds:
      self._clouds.close()

  def hide(self, clouds: Hiding) -> None:
    """Makes pixels under clouds missing from now on; closes `clouds` with the scene."""
    self._clouds = clouds

  @property
  def notes(self) -> list[BandNotes]:
    """What the file says of the bands that are read; nothing of a palette's colours."""
    if self._palette is not None:
      return [BandNotes()] * self.channels
    with opening.error_context(self.path):
      return band_notes.read(self._raster, self._bands)

  def read(
    self, window: Window, out_shape: tuple[int, int] | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels [h, w, channels] and their valid mask, bool [h, w]; raises ImageError.

    A window of whole pixels may extend past the scene, where no pixel is valid. `reading.fill_invalid`
    gives invalid pixels a value. With a smaller `out_shape`, pixels are averages, from the file's
    overviews if it has any; at the scene's border their place is exact to half such a pixel.
    """
    shape = out_shape or (int(window.height), int(window.width))
    self._check_size(shape)
    pixels, valid = np.zeros((*shape, self.channels), self.dtype), np.zeros(shape, bool)
    inside, target = _intersect(window, shape, self.grid)
    if inside is not None:
      pixels[target], valid[target] = self._read_inside(inside, valid[target].shape)
      valid &= ~self._hidden(window, shape)
    if not valid.all():
      reading.fill_invalid(pixels, valid)
    return pixels, valid

  def valid(self, window: Window) -> np.ndarray:
    """Returns a window's valid mask, bool [h, w]; reads only the file's masks where they suffice."""
    if np.issubdtype(self.dtype, np.inexact):  # Any value may be NaN.
      return self.read(window)[1]
    shape = int(window.height), int(window.width)
    self._check_size(shape)
    valid = np.zeros(shape, bool)
    inside, target = _intersect(window, shape, self.grid)
    if inside is not None:
      with _gdal_context(self.path):
        valid[target] = reading.valid_pixels(self._raster, self._bands, inside)
      valid &= ~self._hidden(window, shape)
    return valid

  def _hidden(self, window: Window, shape: tuple[int, int]) -> np.ndarray:
    return self._clouds.hidden(window, shape) if self._clouds else np.zeros(shape, bool)

  def _check_size(self, shape: tuple[int, int]) -> None:
    part = f"a window of {shape[0]} x {shape[1]}"
    values = shape[0] * shape[1] * max(self.channels, len(self._bands))
    opening.check_size(self._raster, self.path, values, opening.MAX_BYTES, part, "read smaller windows")

  def _read_inside(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    # Indices of a palette cannot be averaged.
    resampling = Resampling.average if self._palette is None else Resampling.nearest
    with _gdal_context(self.path):
      array = self._read_bands(window=window, out_shape=shape, resampling=resampling)
      valid = reading.valid_pixels(self._raster, self._bands, window, shape)
    if np.issubdtype(array.dtype, np.inexact):
      valid &= np.isfinite(array).all(axis=0)
    if self._palette is not None:
      return self._palette[array[0]], valid
    return np.moveaxis(array, 0, -1), valid

  def _read_bands(self, out_shape: tuple[int, int], **options) -> np.ndarray:
    if len({*self.band_types}) == 1:
      return self._raster.read(self._bands, out_shape=(len(self._bands), *out_shape), **options)
    bands = [self._raster.read(band, out_shape=out_shape, **options) for band in self._bands]
    return np.stack(bands).astype(self.dtype, copy=False)


def band_count(path: pathlib.Path) -> int:
  """Returns the number of bands of a scene that hold data: all but alpha, or a palette's three."""
  with open_scene_raster(path) as raster, opening.error_context(path):
    kinds = raster.colorinterp
  return 3 if kinds == (ColorInterp.palette,) else len(kinds) - (kinds[-1] == ColorInterp.alpha)


def open_scene(path: pathlib.Path, channels: int, *, bands: tuple[int, ...] = ()) -> Scene:
  """Opens a scene; raises ImageError naming the file, what is wrong with it and the remedy.

  `bands` are numbers from 1 in the model's order; by default `reading.choose_bands` chooses them.
  """
  path = pathlib.Path(path)
  raster = open_scene_raster(path)
  try:
    with _gdal_context(path):
      opening.check_extent(raster, path)
      numbers, palette = _choose_bands(raster, path, channels, bands)
      return Scene(path, raster, grid_of(raster, path), numbers, palette)
  except BaseException:
    raster.close()
    raise


@contextlib.contextmanager
def _gdal_context(path: pathlib.Path) -> Iterator[None]:
  """Sets GDAL's options for this thread while it reads; errors name the scene."""
  with rasterio.Env(**SCENE_OPTIONS), opening.error_context(path, _REMEDY):
    yield


def _choose_bands(raster, path, channels, bands):
  remedy = f"but the model needs {channels}: name them, such as --bands=4,3,2, or convert the file"
  if not bands:
    return reading.choose_bands(raster, path, channels, remedy)
  if len(bands) != channels or not all(1 <= band <= raster.count for band in bands):
    option = ",".join(map(str, bands))
    raise ImageError(
      f"{path} has {raster.count} channels, and --bands={option} does not name {channels} of them, as "
      f"the model needs: name {channels} numbers from 1 to {raster.count}, such as --bands=4,3,2."
    )
  return list(bands), None


def _intersect(window: Window, shape: tuple[int, int], grid: Grid) -> tuple[Window | None, tuple]:
  """Returns the part of a window in the scene and its slices of the result, or (None, ()) if empty."""
  starts, lengths, slices = [], [], []
  for start, length, size, end in (
    (window.row_off, window.height, shape[0], grid.height),
    (window.col_off, window.width, shape[1], grid.width),
  ):
    first, last = max(start, 0), min(start + length, end)
    if first >= last:
      return None, ()
    low, high = (round((edge - start) * size / length) for edge in (first, last))
    if low == high:
      return None, ()
    starts.append(first)
    lengths.append(last - first)
    slices.append(slice(low, high))
  return Window(starts[1], starts[0], lengths[1], lengths[0]), tuple(slices)

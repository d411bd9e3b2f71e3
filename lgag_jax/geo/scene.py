"""Scenes: georeferenced rasters, read by windows in bounded memory.

GeoTIFF of any kind (COG, BigTIFF), JPEG 2000, PNG and JPEG, and plain mosaics of them (VRT). Where a
file does not say where it lies, a world file beside it may: x.pgw or x.pngw for x.png, x.jgw, x.jpgw,
x.tfw and so on, x.wld for any, in lower or upper case. Nothing else that lies beside a file is read.
"""

import contextlib
import math
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.windows import Window

from lgag_jax.geo.formats import SCENE_OPTIONS, open_scene_raster
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery import opening, reading
from lgag_jax.imagery.opening import ImageError

_LONGEST_SIDE = 1 << 20
_MOST_WORLD_BYTES = 1024
_REMEDY = "Restore it."


class Scene:
  """An open scene, a context manager; for one thread at a time. Made by `open_scene`."""

  def __init__(
    self, path: pathlib.Path, raster: rasterio.DatasetReader, grid: Grid, bands: list[int],
    palette: np.ndarray | None,
  ):
    self.path = path
    self.grid = grid
    self.channels = len(bands) if palette is None else palette.shape[1]
    self.dtype = _dtype(raster, bands) if palette is None else palette.dtype
    self._raster, self._bands, self._palette = raster, bands, palette

  def __enter__(self) -> "Scene":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    self._raster.close()

  def read(
    self, window: Window, out_shape: tuple[int, int] | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Reads pixels [h, w, channels] and where they are valid, bool [h, w]; raises ImageError.

    A window, of whole pixels, may reach past the scene, where nothing is valid. Pixels that are not
    valid are as `images.fill` makes them. With a smaller `out_shape` pixels are averages, from the
    file's overviews where it has them; at the scene's border they lie within half such a pixel.
    """
    shape = out_shape or (int(window.height), int(window.width))
    self._check_size(shape)
    pixels, valid = np.zeros((*shape, self.channels), self.dtype), np.zeros(shape, bool)
    inner, place = _inside(window, shape, self.grid)
    if inner is not None:
      pixels[place], valid[place] = self._read_inside(inner, valid[place].shape)
    if not valid.all():
      reading.fill(pixels, valid)
    return pixels, valid

  def valid(self, window: Window) -> np.ndarray:
    """Reads where a window is valid, bool [h, w]: by masks and alpha alone, where that suffices."""
    if np.issubdtype(self.dtype, np.inexact):  # Any value may be no number.
      return self.read(window)[1]
    shape = int(window.height), int(window.width)
    self._check_size(shape)
    valid = np.zeros(shape, bool)
    inner, place = _inside(window, shape, self.grid)
    if inner is not None:
      with _settings(self.path):
        valid[place] = reading.valid_pixels(self._raster, self._bands, inner)
    return valid

  def _check_size(self, shape: tuple[int, int]) -> None:
    what = f"a window of {shape[0]} x {shape[1]}"
    values = shape[0] * shape[1] * max(self.channels, len(self._bands))
    opening.check_bytes(
      self._raster, self.path, values, opening.MAX_BYTES, what, "read smaller windows")

  def _read_inside(self, window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    # Between a palette's indices there is no average.
    how = Resampling.average if self._palette is None else Resampling.nearest
    with _settings(self.path):
      array = self._read_bands(window=window, out_shape=shape, resampling=how)
      valid = reading.valid_pixels(self._raster, self._bands, window, shape)
    if np.issubdtype(array.dtype, np.inexact):
      valid &= np.isfinite(array).all(axis=0)
    if self._palette is not None:
      return self._palette[array[0]], valid
    return np.moveaxis(array, 0, -1), valid

  def _read_bands(self, out_shape: tuple[int, int], **how) -> np.ndarray:
    if len({self._raster.dtypes[band - 1] for band in self._bands}) == 1:
      return self._raster.read(self._bands, out_shape=(len(self._bands), *out_shape), **how)
    bands = [self._raster.read(band, out_shape=out_shape, **how) for band in self._bands]
    return np.stack(bands).astype(_dtype(self._raster, self._bands), copy=False)


def open_scene(
  path: pathlib.Path, channels: int, *, bands: tuple[int, ...] = (), side_limit: int = _LONGEST_SIDE
) -> Scene:
  """Opens a scene; raises ImageError naming the file, what is wrong with it and the remedy.

  `bands` are numbers from 1 in the wanted order. Without, all are taken, as `images.choose_bands` does.
  A side above `side_limit` is refused: a header may claim any, and windows would never end.
  """
  path = pathlib.Path(path)
  raster = open_scene_raster(path)
  try:
    with _settings(path):
      if max(raster.height, raster.width) > side_limit:
        raise ImageError(
          f"{path} is {raster.height} x {raster.width}, a scene at most {side_limit} on a side: "
          "restore it, or cut it with gdal_translate -srcwin."
        )
      chosen, palette = _choose(raster, path, channels, bands)
      return Scene(path, raster, _grid(raster, path), chosen, palette)
  except BaseException:
    raster.close()
    raise


@contextlib.contextmanager
def _settings(path: pathlib.Path) -> Iterator[None]:
  """Sets GDAL's options, which hold for a thread and while it reads; its errors name the scene."""
  with rasterio.Env(**SCENE_OPTIONS), opening.naming(path, _REMEDY):
    yield


def _dtype(raster, bands) -> np.dtype:
  """A mosaic's bands may differ in type."""
  return np.result_type(*(raster.dtypes[band - 1] for band in bands))


def _choose(raster, path, channels, bands):
  remedy = f"{channels} are wanted: name them in order, such as --bands=4,3,2, or convert the file"
  if not bands:
    return reading.choose_bands(raster, path, channels, remedy)
  if len(bands) != channels or not all(1 <= band <= raster.count for band in bands):
    named = ",".join(map(str, bands))
    raise ImageError(
      f"{path} has {raster.count} channels, of which --bands={named} names {len(bands)}; {channels} "
      f"are wanted: name {channels} of 1 to {raster.count} in order, such as --bands=4,3,2."
    )
  return list(bands), None


def _inside(window: Window, shape: tuple[int, int], grid: Grid) -> tuple[Window | None, tuple]:
  """Returns the part of a window that lies in the scene, and its place in the result, or (None, ())."""
  starts, lengths, place = [], [], []
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
    place.append(slice(low, high))
  return Window(starts[1], starts[0], lengths[1], lengths[0]), tuple(place)


def _grid(raster: rasterio.DatasetReader, path: pathlib.Path) -> Grid:
  grid = Grid.of(raster)
  if not grid.transform.is_identity:
    return grid
  for file in _world_files(path):
    if os.path.exists(file):  # No error for a name too long, which cannot be there.
      return Grid(grid.height, grid.width, grid.crs, read_world_file(file))
  return grid


def _world_files(path: pathlib.Path) -> list[pathlib.Path]:
  """Names the world files that x.png may have: x.pgw, x.pngw, x.wld, and those in capitals."""
  suffix = path.suffix.lower()
  suffixes = [f".{suffix[1]}{suffix[-1]}w", f"{suffix}w"] if len(suffix) > 2 else []
  return [path.with_suffix(s) for low in (*suffixes, ".wld") for s in (low, low.upper())]


def read_world_file(path: pathlib.Path) -> Affine:
  """Returns a world file's transform from pixel corners; raises ImageError naming a broken file."""
  opening.read_start(path)  # No pipe.
  try:
    with path.open("rb") as file:
      text = file.read(_MOST_WORLD_BYTES + 1)
    if len(text) > _MOST_WORLD_BYTES:
      raise ValueError(f"it has more than {_MOST_WORLD_BYTES} bytes")
    a, d, b, e, c, f = map(float, text.decode("utf-8-sig").split())
    if not all(map(math.isfinite, (a, b, c, d, e, f))) or a * e == b * d:
      raise ValueError("its numbers span no pixel")
  except (OSError, ValueError) as error:
    raise ImageError(
      f"{path} is no world file: {error}. Write six numbers into it, with points for decimals, or take "
      "it away."
    ) from error
  # The numbers place the centre of the first pixel, GDAL's transform its corner.
  return Affine(a, b, c, d, e, f) @ Affine.translation(-0.5, -0.5)

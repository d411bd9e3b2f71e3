"""Draws tiles, their surroundings and the squares of the map as JPEGs."""

import collections
import contextlib
import functools
import io
import threading
from collections.abc import Iterator

import numpy as np
from PIL import Image
from rasterio.windows import Window

from lgag_jax.geo.pair import Pair
from lgag_jax.geo.scene import Scene
from lgag_jax.imagery import scaling
from lgag_jax.labelling.tile_index import TileIndex

SQUARE = 256  # Side of a square of the map in pixels.
_NO_DATA_GREY = 232
_OPEN_SCENES = 8
_AT_ONCE = 4  # Pictures that are drawn at the same time.
_SAMPLES = 4  # Windows per side that a scene's range of values is measured in.
_SAMPLE_SIDE = 256
_MAX_PICTURES = 4096  # Kept in memory, of about 15 KB each.
_MAX_SURROUNDINGS = 1536  # Pixels per side.


class Pictures:
  """The pictures of all tiles of one date, for several threads."""

  def __init__(
    self, index: TileIndex, channels: int, bands: tuple[int, ...], rgb_bands: tuple[int, ...],
    max_shift: float = 0.0, before: bool = False,
  ):
    """With `before` it draws the images before, which are moved by up to `max_shift` pixels.

    Raises ValueError for `rgb_bands` that the scenes lack.
    """
    check_bands(rgb_bands, channels)
    self._index, self._channels, self._bands, self._rgb_bands = index, channels, bands, rgb_bands
    self._max_shift, self._of_date = max_shift, slice(*((channels, None) if before else (0, channels)))
    parts = index.version, index.files_version, *map(str, rgb_bands), f"{max_shift:g}"
    self.version = "-".join(parts)  # Differs for other tiles, or where these look different.
    self._idle: collections.deque[tuple[int, Scene | Pair]] = collections.deque()
    self._lock, self._slots = threading.Lock(), threading.BoundedSemaphore(_AT_ONCE)
    self._limits: dict[int, np.ndarray | None] = {}
    self._draw = functools.lru_cache(maxsize=_MAX_PICTURES)(self._drawn)

  def tile(self, number: int, side: int) -> bytes:
    """Returns a tile, at most `side` pixels wide."""
    scene, tile = self._index.tiles[number]
    return self._draw(scene, _numbers(tile.window), min(side, self._index.tile_size))

  def array(self, number: int, side: int) -> np.ndarray:
    """Returns a tile as `tile` shows it, u8[h, w, 3], and does not keep it."""
    scene, tile = self._index.tiles[number]
    side = min(side, self._index.tile_size)
    return self._drawn_array(scene, _numbers(tile.window), (side, side))

  def surroundings(self, number: int) -> bytes:
    """Returns a tile with the tiles around it, at full resolution if they are not too large."""
    scene, tile = self._index.tiles[number]
    side = self._index.tile_size
    window = tile.window.col_off - side, tile.window.row_off - side, 3 * side, 3 * side
    return self._draw(scene, window, min(3 * side, _MAX_SURROUNDINGS))

  def square(self, scene: int, level: int, x: int, y: int) -> bytes:
    """Returns a square of the map, whose pixels are averages of 2 ** level pixels per side."""
    side = SQUARE << level
    if 1 << level >= self._index.overviews[scene].scale:  # Reading would decode much of the scene.
      return self._square_of_overview(scene, x * side, y * side, side)
    return self._draw(scene, (x * side, y * side, side, side), SQUARE)

  def levels(self, scene: int) -> int:
    """Returns the number of halvings after which a scene fits in a square of the map."""
    grid = self._index.grids[scene]
    return max(0, (max(grid.height, grid.width) - 1) // SQUARE).bit_length()

  def whole(self, scene: int, side: int) -> np.ndarray:
    """Returns a scene, at most `side` pixels on its longer side, u8[h, w, 3]."""
    grid = self._index.grids[scene]
    scale = min(1.0, side / max(grid.height, grid.width))
    shape = max(1, round(grid.height * scale)), max(1, round(grid.width * scale))
    return self._drawn_array(scene, (0, 0, grid.width, grid.height), shape)

  def close(self) -> None:
    """Closes the scenes that nobody reads at the moment."""
    with self._lock:
      while self._idle:
        self._idle.popleft()[1].close()

  def _square_of_overview(self, scene: int, left: int, top: int, side: int) -> bytes:
    overview = self._index.overviews[scene]
    if scene not in self._limits:
      with self._slots, self._open(scene) as opened:
        self._limits_of(scene, opened)
    pixels, limits = overview.pixels[..., self._of_date], self._limits.get(scene)
    whole = scaling.picture(pixels, self._rgb_bands, overview.valid, limits)
    whole[~overview.valid] = _NO_DATA_GREY
    square = Image.new("RGB", (SQUARE, SQUARE), (_NO_DATA_GREY,) * 3)
    scale, height, width = overview.scale, *overview.valid.shape
    right, bottom = min(width * scale, left + side), min(height * scale, top + side)
    size = [max(1, round(length * SQUARE / side)) for length in (right - left, bottom - top)]
    box = left / scale, top / scale, right / scale, bottom / scale
    part = Image.fromarray(whole).resize(size, Image.Resampling.BOX, box)
    square.paste(part, (0, 0))
    return _jpeg(square)

  def _drawn(self, scene: int, window: tuple[int, int, int, int], side: int) -> bytes:
    return _jpeg(Image.fromarray(self._drawn_array(scene, window, (side, side))))

  def _drawn_array(
    self, scene: int, window: tuple[int, int, int, int], shape: tuple[int, int]
  ) -> np.ndarray:
    with self._slots, self._open(scene) as opened:
      pixels, valid = opened.read(Window(*window), shape if shape[0] < window[3] else None)
      limits = self._limits_of(scene, opened)
    picture = scaling.picture(pixels[..., self._of_date], self._rgb_bands, valid, limits)
    picture[~valid] = _NO_DATA_GREY
    return picture

  def _limits_of(self, scene: int, opened: Scene | Pair) -> np.ndarray | None:
    """Returns the values shown as black and white, the same in all tiles of a scene."""
    if opened.dtype == np.uint8:
      self._limits[scene] = None
    if scene not in self._limits:
      grid, pixels = opened.grid, []
      side = min(_SAMPLE_SIDE, grid.height, grid.width)
      for row in np.linspace(0, grid.height - side, _SAMPLES, dtype=int).tolist():
        for col in np.linspace(0, grid.width - side, _SAMPLES, dtype=int).tolist():
          values, valid = opened.read(Window(col, row, side, side))
          pixels.append(values[valid][:, self._of_date])
      self._limits[scene] = scaling.display_limits(np.concatenate(pixels)[:, None], self._rgb_bands)
    return self._limits[scene]

  @contextlib.contextmanager
  def _open(self, number: int) -> Iterator[Scene | Pair]:
    """Yields a scene that no other thread reads."""
    with self._lock:
      found = next((pair for pair in self._idle if pair[0] == number), None)
      if found:
        self._idle.remove(found)
    files = self._index.scenes[number]
    scene = found[1] if found else files.open(
      self._channels, bands=self._bands, max_shift=self._max_shift)
    try:
      yield scene
    except BaseException:
      scene.close()
      raise
    with self._lock:
      self._idle.append((number, scene))
      surplus = self._idle.popleft() if len(self._idle) > _OPEN_SCENES else None
    if surplus:
      surplus[1].close()


def check_bands(rgb_bands: tuple[int, ...], channels: int) -> None:
  """Raises ValueError if the bands to show are not among those that are read; one or two are grey."""
  if max(rgb_bands) > max(channels, 3):
    raise ValueError(
      f"--rgb_bands={','.join(map(str, rgb_bands))}: there are only {channels} bands, counted from 1."
    )


def _jpeg(image: Image.Image) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, "JPEG", quality=88)
  return buffer.getvalue()


def _numbers(window: Window) -> tuple[int, int, int, int]:
  return int(window.col_off), int(window.row_off), int(window.width), int(window.height)

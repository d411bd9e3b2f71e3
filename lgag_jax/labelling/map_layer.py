"""Draws the probabilities of a map as a translucent layer over its scene."""

import io
import logging
import os
import pathlib
import threading
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageColor
from rasterio.windows import Window

from lgag_jax.mapping import rasters
from lgag_jax.runtime import files

_LOG = logging.getLogger(__name__)

SQUARE = 256
_COLOURS = np.array([ImageColor.getrgb(c) for c in ("#d81b00", "#8a2be2", "#00a37f", "#a3195b")])
_LEAST = 0.1  # Less likely pixels stay clear.
_OPACITY = 0.6  # Of a certain pixel.
_NO_DATA = 255  # In probabilities as whole percent.


class MapLayer:
  """The maps in a folder, for several threads."""

  def __init__(self, folder: pathlib.Path):
    self._folder, self._lock = folder, threading.Lock()
    self._paths: dict[str, pathlib.Path] = {}
    self._version = -1.0

  def paths(self) -> dict[str, pathlib.Path]:
    """Returns the rasters of probabilities by the absolute path of their scene."""
    table = self._folder / "predictions.csv"  # Written last.
    version = table.stat().st_mtime if table.exists() else 0.0
    with self._lock:
      if version != self._version:
        self._version, self._paths = version, {}
        for record in sorted((self._folder / "scenes").glob("*.json")) if version else []:
          try:
            scene, raster = _named(files.read_json(record))
          except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            _LOG.warning("%s is damaged, and its map is not shown: %r.", record, error)
            continue
          if raster:
            self._paths[scene] = self._folder / raster
      return self._paths

  def version(self) -> str:
    """Returns a text that changes with the maps, "" without any."""
    return f"{self._version:.3f}" if self.paths() else ""

  def draw(self, scene: pathlib.Path, window: tuple[int, int, int, int], side: int) -> bytes:
    """Returns a window (left, top, width, height) of a scene's map as a PNG of `side` pixels per side.

    Raises ImageError if the map cannot be read, ValueError if there is none.
    """
    path = self.paths().get(os.path.abspath(scene))
    if path is None:
      raise ValueError(f"There is no map of {scene.name}.")
    with rasters.open_map_raster(path, None) as raster:
      left, top, width, height = window
      right, bottom = min(left + width, raster.dataset.width), min(top + height, raster.dataset.height)
      shown = np.zeros((side, side, 4), np.uint8)
      first = max(left, 0), max(top, 0)
      if first[0] < right and first[1] < bottom:
        rows, cols = (
          slice(round((begin - start) * side / length), round((end - start) * side / length))
          for begin, end, start, length in (
            (first[1], bottom, top, height), (first[0], right, left, width))
        )
        shape = max(1, rows.stop - rows.start), max(1, cols.stop - cols.start)
        part, inside = shown[rows, cols], Window(*first, right - first[0], bottom - first[1])
        bands = (
          raster.read(band, inside, shape=shape) for band in range(1, raster.dataset.count + 1)
        )
        part[:] = _painted(bands)[: part.shape[0], : part.shape[1]]
    buffer = io.BytesIO()
    Image.fromarray(shown, "RGBA").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _named(record: dict) -> tuple[str, str]:
  """Returns the scene of a map's record and the file of its probabilities, "" if it names none."""
  scene, names = record.get("path", ""), record["files"]
  found = [n for n in names if n.startswith("probability/") and not n.endswith(".qml")]
  if not isinstance(scene, str) or not isinstance(names, list):
    raise TypeError("its path is no text")
  return scene, found[0] if found and ".." not in found[0] else ""


def _painted(bands: Iterable[np.ndarray]) -> np.ndarray:
  """Returns scores [h, w] of classes as u8[h, w, 4]: the likeliest's colour, opaque if it is likely.

  Only one class is in memory at a time.
  """
  likeliest, score = np.zeros((), int), np.zeros(())
  for number, values in enumerate(bands):
    if values.dtype == np.uint8:
      values = np.where(values == _NO_DATA, 0.0, values / 100.0)
    values = np.where(np.isnan(values), 0.0, values)  # No data, in probabilities as floats.
    likeliest, score = np.where(values > score, number, likeliest), np.maximum(score, values)
  opacity = np.where(score < _LEAST, 0.0, _OPACITY * score * 255)
  return np.dstack([_COLOURS[likeliest % len(_COLOURS)], opacity]).astype(np.uint8)

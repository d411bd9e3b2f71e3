"""Draws the probabilities of a map as a translucent layer over its scene."""

import io
import logging
import os
import pathlib
import threading

import numpy as np
import rasterio
from PIL import Image, ImageColor
from rasterio.enums import Resampling
from rasterio.windows import Window

from lgag_jax.geo.vrt import SCENE_OPTIONS
from lgag_jax.imagery import opening
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
    with rasterio.Env(**SCENE_OPTIONS), opening.open_raster(path) as raster:
      left, top, width, height = window
      right, bottom = min(left + width, raster.width), min(top + height, raster.height)
      shown = np.zeros((side, side, 4), np.uint8)
      first = max(left, 0), max(top, 0)
      if first[0] < right and first[1] < bottom:
        rows, cols = (
          slice(round((begin - start) * side / length), round((end - start) * side / length))
          for begin, end, start, length in (
            (first[1], bottom, top, height), (first[0], right, left, width))
        )
        shape = max(1, rows.stop - rows.start), max(1, cols.stop - cols.start)
        with opening.error_context(path):
          scores = raster.read(
            window=Window(*first, right - first[0], bottom - first[1]),
            out_shape=(raster.count, *shape), resampling=Resampling.nearest,
          )
        part = shown[rows, cols]
        part[:] = _painted(scores)[: part.shape[0], : part.shape[1]]
    buffer = io.BytesIO()
    Image.fromarray(shown, "RGBA").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _named(record: dict) -> tuple[str, str]:
  """Returns the scene of a map's record and the file of its probabilities, "" if it names none."""
  scene, names = record.get("path", ""), record["files"]
  rasters = [n for n in names if n.startswith("probability/") and not n.endswith(".qml")]
  if not isinstance(scene, str) or not isinstance(names, list):
    raise TypeError("its path is no text")
  return scene, rasters[0] if rasters and ".." not in rasters[0] else ""


def _painted(scores: np.ndarray) -> np.ndarray:
  """Returns scores [C, h, w] as u8[h, w, 4]: the likeliest class's colour, opaque if it is likely."""
  if scores.dtype == np.uint8:
    scores = np.where(scores == _NO_DATA, 0.0, scores / 100.0)
  scores = np.where(np.isnan(scores), 0.0, scores)  # No data, in probabilities as floats.
  likeliest, score = scores.argmax(0), scores.max(0)
  opacity = np.where(score < _LEAST, 0.0, _OPACITY * score * 255)
  return np.dstack([_COLOURS[likeliest % len(_COLOURS)], opacity]).astype(np.uint8)

"""The picture that the page shows behind a map: its scene, or what the output has if that is gone."""

import functools
import hashlib
import logging
import pathlib
import threading

from rasterio.windows import Window

from lgag_jax.geo.companions import SceneFiles
from lgag_jax.geo.scene import open_scene
from lgag_jax.geo.scene_ground import SceneGround
from lgag_jax.geo.vrt import open_scene_raster
from lgag_jax.imagery.opening import ImageError
from lgag_jax.labelling.pictures import SQUARE, Pictures, check_bands
from lgag_jax.labelling.tile_index import Overview, TileIndex
from lgag_jax.options.reviewing import Settings
from lgag_jax.options.tiling import Settings as TilingSettings
from lgag_jax.reviewing.maps import SceneMap
from lgag_jax.tiling import tile

_LOG = logging.getLogger(__name__)

_OVERVIEW_SIDE = 1024  # Pixels at most. Smaller scales of the map are drawn from it.


class ScenePictures:
  """The squares of a slippy map of a scene, for several threads."""

  def __init__(self, scene_map: SceneMap, settings: Settings):
    """Looks for the scene's file. If it is gone, the page shows the output's own picture.

    Raises ValueError for bands to show that the scene lacks.
    """
    self._map, self._settings, self._lock = scene_map, settings, threading.Lock()
    grid, path = scene_map.grid, scene_map.scene
    self.levels = max(0, (max(grid.height, grid.width) - 1) // SQUARE).bit_length()
    self.problem = _problem(scene_map, settings)
    if self.problem:
      _LOG.warning("%s The page shows %s instead.", self.problem, scene_map.overlay)
    else:
      check_bands(settings.rgb_bands, _channels(path, settings.bands))
    self._path = path
    parts = (scene_map.key, self.problem, settings.bands, settings.rgb_bands)
    self.version = hashlib.sha256(repr(parts).encode(errors="backslashreplace")).hexdigest()[:16]

  def square(self, level: int, x: int, y: int) -> bytes:
    """Returns a JPEG of 2 ** `level` pixels per side of its pixels; ValueError if there is none."""
    grid, side = self._map.grid, SQUARE << min(level, self.levels)
    if self.problem or level > self.levels or x * side >= grid.width or y * side >= grid.height:
      raise ValueError("There is no such square of the map.")
    with self._lock:
      pictures = self._pictures
    return pictures.square(0, level, x, y)

  @functools.cached_property
  def _pictures(self) -> Pictures:
    grid, bands = self._map.grid, self._settings.bands
    channels = _channels(self._path, bands)
    scale = -(-max(grid.height, grid.width) // _OVERVIEW_SIDE)
    rows, cols = (-(-length // scale) for length in (grid.height, grid.width))
    with open_scene(self._path, channels, bands=bands) as scene:
      pixels, valid = scene.read(Window(0, 0, cols * scale, rows * scale), (rows, cols))
    overview = Overview(pixels, valid, scale)
    index = TileIndex((SceneFiles(self._path),), (grid,), SQUARE, (), (overview,), "")
    return Pictures(index, channels, bands, self._settings.rgb_bands)


def _problem(scene_map: SceneMap, settings: Settings) -> str:
  """Returns why a map's scene cannot be shown, else ""."""
  path, grid = scene_map.scene, scene_map.grid
  if not path.is_file():
    return f"{path} is not there any more."
  try:
    with open_scene_raster(path) as raster:
      size = raster.height, raster.width
    with open_scene(path, _channels(path, settings.bands), bands=settings.bands) as scene:
      ground = SceneGround(path, scene.grid)
  except (ImageError, OSError) as error:
    return str(error)
  if size != (grid.height, grid.width):
    return f"{path} has {size[0]} x {size[1]} pixels, but its map {grid.height} x {grid.width}."
  difference = ground.difference(SceneGround(path, grid).text)
  return f"{path} is another scene than that of the map: {difference}." if difference else ""


def _channels(path: pathlib.Path, bands: tuple[int, ...]) -> int:
  return tile.channels_of(path, TilingSettings(input=str(path), output="-", labels="-", bands=bands))

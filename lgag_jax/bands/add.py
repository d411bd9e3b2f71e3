"""Writes scenes with more bands: terrain from a DEM, and spectral indices (--mode=bands).

    python -m lgag_jax.main --mode=bands --input=scene.tif --dem=dem.tif --add=slope --output=bands

All else reads the result as any scene of more bands. Scenes are read in blocks, so memory does not
depend on their size. The output folder appears when it is complete.
"""

import contextlib
import logging
import math
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window

from lgag_jax.bands import indices, quantities
from lgag_jax.config import DataConfig
from lgag_jax.geo import companions, pair
from lgag_jax.geo.companions import SceneFiles
from lgag_jax.geo.dem import open_dem
from lgag_jax.geo.pair import Pair
from lgag_jax.geo.scene import Scene, band_count
from lgag_jax.geo.terrain_layers import LAYERS, TerrainLayers
from lgag_jax.geo.vrt import SCENE_OPTIONS, open_scene_raster
from lgag_jax.imagery import band_notes, listing, scaling
from lgag_jax.imagery.band_notes import BandNotes
from lgag_jax.imagery.opening import ImageError
from lgag_jax.options.bands import NAMES, Settings
from lgag_jax.runtime import files, folders
from lgag_jax.runtime.progress import Progress

_LOG = logging.getLogger(__name__)

_SIDE = 512  # Of blocks that are in memory, and of tiles of the file.
_MAX_STEM_BYTES = 200
# From a window and the pixels of its dates to bands [h, w, n], and where they are known, bool[h, w].
Measure = Callable[[Window, list[np.ndarray]], tuple[np.ndarray, np.ndarray]]


def add(settings: Settings) -> list[str]:
  """Writes the scenes with more bands; returns what the bands of each are, in lines of text.

  Raises ValueError or OSError that names the file or the flag, and writes nothing in that case.
  """
  output = pathlib.Path(settings.output)
  files.require_utf8(output, f"--output={output}")
  scenes = [
    path for path in listing.scene_files(settings.input)
    if not settings.dem or not path.samefile(settings.dem)
  ]
  if not scenes:
    raise ValueError(f"--input holds only --dem={settings.dem}: name the scene.")
  targets = {
    path: f"{files.fitting_name(path.stem, _MAX_STEM_BYTES, path.stem)}.tif" for path in scenes
  }
  listing.check_own_files(((path, output / name) for path, name in targets.items()), "file")
  for text in listing.left_out(settings.input):
    _LOG.warning("%s", text)
  sources, lines = companions.find(scenes, settings), []
  progress = Progress("bands", sum(_block_count(source.path) for source in sources), unit="blocks")
  with folders.atomic_folder(output) as folder:
    for source in sources:
      name = targets[source.path]
      notes = _add_to_scene(source, folder / name, settings, progress)
      lines += _described(output / name, notes)
  progress.close()
  return lines


def _block_count(path: pathlib.Path) -> int:
  with open_scene_raster(path) as raster:
    return math.prod(math.ceil(length / _SIDE) for length in raster.shape)


def _described(path: pathlib.Path, notes: list[BandNotes]) -> list[str]:
  """Returns the lines that say what a file holds, and how to train on it."""
  added = ",".join(map(str, band_notes.added(notes)))
  bands = [f"  {n}  {one.text or one.colour}" for n, one in enumerate(notes, 1)]
  return [
    f"{path}: {len(notes)} bands", *bands,
    f"  --config.data.channels={len(notes)} --config.model.evidence_bands={added}",
  ]


def _add_to_scene(
  source: SceneFiles, target: pathlib.Path, settings: Settings, progress: Progress
) -> list[BandNotes]:
  """Writes one scene; returns what its bands hold."""
  path, wanted = source.path, quantities.asked_for(settings)
  channels = len(settings.bands) or band_count(path)
  with contextlib.ExitStack() as stack:
    scene = stack.enter_context(
      source.open(channels, bands=settings.bands, max_shift=settings.max_shift))
    for text in pair.warnings(scene, settings.max_shift):
      _LOG.warning("%s: %s", path, text)
    names, full_scale = _names(scene, settings), _full_scale(scene, settings)
    indices.check_names(path, settings.indices, names)
    layers, of_terrain = None, [one.name for one in wanted if one.name in LAYERS]
    if of_terrain:
      dem = stack.enter_context(open_dem(pathlib.Path(settings.dem)))
      layers = TerrainLayers(dem, path, scene.grid, of_terrain, settings.relief_radius)

    def measure(window: Window, dates: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
      """Returns the bands to add to a window, [h, w, bands], and where they are known."""
      values = indices.of_dates(dates, names, settings.indices)
      known = np.ones(dates[0].shape[:2], bool)
      if layers:
        terrain, known = layers.read(window)
        values |= zip(of_terrain, np.moveaxis(terrain, -1, 0), strict=True)
      encoded = [one.encode(values[one.name], scene.dtype, full_scale) for one in wanted]
      return np.stack(encoded, axis=-1), known

    notes = [*scene.notes, *(one.notes(full_scale) for one in wanted)]
    _write(target, scene, notes, _blocks(scene, channels, measure, progress))
  return notes


def _names(scene: Scene | Pair, settings: Settings) -> list[str]:
  """Returns the names of a scene's bands, as --names or else the file gives them."""
  count = len(scene.notes)
  if settings.names:
    if len(settings.names) != count:
      raise ImageError(
        f"{scene.path} has {count} bands, but --names={','.join(settings.names)} names "
        f"{len(settings.names)}: name each, in order."
      )
    return list(settings.names)
  described = [{one.text.strip().lower(), one.colour} & set(NAMES) for one in scene.notes]
  names = [min(found, default="") for found in described]
  unclear = [name for name in names if name and names.count(name) > 1]
  if unclear or any(len(found) > 1 for found in described):
    raise ImageError(f"{scene.path} does not say clearly which band is which: use --names.")
  return names


def _full_scale(scene: Scene | Pair, settings: Settings) -> float:
  """Returns the value that stands for the end of a band's range."""
  is_integer = np.issubdtype(scene.dtype, np.integer)
  if is_integer and scene.dtype.itemsize > 2 and not settings.max_value:
    raise ImageError(
      f"{scene.path} holds {scene.dtype}, of which images fill only a part of the range: give "
      "--max_value, the largest valid value, as data.max_value in training."
    )
  if is_integer and settings.max_value > np.iinfo(scene.dtype).max:
    raise ImageError(
      f"{scene.path} holds {scene.dtype}, which --max_value={settings.max_value:g} does not fit into."
    )
  return scaling.full_scale(scene.dtype, DataConfig(max_value=settings.max_value))


def _blocks(
  scene: Scene | Pair, channels: int, measure: Measure, progress: Progress
) -> Iterator[tuple[Window, np.ndarray, np.ndarray]]:
  """Yields windows, their pixels [h, w, bands], and where all bands have data, bool[h, w]."""
  lost = total = 0
  grid = scene.grid
  rows, cols = (range(0, size, _SIDE) for size in (grid.height, grid.width))
  for row in rows:
    for col in cols:
      window = Window(col, row, min(_SIDE, grid.width - col), min(_SIDE, grid.height - row))
      pixels, valid = scene.read(window)
      dates = np.split(pixels, pixels.shape[-1] // channels, axis=-1)
      added, known = measure(window, dates)
      total += int(valid.sum())
      lost += int((valid & ~known).sum())
      valid = valid & known
      pixels = np.concatenate([dates[0], added], axis=-1)
      pixels[~valid] = 0
      yield window, pixels, valid
      progress.advance(1)
  if total == lost:
    dem = ": the DEM has no heights below it. Give one that covers it" if lost else ""
    raise ImageError(f"{scene.path} has no pixel with data in all bands{dem}.")
  if lost:
    _LOG.warning(
      "%s: the DEM has no data below %.3g %% of the pixels with data. They are nodata now. Give a DEM "
      "that reaches beyond the scene.", scene.path, 100 * lost / total,
    )


def _write(
  target: pathlib.Path, scene: Scene | Pair, notes: list[BandNotes],
  blocks: Iterator[tuple[Window, np.ndarray, np.ndarray]],
) -> None:
  """Writes a tiled GeoTIFF with an internal mask; raises OSError naming it if that fails."""
  grid, is_float = scene.grid, np.issubdtype(scene.dtype, np.floating)
  profile = {
    "driver": "GTiff", "height": grid.height, "width": grid.width, "count": len(notes),
    "dtype": scene.dtype.name, "tiled": True, "blockxsize": _SIDE, "blockysize": _SIDE,
    "compress": "deflate", "predictor": 3 if is_float else 2, "bigtiff": "IF_SAFER",
    "photometric": "MINISBLACK",  # Otherwise GDAL takes a fourth band for alpha.
  }
  if grid.georeferenced:
    profile |= {"crs": grid.crs, "transform": grid.transform}
  try:
    with rasterio.Env(**SCENE_OPTIONS, GDAL_TIFF_INTERNAL_MASK=True):
      with rasterio.open(target, "w", **profile) as raster:
        raster.descriptions = [one.text or None for one in notes]
        band_notes.write_added(raster, notes)
        raster.colorinterp = [
          ColorInterp[one.colour if one.colour in NAMES else "undefined"] for one in notes]
        for window, pixels, valid in blocks:
          raster.write(np.moveaxis(pixels, -1, 0), window=window)
          raster.write_mask(valid, window=window)
      with rasterio.open(target, driver="GTiff") as raster:  # GDAL may not tell of a full disk.
        for _, window in raster.block_windows(1):
          raster.read(window=window)
          raster.read_masks(1, window=window)
  except (RasterioError, CPLE_BaseError) as error:
    raise files.write_error(target, error) from error

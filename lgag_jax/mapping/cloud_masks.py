"""Makes cloud masks of scenes that have none (--mode=clouds), with the networks of ukis-csmask.

Wieland, M., Fichtner, F. and Martinis, S. (2022), UKIS-CSMASK, ISPRS Archives XLIII-B3-2022, 217-222.
The package is Apache-2.0 and holds its networks. They were trained on Sentinel-2 and Landsat and see
pixels of about 30 m, so that a scene of finer ones is averaged first. Scenes are read in blocks.
"""

import contextlib
import hashlib
import importlib
import logging
import math
import pathlib
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

from lgag_jax.geo import scene_files
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scene import Scene, open_scene
from lgag_jax.imagery import listing, opening
from lgag_jax.imagery.opening import ImageError
from lgag_jax.mapping import rasters
from lgag_jax.mapping.rasters import NO_DATA
from lgag_jax.options.clouds import BANDS, Settings
from lgag_jax.runtime import lock
from lgag_jax.runtime.progress import Progress

_LOG = logging.getLogger(__name__)

_RESOLUTION = 30.0  # Metres per pixel that the networks see.
# Of those pixels: a block, and what is read around it. Multiples of the step between the package's own
# tiles, so that a block has the tiles of the whole scene.
_BLOCK, _MARGIN = 1020, 204
_SAMPLE = 512  # Pixels on the longer side of the picture whose values are checked.
_BRIGHT = 0.99  # The quantile of the values that must be a reflectance from ...
_REFLECTANCES = (0.02, 2.0)  # ... to.
Finder = Callable[[np.ndarray], np.ndarray]


def write(settings: Settings) -> list[pathlib.Path]:
  """Writes the cloud mask of each scene into the output; returns the masks.

  A mask has the scene's name. 1 is a cloud or its shadow, with some pixels around, 0 is clear, and 255
  is nodata. One that the same settings made of the same file is not made again. Raises ImportError
  without ukis-csmask, ValueError for a file of another origin or an output in use, ImageError naming a
  scene.
  """
  output, find = pathlib.Path(settings.output), finder(settings)
  scenes = listing.scene_files(settings.input)
  for text in listing.left_out(settings.input):
    _LOG.warning("%s", text)
  listing.check_own_files(((path, output / f"{listing.stem_key(path)}.tif") for path in scenes),
                          "cloud mask")
  with contextlib.closing(lock.acquire(output, "output")):
    return [_ensure_mask(path, output / f"{path.stem}.tif", settings, find) for path in scenes]


def _ensure_mask(
  path: pathlib.Path, mask: pathlib.Path, settings: Settings, find: Finder
) -> pathlib.Path:
  """Writes the mask of a scene unless it is there already; returns it."""
  with open_scene(path, len(settings.bands), bands=settings.bands) as scene:
    text = _maker(settings, scene_files.key(path))
    if _is_whole(mask, text):
      _LOG.info("%s is there already.", mask)
    else:
      _write_mask(scene, mask.parent / path.stem, text, settings, find)
  return mask


def finder(settings: Settings) -> Finder:
  """Returns what finds clouds in reflectances f32[h, w, bands], bool[h, w]; ImportError without it."""
  try:
    package = importlib.import_module("ukis_csmask.mask")  # An extra: not all have it.
  except ImportError as error:
    raise ImportError(
      "--mode=clouds needs ukis-csmask: pip install 'lgag_jax[clouds]', in a checkout '.[clouds]'."
    ) from error
  names = list(BANDS[: len(settings.bands)])

  def find(reflectances: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
      warnings.filterwarnings("ignore", message="Your input image is smaller")
      found = package.CSmask(
        reflectances, names, product_level=settings.level, providers=["CPUExecutionProvider"]
      )
    return found.valid[..., 0] == 0

  return find


def _write_mask(
  scene: Scene, path: pathlib.Path, text: str, settings: Settings, find: Finder
) -> None:
  """Writes the mask of a scene to a path without its suffix; logs how much of the scene it hides."""
  grid, factor = _reduced(scene)
  _check_values(scene, settings)
  counts = np.zeros(256, np.int64)

  def rows() -> Iterator[tuple[int, np.ndarray]]:
    shown = Progress(f"Clouds of {scene.path.name}", grid.height, unit="rows")
    for top in range(0, grid.height, _BLOCK):
      mask = np.zeros((min(_BLOCK, grid.height - top), grid.width), np.uint8)
      for left in range(0, grid.width, _BLOCK):
        part = mask[:, left : left + _BLOCK]
        part[:] = _block(scene, grid, factor, top, left, part.shape, settings, find)
      counts[:] += np.bincount(mask.ravel(), minlength=256)
      yield top, mask[..., None]
      shown.advance(len(mask))

  with rasters.write_and_open(
    path, grid, 1, np.dtype(np.uint8), rows(), ("clouds",), averaged=False, description=text
  ):
    pass
  _LOG.info(
    "%s.tif: %.1f %% of the ground with data is cloud or shadow.", path,
    100 * counts[1] / max(counts[:NO_DATA].sum(), 1),
  )


def _block(
  scene: Scene, grid: Grid, factor: int, top: int, left: int, shape: tuple[int, int],
  settings: Settings, find: Finder,
) -> np.ndarray:
  """Returns a block of the mask on `grid`, u8[shape]; reads a margin around it inside the scene."""
  first_row, first_col = max(0, top - _MARGIN), max(0, left - _MARGIN)
  height = min(grid.height, top + shape[0] + _MARGIN) - first_row
  width = min(grid.width, left + shape[1] + _MARGIN) - first_col
  pixels, valid = _read_reduced(scene, factor, (first_row, first_col), (height, width))
  row, col = top - first_row, left - first_col
  inside = np.s_[row : row + shape[0], col : col + shape[1]]
  if not valid[inside].any():
    return np.full(shape, NO_DATA, np.uint8)
  found = find(_reflectances(pixels, settings))[inside]
  return np.where(valid[inside], found.astype(np.uint8), np.uint8(NO_DATA))


def _read_reduced(
  scene: Scene, factor: int, first: tuple[int, int], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns pixels [h, w, bands] of a mask's grid from row and column `first` on, and bool[h, w], which
  are valid. A pixel that the scene's border cuts is the mean of what lies in the scene.
  """
  rows, cols = (
    _spans(start, count, factor, size) for start, count, size in zip(
      first, shape, (scene.grid.height, scene.grid.width), strict=True)
  )
  parts = [
    [scene.read(Window(left, top, width, height), (row_count, col_count))
     for left, width, col_count in cols] for top, height, row_count in rows
  ]
  pixels, valid = (
    np.concatenate([np.concatenate([part[i] for part in row], axis=1) for row in parts]) for i in (0, 1)
  )
  return pixels, valid


def _spans(start: int, count: int, factor: int, size: int) -> list[tuple[int, int, int]]:
  """Returns first pixel and length in the scene, and number of pixels of the mask: whole, then cut."""
  whole = min(count, size // factor - start)
  spans = [(start * factor, whole * factor, whole)] if whole else []
  end = (start + whole) * factor
  return [*spans, (end, size - end, 1)] if whole < count else spans


def _reflectances(pixels: np.ndarray, settings: Settings) -> np.ndarray:
  return (pixels.astype(np.float32) + settings.add_offset) / np.float32(settings.quantification)


def _reduced(scene: Scene) -> tuple[Grid, int]:
  """Returns the grid of a scene's mask, and how many of the scene's pixels lie along one of it."""
  gsd = scene.grid.gsd()
  if gsd is None or not scene.grid.placed:
    raise ImageError(
      f"{scene.path} has no place on the Earth, so its ground resolution is unknown: give it its CRS "
      "and its transform, such as gdal_edit.py -a_srs EPSG:32633 -a_ullr."
    )
  factor = max(1, round(_RESOLUTION / gsd))
  height, width = (math.ceil(length / factor) for length in (scene.grid.height, scene.grid.width))
  return Grid(height, width, scene.grid.crs, scene.grid.transform @ Affine.scale(factor)), factor


def _check_values(scene: Scene, settings: Settings) -> None:
  """Raises ImageError if a scene's values are no reflectances by the settings."""
  height, width = scene.grid.height, scene.grid.width
  step = max(1.0, max(height, width) / _SAMPLE)
  shape = max(1, int(height / step)), max(1, int(width / step))
  pixels, valid = scene.read(Window(0, 0, width, height), shape)
  if not valid.any():
    raise ImageError(f"{scene.path} has no data: every pixel is nodata, so it can have no clouds.")
  bright = float(np.quantile(_reflectances(pixels[valid], settings), _BRIGHT))
  if not _REFLECTANCES[0] <= bright <= _REFLECTANCES[1]:
    raise ImageError(
      f"{scene.path} has reflectances up to {bright:.3g} with --quantification="
      f"{settings.quantification:g} and --add_offset={settings.add_offset:g}, but they lie from 0 to "
      f"about 1. Set both as the product's metadata say; for reflectances of 0 to 1 --quantification=1."
    )


def _maker(settings: Settings, key: str) -> str:
  """Returns what a mask depends on, of the scene with a key, as the description of its file."""
  bands = ",".join(map(str, settings.bands))
  return (
    f"Clouds by ukis-csmask, {settings.level}, bands {bands}, quantification "
    f"{settings.quantification:g}, offset {settings.add_offset:g}, scene "
    f"{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()[:16]}"
  )


def _is_whole(mask: pathlib.Path, text: str) -> bool:
  """Returns whether a mask is there already; raises ValueError for another file in its place."""
  if not mask.exists():
    return False
  try:
    with rasters.open_map_raster(mask, 1) as raster, opening.error_context(mask):
      found = raster.dataset.tags().get("TIFFTAG_IMAGEDESCRIPTION", "")
  except (ImageError, rasterio.RasterioIOError):
    found = ""
  if found != text:
    raise ValueError(
      f"{mask} would be replaced, but it was not made from this scene with these settings: move it, or "
      "use another --output."
    )
  return True

"""Makes a training set from scenes and their labels: --mode=tile.

    python -m lgag_jax.main --mode=tile --input=scenes --labels=inventory.gpkg --output=tiles

Cuts scenes (a file, a folder or a glob) into tiles that configs/image_folder.py trains on. The labels
are polygons, points, a raster mask, or a table of tile labels. Writes one folder of images per class,
`manifest.csv` with the split of each tile, `masks/` for evaluation if the labels have outlines, and
`tiles.gpkg` with the labels and splits of all tiles. Tiles without a certain label are skipped (see
`labels`). Blocks of neighbouring tiles go to training or validation as a whole, with a buffer between
the two. A tile may later be moved to the folder of another class: the split belongs to the file name.
The output folder appears when it is complete. Memory follows the size of a tile and the number of
shapes in the inventory.
"""

import logging
import pathlib

import numpy as np
from affine import Affine
from rasterio.enums import ColorInterp

from lgag_jax.geo import companions, pair
from lgag_jax.geo.companions import SceneFiles
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.label_reach import Reach
from lgag_jax.geo.pair import Pair
from lgag_jax.geo.scene import Scene, band_count, open_scene
from lgag_jax.geo.vrt import open_scene_raster
from lgag_jax.imagery import band_notes, listing, opening, reading
from lgag_jax.imagery.band_notes import BandNotes
from lgag_jax.options.tiling import NO_DATA, UNKNOWN_LABEL, Settings
from lgag_jax.runtime import files, folders
from lgag_jax.runtime.progress import Progress
from lgag_jax.tiling import labels, output, scene_comparison, tile_grid, tile_splits
from lgag_jax.tiling.output import Row
from lgag_jax.tiling.tile_grid import SceneTile

_LOG = logging.getLogger(__name__)

_MAX_STEM_BYTES = 200  # File systems take names of 255; the tile's number and suffix need the rest.
_MAX_TILES = 1 << 20
_DATA_VALUES, _DATA_SHARE = 64, 0.1  # Alpha is mostly 0 and 255, with few other values at the edges.


def cut(settings: Settings) -> tuple[list[Row], str]:
  """Writes a training set; returns a row per tile, skipped ones too, and the command to train on it.

  Raises ValueError or OSError that names the file or the flag, and writes nothing in that case.
  """
  files.require_utf8(pathlib.Path(settings.output), f"--output={settings.output}")
  sources = find_scenes(settings)
  scenes = [source.path for source in sources]
  labels.check_scenes(scenes, settings)
  channels = channels_of(scenes[0], settings)
  if warning := alpha_warning(scenes[0], settings):
    _LOG.warning("%s", warning)
  grids, notes = _read_headers(sources, channels, settings)
  total = sum(np.prod(tile_grid.counts(grid, settings)) for grid in grids.values())
  if total > _MAX_TILES:
    raise ValueError(f"{settings.input} has {total} tiles, more than {_MAX_TILES}: raise --tile_size.")
  split_of = tile_splits.split_of(grids, settings)
  reach = Reach(grids, layer=settings.layer)
  rows, progress = [], Progress("tiles", int(total), unit="tiles")
  with folders.atomic_folder(pathlib.Path(settings.output)) as folder:
    for source in sources:
      path, grid = source.path, grids[source.path]
      with (
        source.open(channels, bands=settings.bands, max_shift=settings.max_shift) as scene,
        labels.open_labels(path, grids, settings, reach) as label,
      ):
        for text in pair.warnings(scene, settings.max_shift):
          _LOG.warning("%s: %s", path, text)
        for tile in tile_grid.tiles(grid, settings):
          rows.append(_cut_tile(scene, tile, label, split_of(path.name, tile), folder, settings))
          progress.advance(1)
    progress.close()
    if not any(row.image for row in rows):
      for line in output.summary(rows, settings).splitlines():
        _LOG.warning("%s", line)
      raise ValueError("No tile can be used, so nothing was written. The log says why, by label.")
    output.write_manifest(rows, folder / "manifest.csv")
    output.write_footprints(rows, folder / "tiles.gpkg")
  return rows, output.command(settings, channels, band_notes.added(notes))


def _read_headers(
  sources: list[SceneFiles], channels: int, settings: Settings
) -> tuple[dict[pathlib.Path, Grid], list[BandNotes]]:
  """Returns the grids of the scenes, and what their files say of the bands.

  Raises ValueError if the scenes, or the labels, do not fit together.
  """
  grids, figures, notes = {}, {}, []
  for source in sources:
    path = source.path
    with source.open(channels, bands=settings.bands) as scene:
      grids[path], figures[path] = scene.grid, scene_comparison.figures(scene)
      notes = notes or scene.notes
      band_notes.check(path, scene.notes, band_notes.texts(notes), f"{sources[0].path} has")
    if cover := source.cover(grids[path]):
      _LOG.info("%s: %s.", path, cover)
  labels.check_places(grids, settings)
  for text in scene_comparison.compare(figures):
    _LOG.warning("%s", text)
  return grids, notes


def find_scenes(settings: Settings) -> list[SceneFiles]:
  """Lists the scenes of --input, with what is read with them; raises ValueError or OSError."""
  paths = _scene_paths(settings)
  for text in listing.left_out(settings.input):
    _LOG.warning("%s", text)
  return companions.find(paths, settings)


def _scene_paths(settings: Settings) -> list[pathlib.Path]:
  """Lists the scenes of --input (a file, a folder or a glob), without the file of labels."""
  label_path = pathlib.Path(settings.labels).absolute()
  scenes = [path for path in listing.scene_files(settings.input) if path.absolute() != label_path]
  if not scenes:
    raise FileNotFoundError(f"--input={settings.input} has no scenes, only the labels.")
  stems: dict[str, pathlib.Path] = {}
  for path in scenes:
    if (other := stems.setdefault(listing.stem_key(path).casefold(), path)) is not path:
      raise ValueError(f"{path} and {other} would give tiles of the same names: rename one of them.")
  return scenes


def channels_of(path: pathlib.Path, settings: Settings) -> int:
  """Returns the number of bands that tiles of a scene have."""
  return len(settings.bands) or band_count(path)


def alpha_warning(path: pathlib.Path, settings: Settings) -> str:
  """Returns what to do if a scene's last band is marked as alpha, but holds values as data do."""
  with open_scene_raster(path) as raster, opening.error_context(path):
    band = raster.count
    if settings.bands or raster.colorinterp[-1] != ColorInterp.alpha:
      return ""
  with open_scene(path, 1, bands=(band,)) as scene:
    windows = scene_comparison.sample_windows(scene.grid)
    values = np.concatenate([scene.read(window)[0].ravel() for window in windows])
  between = values[(values > 0) & (values < values.max())]
  if len(np.unique(between)) < _DATA_VALUES or len(between) < _DATA_SHARE * len(values):
    return ""
  names = ",".join(map(str, range(1, band + 1)))
  return (
    f"{path}: its band {band} is marked as alpha, so lgag takes it for transparency and leaves it out. "
    f"If it is data, such as near infrared, name all bands: --bands={names}"
  )


def _cut_tile(
  scene: Scene | Pair, tile: SceneTile, labeller: labels.Labeller, split: str,
  folder: pathlib.Path, settings: Settings,
) -> Row:
  pixels, valid = scene.read(tile.window)
  label, mask = NO_DATA, None
  if valid.any() and 1.0 - valid.mean() <= settings.max_nodata:
    label, mask = labeller(tile, valid)
  grid, corner = scene.grid, (tile.window.col_off, tile.window.row_off)
  transform = grid.transform @ Affine.translation(*corner)
  if not grid.georeferenced:
    transform = None
  stem = files.fitting_name(scene.path.stem, _MAX_STEM_BYTES, scene.path.stem)
  name = f"{stem}_r{tile.row:03d}_c{tile.col:03d}"
  image = mask_name = ""
  fraction = None
  if label not in (UNKNOWN_LABEL, NO_DATA) and split:
    after, before = np.split(pixels, 2, axis=-1) if isinstance(scene, Pair) else (pixels, None)
    image = output.write_raster(
      folder, f"{label}/{name}", after, transform, grid.crs, scene.notes)
    if before is not None:
      output.write_raster(folder, f"before/{name}", before, transform, grid.crs)
    if mask is not None and _is_of_use(mask, label, split, settings):
      mask_name = output.write_raster(folder, f"masks/{name}", mask[..., None], transform, grid.crs)
      known = mask != reading.UNKNOWN
      if known.sum() >= valid.sum() / 2:  # A review may only know the landslides.
        fraction = float(np.mean(mask[known] != 0))
  return Row(
    scene.path.name, tile.row, tile.col, label, split, image, mask_name,
    tile_grid.corners(grid, tile), grid.crs, fraction,
  )


def _is_of_use(mask: np.ndarray, label: str, split: str, settings: Settings) -> bool:
  """Returns whether a mask says more than its label: a negative is background without one.

  A tile with a landslide may have a mask that knows only what is none. Nothing is judged by it.
  """
  if label == settings.background:
    return False
  return split == "train" or bool(np.any((mask > 0) & (mask != reading.UNKNOWN)))

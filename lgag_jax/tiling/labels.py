"""Labels the tiles of a scene from a reference map, a review, drawings, or labels of tiles.

Only certain labels are used. A tile with a small part of a landslide, with unknown pixels or near a
landslide is a good example neither of landslides nor of other terrain.
"""

import contextlib
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from lgag_jax.geo import layer_formats, shared_labels
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.label_reach import Reach
from lgag_jax.geo.reference import Reference, check_format, open_reference
from lgag_jax.imagery import reading
from lgag_jax.options.tiling import UNKNOWN_LABEL, Settings
from lgag_jax.tiling import drawn_labels, review_files, tile_labels
from lgag_jax.tiling.ground_labels import GroundLabels
from lgag_jax.tiling.review_labels import open_review
from lgag_jax.tiling.tile_grid import SceneTile

_LOG = logging.getLogger(__name__)


# Maps a tile and bool[h, w], where it has data, to its label and its mask u8[h, w] or None.
Labeller = Callable[[SceneTile, np.ndarray], tuple[str, np.ndarray | None]]


@contextlib.contextmanager
def open_labels(
  scene: pathlib.Path, grids: Mapping[pathlib.Path, Grid], settings: Settings,
  reach: Reach | None = None,
) -> Iterator[Labeller]:
  """Opens the labels of one of the scenes; raises ValueError that names the file and the problem.

  So does `reach` if nothing of an inventory or a mask lies in any of its scenes.
  """
  grid = grids[scene]
  with _open_labels(scene, grids, settings, reach) as label:
    if not settings.review:
      yield label
      return
    decisions, buffer = open_decisions(scene, grid, settings), _buffer_pixels(scene, grid, settings)
    yield label if decisions is None else lambda tile, valid: decisions.label_over(
      *label(tile, valid), tile.window, valid, buffer
    )


def open_decisions(scene: pathlib.Path, grid: Grid, settings: Settings) -> GroundLabels | None:
  """Opens what --review says of a scene; None if it says nothing.

  Raises ValueError that names the file and the remedy.
  """
  path = pathlib.Path(settings.review)
  if review_files.find(path, "review"):
    return open_review(path, scene, grid, settings, "review")
  return drawn_labels.open_decisions(path, scene, grid, settings)


@contextlib.contextmanager
def _open_labels(
  scene: pathlib.Path, grids: Mapping[pathlib.Path, Grid], settings: Settings, reach: Reach | None
) -> Iterator[Labeller]:
  path, grid = pathlib.Path(settings.labels), grids[scene]
  if tile_labels.are_of_tiles(path, settings):
    table = tile_labels.read(path, scene, grid, settings, grids)
    yield lambda tile, _: (table.get((tile.row, tile.col), UNKNOWN_LABEL), None)
    return
  if review_files.find(path):
    decisions, buffer = open_review(path, scene, grid, settings), _buffer_pixels(scene, grid, settings)
    yield lambda tile, valid: (
      decisions.label(tile.window, valid, buffer) if decisions else (UNKNOWN_LABEL, None)
    )
    return
  if drawn_labels.are_drawn(path, settings):
    drawn = drawn_labels.open_drawn(path, scene, grid, settings)
    buffer = _buffer_pixels(scene, grid, settings)
    yield lambda tile, valid: drawn.label(tile.window, valid, buffer)
    return
  with open_reference(
    path, grid, settings.classes, layer=settings.layer, field=settings.field,
    ignore=settings.mask_ignore, scene=scene, background=settings.background,
  ) as reference:
    if reach:
      reach.note(path, scene, inside=reference.inside)
    if reference.kind == "points" and not settings.unknown_buffer:
      _LOG.warning(
        "%s: landslides are larger than their points, and may reach into tiles that count as free of "
        "landslides. Set --unknown_buffer to the length of a landslide in metres.", path,
      )
    yield _reference_labeller(reference, _buffer_pixels(scene, grid, settings), settings)


def _buffer_pixels(scene: pathlib.Path, grid: Grid, settings: Settings) -> float:
  if not settings.unknown_buffer:
    return 0.0
  gsd = grid.gsd()
  if gsd is None:
    raise ValueError(
      f"--unknown_buffer={settings.unknown_buffer:g} is in metres, but the ground resolution of "
      f"{scene} is unknown: add a coordinate reference system to it (gdal_edit -a_srs), or set 0."
    )
  return settings.unknown_buffer / gsd


def _reference_labeller(reference: Reference, buffer: float, settings: Settings) -> Labeller:
  points = reference.kind == "points"

  def label(tile: SceneTile, valid: np.ndarray) -> tuple[str, np.ndarray | None]:
    mask = np.where(valid, reference.read(tile.window), np.uint8(reading.UNKNOWN))
    pixels = {name: np.count_nonzero(mask == number) for number, name in enumerate(settings.classes, 1)}
    classes = [name for name, count in pixels.items() if count]
    minimum = 1 if points else max(settings.min_pixels, settings.min_fraction * mask.size)
    complete = not np.any((mask == reading.UNKNOWN) & valid)
    name = UNKNOWN_LABEL
    if classes:  # A tile has one class: with pixels of several classes its label is uncertain.
      if len(classes) == 1 and pixels[classes[0]] >= minimum:
        name = classes[0]
    elif complete and not reference.near(tile.window, buffer):
      name = settings.background
    return name, None if points else mask

  return label


def are_drawn(settings: Settings) -> bool:
  """Returns whether masks hold what a person has decided of pixels, and not a whole inventory."""
  path = pathlib.Path(settings.labels)
  if tile_labels.are_of_tiles(path, settings):
    return bool(settings.review)
  return bool(review_files.find(path)) or drawn_labels.are_drawn(path, settings)


def check_places(grids: dict[pathlib.Path, Grid], settings: Settings) -> None:
  """Raises ValueError if one file labels several scenes, and cannot tell their ground apart."""
  path = pathlib.Path(settings.labels)
  if not (tile_labels.are_of_tiles(path, settings) or review_files.find(path)):
    shared_labels.check(path, grids, layer=settings.layer)
  if settings.negative_labels:
    shared_labels.check(pathlib.Path(settings.negative_labels), grids)
  if settings.review:
    check_decisions(pathlib.Path(settings.review), grids)


def check_decisions(review: pathlib.Path, grids: Mapping[pathlib.Path, Grid]) -> None:
  """Raises ValueError if one layer of --review decides on several scenes as `check_places` says."""
  if not review_files.find(review, "review"):
    shared_labels.check(review, grids)


def check_scenes(scenes: list[pathlib.Path], settings: Settings) -> None:
  """Raises ValueError if labels have another format, or are of tiles of none of the scenes."""
  path = pathlib.Path(settings.labels)
  review_files.check_scenes(scenes, settings)
  if review_files.find(path):
    layer_formats.refuse_layer_flags(path, "a review", layer=settings.layer, field=settings.field)
  if path.is_dir():
    return
  if path.suffix.lower() != ".csv":
    check_format(path)
  if not path.is_file():
    raise FileNotFoundError(f"--labels={path}: no such file.")
  of_tiles = tile_labels.are_of_tiles(path, settings)
  if of_tiles:
    layer_formats.refuse_layer_flags(path, "of tiles", field=settings.field)
    if path.suffix.lower() == ".csv":
      layer_formats.refuse_layer_flags(path, "a table", layer=settings.layer)
    tile_labels.check_scenes(scenes, settings)
  if settings.negative_labels:
    drawn_labels.check_negatives(settings, of_tiles=of_tiles)

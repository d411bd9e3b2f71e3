"""Finds the few tiles that somebody has labelled by hand, all of which training and validation need."""

import pathlib

import numpy as np

from lgag_jax.geo.grid import Grid
from lgag_jax.options.tiling import UNKNOWN_LABEL, Settings
from lgag_jax.tiling import dealing, drawn_labels, labels, review_files, tile_grid, tile_labels


def few_answers(grids: dict[pathlib.Path, Grid], settings: Settings) -> dict[tuple, str] | None:
  """Returns the certain labels given by hand by (scene, row, col); None for other labels.

  They come from the table or the outlines of --mode=label, a review or drawings. Also None if there are
  many, or if a flag says how to split them.
  """
  if settings.block_size or settings.block_buffer > 0 or not _are_given_by_hand(settings):
    return None
  found, valid = {}, np.ones((settings.tile_size, settings.tile_size), bool)
  for scene, grid in grids.items():
    with labels.open_labels(scene, grids, settings) as label:
      for tile in tile_grid.tiles(grid, settings):
        text = label(tile, valid)[0]
        if text != UNKNOWN_LABEL:
          found[scene.name, tile.row, tile.col] = text
  return found if 0 < len(found) < dealing.FEW else None


def _are_given_by_hand(settings: Settings) -> bool:
  path = pathlib.Path(settings.labels)
  if tile_labels.are_of_tiles(path, settings):
    return tile_labels.are_answers(path, settings)
  return bool(review_files.find(path)) or drawn_labels.are_drawn(path, settings)

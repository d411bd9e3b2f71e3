"""Writes the outlines of all tiles with an empty field `label`, to fill in with a GIS."""

import collections
import logging
import pathlib

import numpy as np

from lgag_jax.geo import sqlite_files, tile_outlines
from lgag_jax.labelling.answers import Answers
from lgag_jax.labelling.tile_index import TileIndex
from lgag_jax.runtime import files
from lgag_jax.tiling import output, tile_grid

_LOG = logging.getLogger(__name__)

NAME = "tiles.gpkg"


def write(index: TileIndex, answers: Answers, folder: pathlib.Path) -> pathlib.Path | None:
  """Writes the layer with the answers so far, a layer per CRS; None if no scene is georeferenced.

  A file in which somebody has filled in other labels or fields stays as it is, and the log says so.
  Raises OSError if the file is to be replaced, but is open in another program.
  """
  path, latest = folder / NAME, answers.latest
  files.require_plain(path)
  if path.exists() and _is_filled(path, latest):
    _LOG.warning(
      "%s holds labels that %s lacks, or other fields or tables: it is kept as it is.", path,
      answers.path,
    )
    return path
  groups: dict[str, list[tuple]] = collections.defaultdict(list)
  for number, (scene, tile) in enumerate(index.tiles):
    grid, key = index.grids[scene], index.key(number)
    corners = tile_grid.corners(grid, tile)
    if corners is not None:
      label = latest[key].label if key in latest else ""
      crs = grid.crs.to_wkt() if grid.crs else ""
      groups[crs].append((corners, label, *key, index.tile_size))
  if not groups:
    return None
  with files.atomic_path(path) as partial:
    for number, (crs, rows) in enumerate(groups.items(), 1):
      corners, *columns = (list(column) for column in zip(*rows, strict=True))
      names = (*tile_outlines.FIELDS, tile_outlines.SIZE_FIELD)
      layer = "tiles" if number == 1 else f"tiles_{number}"
      named: dict[str, list] = dict(zip(names, columns, strict=True))
      output.write_outlines(partial, layer, crs, np.array(corners), named)
    sqlite_files.make_whole(path)  # Nothing of it may stay beside the new one.
  return path


def _is_filled(path: pathlib.Path, latest: dict) -> bool:
  """Returns whether a file holds a label that is not among the answers, or what somebody added."""
  layers, own = tile_outlines.tile_layers(path), {*tile_outlines.FIELDS, tile_outlines.SIZE_FIELD}
  for layer in layers:
    for _, cells, _ in tile_outlines.read(path, layer)[0]:
      if any(text for name, text in cells.items() if name not in own):
        return True
      key = cells["scene"], int(cells["row"] or -1), int(cells["col"] or -1)
      if cells["label"] and (key not in latest or latest[key].label != cells["label"]):
        return True
  # Else something that is not lgag's to replace, such as a table of notes or of styles.
  return not layers or sqlite_files.tables(path) != set(layers)

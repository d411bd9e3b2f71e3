"""Deals the tiles of scenes to training and validation, so that no ground is in both."""

import functools
import logging
import pathlib
from collections.abc import Callable

import numpy as np
import shapely

from lgag_jax.config import DataConfig
from lgag_jax.geo.grid import Grid
from lgag_jax.inputs import blocks
from lgag_jax.options.tiling import Settings
from lgag_jax.tiling import dealing, few_labels, tile_grid
from lgag_jax.tiling.tile_grid import SceneTile

_LOG = logging.getLogger(__name__)

SplitOf = Callable[[str, SceneTile], str]
_BLOCK_SIDES = (4, 3, 2, 1)  # In tiles. The larger the block, the fewer tiles the buffer costs.
_MIN_BLOCKS = 8
_SLIVER = 1e-3  # Of a tile. Tiles that touch share less.
_EDGE = 4  # Points along each side of a tile, which is bent in longitude and latitude.


def split_of(grids: dict[pathlib.Path, Grid], settings: Settings) -> SplitOf:
  """Returns a function from a scene's name and a tile to the tile's split, "" for a skipped tile."""
  return _without_shared_ground(_by_blocks(grids, settings), grids, settings)


def _by_blocks(grids: dict[pathlib.Path, Grid], settings: Settings) -> SplitOf:
  if settings.validation_fraction == 0:
    return lambda *_: "train"
  if answers := few_labels.few_answers(grids, settings):
    held_out = dealing.held_out(answers, settings.validation_fraction)
    return lambda name, tile: "validation" if (name, tile.row, tile.col) in held_out else "train"
  config = DataConfig(
    source="patches", tile_size=settings.tile_size, block_buffer=settings.buffer,
    block_size=settings.block_size or _block_size(list(grids.values()), settings.tile_size),
    validation_fraction=settings.validation_fraction, directory=settings.input,
  )
  sizes = {path.name: (grid.height, grid.width) for path, grid in grids.items()}
  try:
    regions = [(name, (0, height, 0, width)) for name, (height, width) in sizes.items()]
    plan = blocks.SplitPlan(regions, "validation", config)
  except ValueError as error:
    raise ValueError(str(error).replace("data.", "--")) from error

  def split(name: str, tile: SceneTile) -> str:
    window, (height, width) = tile.window, sizes[name]
    region = (
      window.row_off, min(window.row_off + window.height, height),
      window.col_off, min(window.col_off + window.width, width),
    )
    held_out = sum(map(_area, plan.parts(name, region)))
    if held_out == _area(region):
      return "validation"
    return "" if held_out or plan.in_buffer(name, region) else "train"

  return split


def _block_size(grids: list[Grid], side: int) -> int:
  def count(size: int) -> int:
    return sum(
      blocks.Axis(0, grid.height, size, side).count * blocks.Axis(0, grid.width, size, side).count
      for grid in grids
    )

  return next((n * side for n in _BLOCK_SIDES if count(n * side) >= _MIN_BLOCKS), side)


def _area(region: blocks.Region) -> int:
  top, bottom, left, right = region
  return (bottom - top) * (right - left)


def _without_shared_ground(
  split_of: SplitOf, grids: dict[pathlib.Path, Grid], settings: Settings
) -> SplitOf:
  """Returns a function that skips training tiles on the ground of other scenes' validation tiles."""
  origin = next((x for x in map(_longitude, grids.values()) if x is not None), 0.0)
  outlines = functools.partial(_outlines, origin=origin)
  wholes = {path: outlines(grid, [(0, 0, grid.height, grid.width)]) for path, grid in grids.items()}
  placed = {path: whole[0] for path, whole in wholes.items() if len(whole)}
  paths, shapes = list(placed), list(placed.values())
  if len(shapes) < 2:
    return split_of
  pairs = zip(*shapely.STRtree(shapes).query(shapes, "intersects"), strict=True)
  shared = {paths[i] for i, j in pairs if i != j and _overlap(shapes[i], shapes[j])}
  held_out, owners = [], []
  in_training: list[tuple[str, SceneTile, shapely.Polygon]] = []
  for path in shared:
    tiles = tile_grid.tiles(grids[path], settings)
    for tile, outline in zip(tiles, outlines(grids[path], list(map(_extent, tiles))), strict=True):
      if (split := split_of(path.name, tile)) == "train":
        in_training.append((path.name, tile, outline))
      elif split == "validation":
        held_out.append(outline)
        owners.append(path.name)
  if not held_out:
    return split_of
  _LOG.warning(
    "%d scenes overlap others. Their training tiles on the ground of another scene's validation tiles "
    "are not used.", len(shared),
  )
  validation, skipped = shapely.STRtree(held_out), set()
  for name, tile, outline in in_training:
    near = validation.query(outline, "intersects")
    if any(owners[i] != name and _overlap(outline, held_out[i]) for i in near):
      skipped.add((name, tile.row, tile.col))
  return lambda name, tile: "" if (name, tile.row, tile.col) in skipped else split_of(name, tile)


def _overlap(outline: shapely.Polygon, other: shapely.Polygon) -> bool:
  return outline.intersection(other).area > _SLIVER * min(outline.area, other.area)


def _extent(tile: SceneTile) -> tuple[float, float, float, float]:
  window = tile.window
  return window.row_off, window.col_off, window.row_off + window.height, window.col_off + window.width


def _longitude(grid: Grid) -> float | None:
  """Returns the longitude of a scene's first corner in degrees, None without a place."""
  transformer = grid.to_wgs84() if grid.georeferenced else None
  longitude = transformer.transform(*(grid.transform @ (0.0, 0.0)))[0] if transformer else np.nan
  return longitude if np.isfinite(longitude) else None


def _outlines(
  grid: Grid, extents: list[tuple[float, float, float, float]], *, origin: float
) -> list[shapely.Polygon]:
  """Returns polygons on the Earth, of (top, left, bottom, right) in pixels; none without a place.

  They are in degrees, and longitudes count from `origin`, so that none near it jumps at 180 degrees.
  """
  transformer = grid.to_wgs84() if grid.georeferenced else None
  if transformer is None or not extents:
    return []
  along = np.linspace(0, 1, _EDGE, endpoint=False)
  zero, one = np.zeros(_EDGE), np.ones(_EDGE)
  down, right = np.r_[zero, along, one, 1 - along], np.r_[along, one, 1 - along, zero]
  top, left, bottom, end = (x[:, None] for x in np.array(extents, float).T)
  rows, cols = top + (bottom - top) * down, left + (end - left) * right
  longitude, latitude = (
    np.asarray(x) for x in transformer.transform(*(grid.transform @ (cols, rows)))
  )
  points = np.stack([(longitude - origin + 180) % 360 - 180, latitude], axis=-1)
  return [shapely.Polygon(ring) if np.isfinite(ring).all() else shapely.Polygon() for ring in points]

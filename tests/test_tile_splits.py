"""Scenes that overlap: no ground is in both training and validation."""

import pathlib

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from lgag_jax.geo.grid import Grid
from lgag_jax.options.tiling import Settings
from lgag_jax.tiling import tile_grid, tile_splits

SIDE, SIZE = 16, 320  # Pixels of a tile and a scene.


def settings():
  return Settings(input="scenes", labels="labels.gpkg", output="tiles", tile_size=SIDE)


def grids(crs, place, *shifts):
  """Scenes of 10 m, or as much in degrees, shifted to the east by pixels."""
  step = place.a
  return {
    pathlib.Path(f"{name}.tif"): Grid(SIZE, SIZE, crs, Affine.translation(step * shift, 0) @ place)
    for name, shift in zip("abc", shifts, strict=False)
  }


def dealt(given):
  """The splits of all tiles, and their boxes in pixels of the first scene."""
  split_of, found = tile_splits.split_of(given, settings()), []
  first = next(iter(given.values()))
  for path, grid in given.items():
    shift = (grid.transform.c - first.transform.c) / first.transform.a
    for tile in tile_grid.tiles(grid, settings()):
      left, top = tile.window.col_off + shift, tile.window.row_off
      box = shapely.box(left, top, left + SIDE, top + SIDE)
      found.append((path.name, split_of(path.name, tile), box))
  return found


UTM, DEGREES = CRS.from_epsg(32633), CRS.from_epsg(4326)


@pytest.mark.parametrize(("crs", "place"), [
  (UTM, Affine(10, 0, 5e5, 0, -10, 5e6)), (DEGREES, Affine(1e-4, 0, -0.02, 0, -1e-4, 45)),
  (DEGREES, Affine(1e-4, 0, 179.98, 0, -1e-4, -16)),
], ids=["utm", "greenwich", "180"])
@pytest.mark.parametrize("shifts", [(0, 160), (0, 8), (0, 160, 320)])
def test_no_validation_ground_of_another_scene_is_trained_on(crs, place, shifts, caplog):
  found = dealt(grids(crs, place, *shifts))
  kinds = [split for _, split, _ in found]
  assert kinds.count("train") > 20 and kinds.count("validation") > 20
  held_out = [(name, box) for name, split, box in found if split == "validation"]
  for name, split, box in found:
    if split == "train":
      assert not any(box.intersection(other).area > 1 for owner, other in held_out if owner != name)
  assert "scenes overlap others" in caplog.text


@pytest.mark.parametrize("shift", [SIZE, SIZE + 40])
@pytest.mark.parametrize("crs", [UTM, None])
def test_scenes_side_by_side_keep_all_tiles(crs, shift, caplog):
  place = Affine(10, 0, 5e5, 0, -10, 5e6)
  both = grids(crs, place, 0, shift)
  assert [split for _, split, _ in dealt(both)] == [
    tile_splits._by_blocks(both, settings())(path.name, tile)
    for path, grid in both.items() for tile in tile_grid.tiles(grid, settings())
  ]
  assert not caplog.text


def test_other_systems_are_compared_on_the_ground():
  place = Affine(10, 0, 5e5, 0, -10, 5e6)
  (path, grid), = grids(UTM, place, 0).items()
  corners = [grid.to_wgs84().transform(*(place @ corner)) for corner in ((0, 0), (SIZE, SIZE))]
  (west, north), (east, south) = corners
  degrees = Affine((east - west) / SIZE, 0, west, 0, (south - north) / SIZE, north)
  other = pathlib.Path("b.tif")
  both = {path: grid, other: Grid(SIZE, SIZE, DEGREES, degrees)}
  splits = np.array([split for _, split, _ in dealt({path: grid})])
  together = tile_splits.split_of(both, settings())
  tiles = tile_grid.tiles(grid, settings())
  kept = np.array([together(path.name, tile) for tile in tiles])
  held_out = {
    (tile.row, tile.col) for tile in tile_grid.tiles(both[other], settings())
    if together(other.name, tile) == "validation"
  }
  dropped = {(t.row, t.col) for t, was, now in zip(tiles, splits, kept, strict=True) if was != now}
  assert dropped and all(  # The two grids differ by less than a tile.
    any(abs(row - r) <= 1 and abs(col - c) <= 1 for r, c in held_out) for row, col in dropped
  )

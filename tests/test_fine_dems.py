"""DEMs far finer than the scene: read at a reduced scale, in little time, with the same terrain."""

import math

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from lgag_jax.geo import terrain
from lgag_jax.geo.dem import open_dem
from lgag_jax.geo.grid import Grid

UTM = CRS.from_epsg(32633)
SCENE = Grid(8, 8, UTM, Affine(10, 0, 5e5, 0, -10, 5e6))
OUTLINES = np.array([shapely.box(1, 2, 4, 4), shapely.Polygon([(4, 4), (8, 5), (6, 8)])], object)
PLACES = {
  "metres": (UTM, Affine(0.2, 0, 5e5, 0, -0.2, 5e6)),
  "turned": (UTM, Affine(0.2, 0, 5e5, 0, -0.2, 5e6) @ Affine.rotation(10) @ Affine.translation(-80, 0)),
  "degrees": (CRS.from_epsg(4326), Affine(2.6e-6, 0, 14.99999, 0, -1.85e-6, 45.153731)),
}


def measure(path):
  with open_dem(path) as dem:
    return terrain.measure(dem, OUTLINES, SCENE)


def write(path, crs, place, heights=None, side=0):
  profile = {"height": side, "width": side} if heights is None else dict(
    zip(("height", "width"), heights.shape, strict=True))
  with rasterio.open(
    path, "w", driver="GTiff", count=1, dtype="float32", crs=crs, transform=place, sparse_ok=True,
    tiled=True, compress="deflate", **profile,
  ) as raster:
    if heights is not None:
      raster.write(heights.astype(np.float32), 1)
  return path


@pytest.mark.parametrize("voids", [0.0, 0.1])
@pytest.mark.parametrize("place", PLACES)
def test_a_reduced_dem_gives_the_same_terrain(tmp_path, monkeypatch, place, voids):
  crs, transform = PLACES[place]
  row, col = np.mgrid[:540, :540] + 0.5
  heights = 500 + 0.06 * col + 0.08 * row + 2 * np.sin(col / 90)
  missing = np.random.default_rng(0).random(heights.shape) < voids
  path = write(tmp_path / "dem.tif", crs, transform, np.where(missing, -9999, heights))
  reduced, read = [], terrain._under
  monkeypatch.setattr(
    terrain, "_under", lambda dem, shapes, by: reduced.append(by) or read(dem, shapes, by))
  found = measure(path)
  assert reduced == [3, 3]
  # Without voids, which leave few pixels of the DEM a slope.
  path = write(tmp_path / "whole.tif", crs, transform, heights)
  monkeypatch.setattr(terrain, "_FINER", math.inf)
  for one, whole in zip(found, measure(path), strict=True):
    assert one.share == whole.share == 1
    assert one.slope_mean == pytest.approx(whole.slope_mean, abs=0.4 if voids else 0.05)
    assert one.aspect == pytest.approx(whole.aspect, abs=1)
    assert one.lowest == pytest.approx(whole.lowest, abs=0.4)
    assert one.highest == pytest.approx(whole.highest, abs=0.4)
    for name in ("lowest_place", "highest_place"):
      assert math.dist(getattr(one, name), getattr(whole, name)) < 3.0  # Metres.
  assert reduced[2:] == [1, 1]


def test_a_dem_up_to_31_times_finer_is_read_whole(tmp_path, monkeypatch):
  path = write(tmp_path / "dem.tif", UTM, Affine(0.33, 0, 5e5, 0, -0.33, 5e6), np.ones((250, 250)))
  monkeypatch.setattr(terrain, "_under", lambda dem, shapes, by: terrain.Terrain(share=by))
  assert [one.share for one in measure(path)] == [1, 1]


@pytest.mark.parametrize("side", [2000, 4000, 6000])
def test_few_pixels_of_a_fine_dem_are_measured(tmp_path, monkeypatch, side):
  path = write(tmp_path / "dem.tif", UTM, Affine(80 / side, 0, 5e5, 0, -80 / side, 5e6), side=side)
  pixels, add = [], terrain.Sums.add
  monkeypatch.setattr(
    terrain.Sums, "add", lambda sums, heights, *more: pixels.append(len(heights)) or add(
      sums, heights, *more))
  measure(path)
  assert sum(pixels) < 14 * 32**2  # The outlines have 6 and 7 pixels of the scene.

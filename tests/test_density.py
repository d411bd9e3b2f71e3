# ruff: noqa: F401, F811
"""The density of landslides: cells of a round length, of pixels with data, and each landslide once."""

import json

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from lgag_jax.geo.grid import GEOD, Grid
from lgag_jax.imagery.opening import ImageError
from lgag_jax.mapping import density, ground_measures, rasters
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.mapping.predict import map_scenes
from lgag_jax.options.mapping import Options
from tests.test_map_names import model
from tests.test_mapping import batch_sizes, write_scene

UTM = CRS.from_epsg(32633)
PLACE = Affine(2.0, 0.0, 500_000.0, 0.0, -2.0, 5_200_000.0)


def landslide(row, col):
  return Landslide(1, "a", shapely.box(0, 0, 1, 1), 1.0, 1.0, 0.5, 0.5, 1, "s.tif", pixel=(row, col))


def test_the_values_of_a_mask_made_by_hand():
  cells = density.cells_of(Grid(100, 250, UTM, PLACE))  # 200 m x 500 m: cells of 20 m, 10 pixels.
  assert cells.side == 20 and cells.grid.transform.almost_equals(PLACE @ Affine.scale(10.0), 0.01)
  mask = np.zeros((100, 250), np.uint8)
  mask[:, 105:] = rasters.NO_DATA
  mask[0:5, 0:10] = 1  # Half of the first cell.
  mask[10:20, 100:105] = 2  # All that has data of the last cell with data in the second row.
  mask[30:32, 100:105] = 1  # A fifth of what has data.
  for first in (0, 7, 64):
    cells.add_rows(first, mask[first : {0: 7, 7: 64, 64: 100}[first]])
  for row, col in ((2, 4), (3, 9), (15, 104), (30, 100)):
    cells.add_landslide(landslide(row, col))
  bands = cells.bands()
  assert bands.shape == (10, 25, 2) and cells.landslides == 4
  expected = np.zeros((10, 25))
  expected[0, 0], expected[1, 10], expected[3, 10], expected[:, 11:] = 0.5, 1.0, 0.2, np.nan
  np.testing.assert_allclose(bands[..., 0], expected, atol=1e-6)
  expected[0, 0] = 2 / 400e-6  # Two on 400 square metres.
  expected[1, 10] = expected[3, 10] = 1 / 200e-6
  np.testing.assert_allclose(bands[..., 1], expected, rtol=2e-3)  # UTM's scale is 0.9996.


@pytest.mark.parametrize(("grid", "side", "shape"), [
  (Grid(100, 1000, UTM, PLACE), 100.0, (2, 20)),
  (Grid(995, 100, UTM, PLACE), 50.0, (40, 4)),
  (Grid(5000, 4000, UTM, Affine(0.05, 0, 5e5, 0, -0.05, 5.2e6)), 10.0, (25, 20)),
  (Grid(400, 400, CRS.from_epsg(4326), Affine(1e-4, 0, 10, 0, -1e-4, 60)), 200.0, (23, 12)),
])
def test_cells_have_a_round_side_on_the_ground(grid, side, shape):
  cells = density.cells_of(grid)
  assert cells.side == side and cells.counts.shape == shape
  transform = cells.grid.transform
  middle = grid.transform @ (grid.width / 2, grid.height / 2)
  lon, lat = grid.to_wgs84().transform(*(
    [middle[axis] + step[axis] for step in ((0, 0), (transform.a, 0), (0, transform.e))]
    for axis in (0, 1)
  ))
  for i in (1, 2):
    assert GEOD.inv(lon[0], lat[0], lon[i], lat[i])[2] == pytest.approx(side, rel=1e-3)


@pytest.mark.parametrize("grid", [
  Grid(100, 1000, None, PLACE), Grid(100, 1000, None, Affine.identity()), Grid(60, 70, UTM, PLACE),
])
def test_scenes_without_a_place_or_with_few_pixels_have_no_cells(grid):
  assert density.cells_of(grid) is None


def test_areas_of_pixels_are_those_on_the_ellipsoid():
  grid = Grid(400, 400, CRS.from_epsg(3857), Affine(100.0, 30.0, 1e6, 10.0, -100.0, 9e6))
  points = np.array([[0.5, 0.5], [200.0, 100.0], [399.5, 399.5]])
  boxes = shapely.box(*(points - 0.5).T, *(points + 0.5).T)
  expected = ground_measures.areas_and_perimeters(boxes, grid)[0]
  np.testing.assert_allclose(ground_measures.pixel_areas(points, grid), expected, rtol=1e-4)


def test_the_pixel_of_a_landslide_lies_in_it():
  bent = shapely.box(0, 0, 9, 9) - shapely.box(0, 1, 8, 8)
  outlines = np.array([shapely.box(2, 4, 6, 10), shapely.box(3, 7, 4, 8), bent], object)
  pixels = ground_measures.central_pixels(outlines)
  assert pixels[:2].tolist() == [[7, 4], [7, 3]]
  assert bent.contains(shapely.box(*pixels[2, ::-1], *(pixels[2, ::-1] + 1)))


@pytest.mark.usefixtures("batch_sizes")
def test_the_density_of_a_map_is_written_and_shown(model, tmp_path):
  pixels = np.full((240, 200, 3), 10, np.uint8)
  pixels[100:130, 40:60] = 250
  scene, output = write_scene(tmp_path / "scene.tif", pixels), tmp_path / "maps"
  map_scenes(model, scene, output)
  with rasterio.open(output / "density" / "scene_tif.tif") as raster:
    share, number = raster.read()
    assert raster.descriptions == density.BANDS and np.isnan(raster.nodata)
    assert "cells of 20 m" in raster.tags()["TIFFTAG_IMAGEDESCRIPTION"]
    assert raster.crs.to_epsg() == 32633 and (raster.transform.c, raster.transform.f) == (5e5, 5.2e6)
    area = abs(raster.transform.determinant)
  with rasterio.open(output / "mask" / "scene_tif.tif") as raster:
    mapped, pixel = (raster.read(1) == 1).sum(), abs(raster.transform.determinant)
  assert share.sum() * area == pytest.approx(mapped * pixel, rel=0.02)
  assert np.count_nonzero(number) == 1
  assert number.max() == pytest.approx(1e6 / (100 * pixel), rel=2e-3)  # 10 x 10 pixels.
  page = (output / "report.html").read_text()
  assert "scene.tif, cells of 20 m" in page
  (output / "density" / "scene_tif.tif").write_bytes((output / "mask" / "scene_tif.tif").read_bytes())
  with pytest.raises(ImageError, match="it must have 2"):
    density.read(output / "density" / "scene_tif.tif")
  write_scene(scene, np.full_like(pixels, 10))  # Now nothing is mapped.
  map_scenes(model, scene, output)
  record = json.loads((output / "scenes" / "scene_tif.json").read_text())
  assert not list((output / "density").iterdir())
  assert "density_cell_m" not in record and "density/scene_tif.tif" not in record["files"]
  assert "<h2>Density</h2>" not in (output / "report.html").read_text()

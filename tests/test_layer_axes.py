"""Layers with x and y swapped, or in degrees without saying so, are named before they label nothing."""

import logging

import numpy as np
import pyogrio.raw
import pyproj
import pytest
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.windows import Window

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.reference import open_reference

UTM = Grid(64, 64, CRS.from_epsg(32633), rasterio.Affine(2, 0, 5e5, 0, -2, 5e6))
DEGREES = Grid(64, 64, CRS.from_epsg(4326), rasterio.Affine(2e-5, 0, 15, 0, -2e-5, 45.1))
LOCAL = Grid(64, 64, None, UTM.transform)
SQUARES = np.array([shapely.box(10, 10, 20, 20), shapely.box(40, 30, 50, 45)])


def write(path, shapes, grid, crs, *, swap=False, shift=0.0):
  """Writes shapes in pixels of a grid as a layer; `crs` None leaves out what system they are in."""
  def move(points):
    x, y = grid.transform @ (points[:, 0] + shift, points[:, 1])
    if crs is None and grid is UTM:
      x, y = pyproj.Transformer.from_crs(32633, 4326, always_xy=True).transform(x, y)
    return np.stack((y, x) if swap else (x, y), axis=1)

  pyogrio.raw.write(
    path, shapely.to_wkb(shapely.transform(shapes, move)), [], [], geometry_type="Polygon",
    crs=crs or None,
    driver={".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".geojson": "GeoJSON"}[path.suffix],
  )
  return path


def read(path, grid):
  with open_reference(path, grid, ("landslide",), scene="s.tif") as labels:
    return labels.read(Window(0, 0, 64, 64))


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize(("name", "grid", "crs", "swap", "words"), [
  ("l.geojson", DEGREES, "EPSG:4326", True, r"x and y were swapped\. In 'WGS 84'.*longitude"),
  ("l.gpkg", UTM, "EPSG:32633", True, r"x and y were swapped\. In 'WGS 84 / UTM zone 33N'"),
  ("l.shp", DEGREES, "", True, r"x and y were swapped"),
  ("l.shp", UTM, None, False, r"its coordinates were degrees\..*-a_srs EPSG:4326"),
  ("l.gpkg", UTM, None, False, r"its coordinates were degrees"),
])
def test_such_layers_are_refused(tmp_path, name, grid, crs, swap, words):
  path = write(tmp_path / name, SQUARES, grid, crs, swap=swap)
  words = rf"{name}: nothing of it lies in s\.tif, but most would if {words}"
  with pytest.raises(ValueError, match=words):
    read(path, grid)


@pytest.mark.parametrize("grid", [UTM, DEGREES, LOCAL])
def test_layers_in_the_scene_and_beside_it_are_taken(tmp_path, grid, caplog):
  crs = grid.crs.to_string() if grid.crs else "EPSG:32633"
  assert read(write(tmp_path / "in.gpkg", SQUARES, grid, crs), grid).sum() == 10 * 10 + 10 * 15
  beside = write(tmp_path / "out.gpkg", SQUARES, grid, crs, shift=500)
  with caplog.at_level(logging.WARNING):
    assert not read(beside, grid).any()
  assert "none of its 2 polygons lies in the scene" in caplog.text


def test_a_layer_of_many_places_is_taken_though_some_swapped_ones_lie_in_the_scene(tmp_path):
  elsewhere = shapely.transform(np.repeat(SQUARES, 5), lambda points: points + 5000)
  path = write(tmp_path / "w.geojson", np.r_[SQUARES, elsewhere], DEGREES, "EPSG:4326", swap=True)
  assert not read(path, DEGREES).any()

# ruff: noqa: F401, F811
"""The highest and the lowest point of each polygon: their places, their file, and that none labels."""

import errno
import json
import os
import shutil
import types
import xml.etree.ElementTree as ET

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from lgag_jax.geo import drawn_shapes, shapes, terrain
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery import map_products
from lgag_jax.mapping import extreme_points, predict, vectors
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.options.mapping import Options
from tests.test_map_names import model
from tests.test_mapping import batch_sizes
from tests.test_terrain import map_valley, measure, write_dem

UTM = CRS.from_epsg(32633)


def read(path):
  meta, _, wkb, columns = pyogrio.raw.read(path, layer=extreme_points.LAYER)
  return meta, shapely.from_wkb(wkb), dict(zip(meta["fields"], columns, strict=True))


@pytest.mark.parametrize("block", [512, 4])
def test_points_are_the_centres_of_the_dem_pixels_under_a_polygon(tmp_path, monkeypatch, block):
  monkeypatch.setattr(terrain, "_BLOCK", block)
  heights = np.full((30, 40), 500.0)
  heights[12, 17], heights[19, 9], heights[2, 2], heights[18, 18] = 900, 100, 2000, np.nan
  heights[14, 10] = 900  # As high, but further down.
  place = Affine(30, 0, 500_000, 0, -30, 5_200_000)
  dem = write_dem(tmp_path / "dem.tif", heights, "EPSG:32633", place, dtype="float64")
  grid = Grid(300, 400, UTM, Affine(3, 0, 500_000, 0, -3, 5_200_000))  # A tenth of its pixels.
  under, small, outside = measure(
    dem, [shapely.box(80, 100, 190, 200), shapely.box(171, 121, 172, 122), shapely.box(900, 0, 910, 9)],
    grid,
  )
  assert (under.highest, under.lowest) == (900, 100)
  assert under.highest_place == pytest.approx((500_000 + 17.5 * 30, 5_200_000 - 12.5 * 30))
  assert under.lowest_place == pytest.approx((500_000 + 9.5 * 30, 5_200_000 - 19.5 * 30))
  assert small.highest_place == small.lowest_place == under.highest_place
  assert outside.highest_place is None is outside.lowest_place


@pytest.mark.parametrize("west", [179.9, -180.1])
def test_points_lie_where_the_scene_counts_longitudes(tmp_path, west):
  step = 1e-3
  heights = np.add.outer(np.arange(100.0), np.arange(400.0))
  dem = write_dem(
    tmp_path / "dem.tif", heights, "EPSG:4326", Affine(step, 0, 179.8, 0, -step, -17), dtype="float64")
  grid = Grid(100, 200, CRS.from_epsg(4326), Affine(step, 0, west, 0, -step, -17))
  (under,) = measure(dem, [shapely.box(120, 20, 150, 50)], grid)
  assert under.highest_place == pytest.approx((west + 149.5 * step, -17 - 49.5 * step))
  assert under.lowest_place == pytest.approx((west + 120.5 * step, -17 - 20.5 * step))


@pytest.mark.usefixtures("batch_sizes")
def test_a_map_has_the_points_of_its_polygons(model, tmp_path):
  _, polygons, columns = map_valley(model, tmp_path, min_slope=10, schema="plain")
  path = tmp_path / "maps" / "points" / "a_tif.gpkg"
  meta, points, found = read(path)
  assert [name for name, _ in pyogrio.list_layers(path)] == ["landslide_points"]
  assert tuple(meta["fields"]) == shapes.POINT_FIELDS and "32633" in meta["crs"]
  assert found["kind"].tolist() == ["highest", "lowest"] * 2 and len(polygons) == 2
  with rasterio.open(tmp_path / "dem.tif") as raster:
    heights = np.array([value[0] for value in raster.sample(shapely.get_coordinates(points))])
  np.testing.assert_array_equal(found["elevation_m"], heights)
  for number in range(2):
    own = found["stable_id"] == columns["stable_id"][number]
    assert shapely.intersects(polygons[number], points[own]).all()
    names = ("elevation_max_m", "elevation_min_m")
    assert found["elevation_m"][own].tolist() == [columns[name][number] for name in names]
  style = ET.parse(path.with_suffix(".qml")).getroot()
  values = {category.get("value") for category in style.iter("category")}
  assert values == set(extreme_points.KINDS)
  record = json.loads((tmp_path / "maps" / "scenes" / "a_tif.json").read_text())
  assert {"points/a_tif.gpkg", "points/a_tif.qml"} <= set(record["files"])
  assert map_products.is_product(path)
  predict.map_scenes(model, tmp_path / "a.tif", tmp_path / "maps", Options(min_area=100))
  assert not list(path.parent.iterdir())  # Without a DEM.
  path.write_text("precious")
  with pytest.raises(ValueError, match=r"points/a_tif\.gpkg would be replaced"):
    map_valley(model, tmp_path, min_slope=10)
  assert path.read_text() == "precious"


def landslide(number, under):
  return Landslide(
    number, "a", shapely.box(0, 0, 1, 1), 1.0, 1.0, 0.5, 0.5, 1, "s.tif", stable_id=f"{number}",
    terrain=under)


def test_many_points_are_written_in_parts_and_none_as_an_empty_layer(tmp_path, monkeypatch):
  monkeypatch.setattr(vectors, "FEATURES_AT_ONCE", 3)
  under = terrain.Terrain(
    lowest=1.0, highest=2.0, lowest_place=(5.0, 6.0), highest_place=(7.0, 8.0))
  grid = Grid(10, 10, UTM, Affine.identity())
  for count in (0, 1, 5):
    with extreme_points.create(tmp_path / "p;x.gpkg", grid) as points:
      for number in range(count):
        points.add(landslide(number, under))
        points.add(landslide(number, terrain.Terrain()))  # Without heights.
    assert os.listdir(tmp_path) == ["p;x.gpkg"]
    shutil.copy(tmp_path / "p;x.gpkg", tmp_path / "y.gpkg")
    _, found, columns = read(tmp_path / "y.gpkg")
    assert shapely.get_coordinates(found).tolist() == [[7, 8], [5, 6]] * count
    assert columns["elevation_m"].tolist() == [2, 1] * count
    (tmp_path / "y.gpkg").unlink()


def test_a_full_disk_leaves_no_points(tmp_path, monkeypatch):
  grid = Grid(10, 10, UTM, Affine.identity())

  def full(*_):
    raise pyogrio.errors.DataLayerError("full")

  monkeypatch.setattr(vectors, "check_count", full)
  monkeypatch.setattr(vectors.files.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=0))
  with (
    pytest.raises(OSError, match=r"p\.gpkg") as caught,
    extreme_points.create(tmp_path / "p.gpkg", grid),
  ):
    pass
  assert caught.value.errno == errno.ENOSPC and not os.listdir(tmp_path)


@pytest.mark.filterwarnings("ignore:Normalized/laundered field name")
@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp"])
def test_points_of_a_map_are_no_labels(tmp_path, suffix):
  grid = Grid(100, 100, UTM, Affine(2, 0, 500_000, 0, -2, 5_200_000))
  place = (500_050.0, 5_199_900.0)
  under = terrain.Terrain(lowest=1.0, highest=2.0, lowest_place=place, highest_place=place)
  with extreme_points.create(tmp_path / "p.gpkg", grid) as points:
    points.add(landslide(1, under))
  path = tmp_path / f"copy{suffix}"
  meta, _, wkb, data = pyogrio.raw.read(tmp_path / "p.gpkg")
  pyogrio.raw.write(
    path, wkb, data, meta["fields"], crs=meta["crs"], geometry_type="Point", layer="mine",
    driver={".gpkg": "GPKG", ".geojson": "GeoJSON", ".shp": "ESRI Shapefile"}[suffix],
  )
  words = "highest and the lowest points of mapped polygons, which are no inventory. Give the polygons"
  for field in ("", "kind"):
    with pytest.raises(ValueError, match=f"copy{suffix} cannot be read as labels: .*{words}"):
      shapes.read_shapes(path, grid, ("landslide",), field=field)
  with pytest.raises(ValueError, match=words):
    drawn_shapes.read(path, list(drawn_shapes.layers(path)), (), grid, "scene.tif")


def test_other_points_named_alike_are_labels(tmp_path):
  grid = Grid(100, 100, UTM, Affine(2, 0, 500_000, 0, -2, 5_200_000))
  path = tmp_path / "own.gpkg"
  pyogrio.raw.write(
    path, shapely.to_wkb(np.array([shapely.Point(500_050, 5_199_900)], object)),
    [np.array(["x"], object)], ["kind"], crs="EPSG:32633", geometry_type="Point",
    layer=extreme_points.LAYER, driver="GPKG",
  )
  assert shapes.read_shapes(path, grid, ("landslide",)).kind == "points"

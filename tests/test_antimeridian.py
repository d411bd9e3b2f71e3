"""The 180th meridian: labels and masks of either longitude, and maps that cross it."""

import json

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from pyogrio import raw
from rasterio.crs import CRS
from rasterio.windows import Window

from lgag_jax.geo import world_width
from lgag_jax.geo.grid import GEOD, Grid
from lgag_jax.geo.reference import open_reference
from lgag_jax.mapping import vectors
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.options.tiling import Settings
from lgag_jax.tiling import labels, tile_grid
from tests.test_foreign_layers import drawn, on_earth, write_layer


def whole(path, grid):
  with open_reference(path, grid, ("landslide",)) as reference:
    return reference.read(Window(0, 0, grid.width, grid.height))


DEGREE = 1e-4
EQUATOR = 2 * np.pi * 6378137.0
FIJI = Affine(DEGREE, 0, 180 - 15 * DEGREE, 0, -DEGREE, -16.8)  # The meridian is column 15.
EAST, WEST, ACROSS = shapely.box(2, 4, 9, 12), shapely.box(18, 4, 25, 12), shapely.box(12, 15, 20, 20)


@pytest.mark.parametrize("scene_shift", [0, -360])
@pytest.mark.parametrize("form", ["as_180", "as_360", "split", "not_split"])
def test_labels_lie_on_both_sides_of_the_180th_meridian(tmp_path, scene_shift, form):
  grid = Grid(24, 30, CRS.from_epsg(4326), Affine.translation(scene_shift, 0) @ FIJI)
  shapes = [shapely.transform(s, lambda p: np.stack(FIJI @ tuple(p.T), axis=1))
            for s in (EAST, WEST, ACROSS)]  # 0 to 360.
  back = lambda g: shapely.transform(g, lambda p: np.where(p > [[180, 90]], p - [[360, 0]], p))
  if form == "as_180":
    shapes = [shapely.transform(shape, lambda p: p - [[360, 0]]) for shape in shapes]
  elif form == "not_split":
    shapes = [back(shape) for shape in shapes]
  elif form == "split":
    halves = [shapely.box(0, -90, 180, 90), shapely.box(180, -90, 360, 90)]
    shapes = [shapely.MultiPolygon([
      part if number == 0 else shapely.transform(part, lambda p: p - [[360, 0]])
      for number, half in enumerate(halves) if (part := shape.intersection(half)).area
    ]) for shape in shapes]
  path = write_layer(tmp_path / "a.gpkg", shapes, "EPSG:4326")
  np.testing.assert_array_equal(whole(path, grid), drawn(EAST, WEST, ACROSS))


def test_points_and_projected_scenes_cross_the_180th_meridian(tmp_path):
  grid = Grid(24, 30, CRS.from_epsg(4326), FIJI)
  points = [shapely.Point(FIJI @ (2.5, 3.5)), shapely.Point(np.array(FIJI @ (20.5, 3.5)) - [360, 0])]
  path = write_layer(tmp_path / "p.gpkg", points, "EPSG:4326")
  assert np.argwhere(whole(path, grid)).tolist() == [[3, 2], [3, 20]]
  to = pyproj.Transformer.from_crs(4326, 32760, always_xy=True)
  grid = Grid(24, 30, CRS.from_epsg(32760), place_at_180(32760))
  shape = on_earth(ACROSS, grid)
  degrees = shapely.transform(
    shape, lambda p: np.stack(to.transform(*p.T, direction="INVERSE"), axis=1)
  )
  path = write_layer(tmp_path / "u.gpkg", [degrees], "EPSG:4326")
  np.testing.assert_array_equal(whole(path, grid), drawn(ACROSS))


MASK = np.zeros((24, 30), np.uint8)
MASK[4:12, 2:9] = MASK[4:12, 18:25] = MASK[15:20, 12:20] = 1


def write_mask(path, array, crs, transform):
  with rasterio.open(
    path, "w", driver="GTiff", height=array.shape[0], width=array.shape[1], count=1, dtype="uint8",
    crs=crs, transform=transform,
  ) as file:
    file.write(array, 1)
  return path


@pytest.mark.parametrize("scene_shift", [0, -360])
@pytest.mark.parametrize("mask_shift", [0, -360])
def test_a_mask_of_other_longitudes_labels_a_scene(tmp_path, scene_shift, mask_shift):
  grid = Grid(24, 30, CRS.from_epsg(4326), Affine.translation(scene_shift, 0) @ FIJI)
  place = Affine.translation(mask_shift, 0) @ FIJI @ Affine.translation(-1, 0)
  path = write_mask(tmp_path / "m.tif", np.pad(MASK, ((0, 0), (1, 0))), CRS.from_epsg(4326), place)
  np.testing.assert_array_equal(whole(path, grid), MASK)


def test_a_mask_of_all_longitudes_labels_both_sides(tmp_path):
  """Degrees from -180 to 180 in 120 columns, a scene from 150 to 210."""
  values = np.random.default_rng(0).integers(0, 2, (20, 120)).astype(np.uint8)
  place = Affine(3, 0, -180, 0, -3, 30)
  for crs, unit in ((CRS.from_epsg(4326), 1), (CRS.from_epsg(3857), 20037508.342789244 / 180)):
    path = write_mask(tmp_path / "m.tif", values, crs, Affine.scale(unit) @ place)
    grid = Grid(20, 20, crs, Affine.scale(unit) @ Affine(3, 0, 150, 0, -3, 30))
    np.testing.assert_array_equal(whole(path, grid), np.hstack([values[:, 110:], values[:, :10]]))


def test_a_mask_in_degrees_labels_a_projected_scene(tmp_path):
  grid = Grid(24, 30, CRS.from_epsg(32760), place_at_180(32760))
  inverse = pyproj.Transformer.from_crs(32760, 4326, always_xy=True)
  cols, rows = np.meshgrid(np.arange(30) + 0.5, np.arange(24) + 0.5)
  longitude, latitude = inverse.transform(*(grid.transform @ (cols, rows)))
  for west in (179.9, -180.1):  # Coarse pixels of 1e-4 degrees, 11 metres.
    values = np.random.default_rng(1).integers(0, 2, (2000, 2000)).astype(np.uint8)
    place = Affine(1e-4, 0, west, 0, -1e-4, -16.7)
    path = write_mask(tmp_path / "m.tif", values, CRS.from_epsg(4326), place)
    col, row = ~place @ (np.where(longitude < west, longitude + 360, longitude), latitude)
    col = np.where(col >= 2000, col - 360 / 1e-4, col)
    expected = values[np.floor(row).astype(int), np.floor(col).astype(int)]
    assert np.mean(whole(path, grid) != expected) < 0.04  # GDAL interpolates coordinates.


@pytest.mark.parametrize(("name", "half"), [
  ("EPSG:3857", EQUATOR / 2), ("EPSG:3395", EQUATOR / 2), ("EPSG:4087", EQUATOR / 2),
  ("EPSG:900913", EQUATOR / 2), ("ESRI:54004", EQUATOR / 2), ("EPSG:3857+5773", EQUATOR / 2),
  ("+proj=merc +ellps=WGS84 +units=us-ft", EQUATOR / 2 * 3937 / 1200),
  ("EPSG:6933", 17367530.4451614),  # Equal area: the equator is shorter.
])
def test_shapes_in_metres_around_the_equator(tmp_path, name, half):
  crs = CRS.from_user_input(name)
  grid = Grid(24, 30, crs, Affine(10, 0, half - 150, 0, -10, 1e6))
  back = [shapely.transform(on_earth(shape, grid), lambda p: p - [[2 * half, 0]])
          for shape in (EAST, WEST, ACROSS)]
  path = write_layer(tmp_path / "layer.gpkg", back, crs.to_wkt())
  np.testing.assert_array_equal(whole(path, grid), drawn(EAST, WEST, ACROSS))


@pytest.mark.parametrize("name", ["EPSG:32660", "EPSG:3413", "EPSG:3031", "EPSG:2193", "ESRI:54009"])
def test_other_projections_do_not_repeat(name):
  assert world_width.of_system(CRS.from_user_input(name).to_wkt()) == 0.0


def test_a_landslide_beyond_the_border_and_the_meridian_is_near(tmp_path):
  """The scene ends at 180 degrees, the landslide begins 3 pixels farther, at -179.9997."""
  grid = Grid(24, 15, CRS.from_epsg(4326), FIJI)
  shape = shapely.transform(on_earth(WEST, grid), lambda p: p - [[360, 0]])
  path = write_layer(tmp_path / "a.gpkg", [shape], "EPSG:4326")
  with open_reference(path, grid, ("landslide",)) as reference:
    assert not reference.read(Window(0, 0, 15, 24)).any()
    assert reference.near(Window(7, 4, 8, 8), 3.1)
    assert not reference.near(Window(7, 4, 8, 8), 2.9)


def test_metres_that_are_called_degrees_do_not_repeat(tmp_path):
  """360 of them would be 36 pixels."""
  grid = Grid(24, 60, CRS.from_epsg(4326), Affine(10, 0, 5e5, 0, -10, 3e6))
  path = write_layer(tmp_path / "a.gpkg", [on_earth(EAST, grid)], "EPSG:4326")
  np.testing.assert_array_equal(whole(path, grid), drawn(EAST, grid=grid))
  path = write_mask(tmp_path / "m.tif", MASK, grid.crs, grid.transform)
  values = whole(path, grid)
  np.testing.assert_array_equal(values[:, :30], MASK)
  assert (values[:, 30:] == 255).all()


def test_places_of_tiles_in_a_table(tmp_path):
  path = tmp_path / "tiles.csv"
  x, y = FIJI @ (20, 4)
  path.write_text(f"x,y,label\n{x - 360},{y},landslide\n")
  grid = Grid(24, 30, CRS.from_epsg(4326), FIJI)
  settings = Settings(input=str(tmp_path), output="o", labels=str(path), tile_size=8)
  with labels.open_labels(tmp_path / "s.tif", {tmp_path / "s.tif": grid}, settings) as label:
    tiles, valid = tile_grid.tiles(grid, settings), np.ones((8, 8), bool)
    names = {(t.row, t.col): label(t, valid)[0] for t in tiles}
  assert [tile for tile, name in names.items() if name == "landslide"] == [(0, 2)]


# Outlines in pixels of 10 m; the meridian is x = 15. The third touches it, the last has a hole there.
OUTLINES = [
  shapely.box(2, 2, 6, 6), shapely.box(10, 8, 20, 12), shapely.box(9, 14, 15, 16),
  shapely.box(15, 14, 17, 16), shapely.box(22, 2, 26, 6),
  shapely.Polygon([(12, 17), (15, 17), (15, 18), (17, 18), (17, 19), (15, 19), (15, 20), (12, 20)]),
  shapely.box(11, 21, 19, 24).difference(shapely.box(14, 22, 16, 23)),
]
GRIDS = {
  "utm": (32760, None), "degrees to 360": (4326, FIJI), "mercator": (3857, None),
  "degrees from -180": (4326, Affine.translation(-360, 0) @ FIJI),
  "beyond 360": (4326, Affine.translation(360, 0) @ FIJI), "a polar map": (3995, None),
}


def place_at_180(code):
  to = pyproj.Transformer.from_crs(4326, code, always_xy=True)
  x, y = to.transform(180, 70 if code == 3995 else -16.8)
  return Affine(10, 0, abs(x) - 150, 0, -10, y)


def landslides(grid):
  return [
    Landslide(number, "a", on_earth(outline, grid), 1.0, 1.0, 0.5, 0.5, 1, "s.tif")
    for number, outline in enumerate(OUTLINES, 1)
  ]


@pytest.mark.parametrize("name", GRIDS)
def test_polygons_across_the_meridian_are_cut_in_geojson_alone(tmp_path, monkeypatch, name):
  monkeypatch.setattr(vectors, "FEATURES_AT_ONCE", 3)
  code, transform = GRIDS[name]
  grid = Grid(24, 30, CRS.from_epsg(code), transform or place_at_180(code))
  shapes = landslides(grid)
  gpkg, geojson = tmp_path / "a.gpkg", tmp_path / "a.geojson"
  assert vectors.write(shapes, grid, gpkg, geojson) == [gpkg, geojson]
  assert sorted(tmp_path.iterdir()) == [geojson, gpkg]
  for geometry, shape in zip(shapely.from_wkb(raw.read(gpkg)[2]), shapes, strict=True):
    assert geometry.equals(shape.geometry)
  features = json.loads(geojson.read_text())["features"]
  assert [feature["properties"]["id"] for feature in features] == [1, 2, 3, 4, 5, 6, 7]
  types = ["Polygon", "MultiPolygon", "Polygon", "Polygon", "Polygon", "MultiPolygon", "MultiPolygon"]
  if name not in ("utm", "a polar map"):  # There the meridian is no column of pixels.
    assert [feature["geometry"]["type"] for feature in features] == types
  to_wgs84 = pyproj.Transformer.from_crs(code, 4326, always_xy=True)
  for feature, shape in zip(features, shapes, strict=True):
    geometry = shapely.geometry.shape(feature["geometry"])
    assert geometry.geom_type in ("Polygon", "MultiPolygon") and geometry.is_valid
    west, _, east, _ = geometry.bounds
    assert west >= -180 and east <= 180
    for part in getattr(geometry, "geoms", [geometry]):
      assert part.exterior.is_ccw and part.bounds[2] - part.bounds[0] < 1
    expected = shapely.transform(
      shapely.segmentize(shape.geometry, 10 if code != 4326 else 1),
      lambda p: np.stack(to_wgs84.transform(*p.T), axis=1),
    )
    areas = [abs(GEOD.geometry_area_perimeter(one)[0]) for one in (geometry, expected)]
    assert areas[0] == pytest.approx(areas[1], rel=2e-3)


def test_points_just_before_the_meridian_stay_there(tmp_path):
  """They end in nines, which GDAL would round."""
  grid = Grid(24, 30, CRS.from_epsg(4326), FIJI)
  outline = shapely.Polygon([(1, 1), (14.998, 1), (14.999, 9), (1, 9)])  # 179.9999998, 179.9999999.
  shape = Landslide(1, "a", on_earth(outline, grid), 1.0, 1.0, 0.5, 0.5, 1, "s.tif")
  _, path = vectors.write([shape], grid, tmp_path / "a.gpkg", tmp_path / "a.geojson")
  (feature,) = json.loads(path.read_text())["features"]
  written = shapely.get_coordinates(shapely.geometry.shape(feature["geometry"]))
  expected = shapely.get_coordinates(shape.geometry).round(7)
  assert {tuple(point) for point in written.round(9)} == {tuple(point) for point in expected}


@pytest.mark.parametrize("name", ["utm", "degrees to 360", "degrees from -180"])
def test_the_geojson_of_a_map_labels_its_scene(tmp_path, name):
  code, transform = GRIDS[name]
  grid = Grid(24, 30, CRS.from_epsg(code), transform or place_at_180(code))
  paths = vectors.write(landslides(grid), grid, tmp_path / "a.gpkg", tmp_path / "a.geojson")
  expected = shapely.union_all(OUTLINES)
  inside = [[expected.contains(shapely.Point(col + 0.5, row + 0.5)) for col in range(30)]
            for row in range(24)]
  for path in paths:
    np.testing.assert_array_equal(whole(path, grid), inside)


def test_an_empty_map_near_the_meridian(tmp_path):
  grid = Grid(24, 30, CRS.from_epsg(4326), FIJI)
  paths = vectors.write([], grid, tmp_path / "a.gpkg", tmp_path / "a.geojson")
  assert [pyogrio.read_info(path)["features"] for path in paths] == [0, 0]


@pytest.mark.parametrize("gsd", [0.5, 0.02, 0.001])
def test_narrow_parts_of_fine_pixels_stay_valid(tmp_path, gsd):
  """Far from the meridian, too: a part may be narrower than a centimetre."""
  grid = Grid(24, 30, CRS.from_epsg(32644), Affine(gsd, 0, 5e5, 0, -gsd, 3e6))
  necks = shapely.union_all([
    shapely.box(2, 2, 8, 6), shapely.box(8, 3, 12, 4), shapely.box(12, 2, 16, 6),
    shapely.box(15, 6, 16, 12), shapely.box(15, 12, 16.01, 20),
  ])
  shapes = [Landslide(number, "a", on_earth(outline, grid), 1.0, 1.0, 0.5, 0.5, 1, "s.tif")
            for number, outline in enumerate((necks, shapely.box(20, 3, 21, 4)))]
  _, path = vectors.write(shapes, grid, tmp_path / "a.gpkg", tmp_path / "a.geojson")
  for feature, shape in zip(json.loads(path.read_text())["features"], shapes, strict=True):
    geometry = shapely.geometry.shape(feature["geometry"])
    assert geometry.geom_type == "Polygon" and geometry.is_valid
    area = abs(GEOD.geometry_area_perimeter(geometry)[0])
    assert area == pytest.approx(shape.geometry.area, rel=0.05)


# Outlines in pixels; the pole lies in column 12 and row 10.
AROUND_POLE = {
  "a pole inside": shapely.box(6, 5, 20, 16),
  "a pole in its hole": shapely.box(4, 3, 22, 18).difference(shapely.box(11, 9, 15, 13)),
  "a hole beside the pole": shapely.box(4, 3, 22, 18).difference(shapely.box(5, 5, 7, 8)),
  "beside the pole": shapely.Polygon([(2, 2), (26, 2), (26, 20), (14, 20), (14, 9), (2, 9)]),
  "one pixel at the pole": shapely.box(12, 10, 13, 11),
}


@pytest.mark.parametrize("code", [3413, 3031])
@pytest.mark.parametrize("gsd", [10.0, 20_000.0])
def test_the_geojson_of_a_map_around_a_pole_shows_the_same_ground(tmp_path, code, gsd):
  grid = Grid(24, 30, CRS.from_epsg(code), Affine(gsd, 0, -12.3 * gsd, 0, -gsd, 10.7 * gsd))
  cells = np.array([[shapely.Point(c + 0.5, r + 0.5) for c in range(30)] for r in range(24)])
  for number, outline in enumerate(AROUND_POLE.values()):
    shape = Landslide(1, "a", on_earth(outline, grid), 1.0, 1.0, 0.5, 0.5, 1, "s.tif")
    _, path = vectors.write(
      [shape], grid, tmp_path / f"{number}.gpkg", tmp_path / f"{number}.geojson"
    )
    (feature,) = json.loads(path.read_text())["features"]
    geometry = shapely.geometry.shape(feature["geometry"])
    west, south, east, north = geometry.bounds
    assert geometry.is_valid and west >= -180 and east <= 180 and max(-south, north) <= 90
    np.testing.assert_array_equal(whole(path, grid), shapely.contains(outline, cells))


def test_edges_without_many_degrees_get_no_points(tmp_path):
  grid = Grid(24, 30, CRS.from_epsg(32760), place_at_180(32760))
  _, path = vectors.write(landslides(grid)[:1], grid, tmp_path / "a.gpkg", tmp_path / "a.geojson")
  (feature,) = json.loads(path.read_text())["features"]
  assert len(feature["geometry"]["coordinates"][0]) == 5

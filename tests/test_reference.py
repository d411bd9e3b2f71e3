"""Reference labels on a scene's grid against a loop over pixels; files that must not be opened."""

import dataclasses
import json
import logging
import math

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.reference import open_reference
from lgag_jax.imagery.reading import UNKNOWN, ImageError

UTM = CRS.from_epsg(32644)
# Rotated, so that no result is correct by accident.
GRID = Grid(24, 30, UTM, Affine.translation(5e5, 3e6) @ Affine.rotation(20) @ Affine.scale(2, -2))
SQUARE, TRIANGLE = shapely.box(3.2, 4.1, 9.7, 12.3), shapely.Polygon([(8.3, 8.1), (27, 15), (11, 22.2)])
SUFFIXES = [".gpkg", ".shp", ".geojson"]


def on_earth(geometry, grid=GRID, crs="EPSG:32644"):
  """Transforms pixels to coordinates, one point at a time."""
  to = pyproj.Transformer.from_crs("EPSG:32644", crs, always_xy=True)
  return shapely.transform(
    geometry, lambda points: np.array([to.transform(*(grid.transform @ tuple(p))) for p in points])
  )


def write_layer(path, geometries, values=None, crs="EPSG:32644", kind="Unknown", layer=None):
  values = ["landslide"] * len(geometries) if values is None else values
  pyogrio.raw.write(
    path, shapely.to_wkb(np.array(geometries, object)), [np.array(values, object)], ["type"], crs=crs,
    geometry_type=kind, layer=layer or path.stem,
  )
  return path


def write_mask(path, array, *, crs=UTM, transform=GRID.transform, nodata=None):
  with rasterio.open(
    path, "w", driver="GTiff", height=array.shape[0], width=array.shape[1], count=1, dtype=array.dtype,
    crs=crs, transform=transform, nodata=nodata,
  ) as file:
    file.write(array, 1)
  return path


def covered(polygons, grid=GRID):
  """Returns the number, from 1, of the last polygon that contains each pixel's centre."""
  numbers = np.zeros((grid.height, grid.width), np.uint8)
  for row in range(grid.height):
    for col in range(grid.width):
      for number, polygon in enumerate(polygons, 1):
        if polygon.contains(shapely.Point(col + 0.5, row + 0.5)):
          numbers[row, col] = number
  return numbers


def whole(path, grid=GRID, classes=("landslide",), **options):
  with open_reference(path, grid, classes, **options) as reference:
    return reference.read(Window(0, 0, grid.width, grid.height))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("crs", ["EPSG:32644", "EPSG:4326", "EPSG:32645"])
def test_polygons_cover_the_pixels_whose_centres_they_contain(tmp_path, suffix, crs):
  path = tmp_path / f"inventory{suffix}"
  write_layer(path, [on_earth(g, crs=crs) for g in (SQUARE, TRIANGLE)], ["b", "a"], crs, "Polygon")
  classes, expected = ("b", "a"), covered([SQUARE, TRIANGLE])
  assert {1, 2} <= set(np.unique(expected))
  with open_reference(path, GRID, classes, field="type") as reference:
    assert reference.kind == "polygons"
    np.testing.assert_array_equal(reference.read(Window(0, 0, 30, 24)), expected)
    np.testing.assert_array_equal(reference.read(Window(7, 5, 9, 6)), expected[5:11, 7:16])
    past = reference.read(Window(20, 16, 20, 12))
  np.testing.assert_array_equal(past[:8, :10], expected[16:, 20:])


def test_points_lie_in_their_pixels(tmp_path):
  points = [shapely.Point(2.3, 4.9), shapely.MultiPoint([(29.5, 23.5), (10.01, 11.99)])]
  with open_reference(
    write_layer(tmp_path / "points.gpkg", [on_earth(p) for p in points]), GRID, ("landslide",)
  ) as reference:
    assert reference.kind == "points"
    hits = np.argwhere(reference.read(Window(0, 0, 30, 24)))
  assert {tuple(hit) for hit in hits.tolist()} == {(4, 2), (11, 10), (23, 29)}


@pytest.mark.parametrize("form", ["polygons", "raster"])
def test_near_measures_the_distance_to_the_window(tmp_path, form):
  block = shapely.box(10, 8, 14, 12)
  path = tmp_path / "a.tif"
  if form == "raster":
    write_mask(path, covered([block]))
  else:
    path = write_layer(tmp_path / "a.gpkg", [on_earth(block)])
  with open_reference(path, GRID, ("landslide",)) as reference:
    for col, row, distance in ((2, 2, 0), (2, 2, 6.3), (2, 2, 6.4), (6, 9, 0), (7, 9, 0), (17, 13, 3.1),
                               (17, 13, 3.2), (10, 12, 0), (10, 12, 0.1), (14, 8, 1),
                               (16, 8, 2), (16, 8, 2.1), (17, 16, 5), (17, 16, 5.1)):
      window = shapely.box(col, row, col + 4, row + 4)
      gap = window.distance(block)
      expected = gap < distance or window.intersection(block).area > 0
      assert reference.near(Window(col, row, 4, 4), distance) == expected, (col, row, distance)


def test_near_finds_a_polygon_that_covers_no_pixel(tmp_path):
  path = write_layer(tmp_path / "a.gpkg", [on_earth(shapely.box(5.1, 5.1, 5.3, 5.3))])
  with open_reference(path, GRID, ("landslide",)) as reference:
    assert not reference.read(Window(0, 0, 30, 24)).any()
    assert reference.near(Window(4, 4, 4, 4), 0)
    assert not reference.near(Window(0, 4, 4, 4), 0)


def test_a_mask_on_the_same_grid_is_read_unchanged(tmp_path):
  values = np.random.default_rng(0).choice(np.array([0, 1, 7, 255], np.uint8), (24, 30))
  expected = np.select([values == 255, values > 0], [UNKNOWN, 1], 0)
  path = write_mask(tmp_path / "m.tif", values)
  np.testing.assert_array_equal(whole(path), expected)
  np.testing.assert_array_equal(whole(path, ignore=-1), values > 0)
  # Zero is background even if it is the nodata value; any other nodata value is unknown.
  np.testing.assert_array_equal(whole(write_mask(tmp_path / "z.tif", values, nodata=0)), expected)
  seven = np.where(values == 7, UNKNOWN, expected)
  np.testing.assert_array_equal(whole(write_mask(tmp_path / "s.tif", values, nodata=7)), seven)
  with open_reference(path, GRID, ("landslide",)) as reference:
    past = reference.read(Window(-2, -3, 10, 9))
  np.testing.assert_array_equal(past, np.pad(expected[:6, :8], ((3, 0), (2, 0)), constant_values=255))


@pytest.mark.parametrize(("crs", "nodata"), [(32644, None), (32644, 0), (4326, 0)])
def test_a_mask_on_another_grid_gives_the_nearest_pixel_and_is_unknown_outside(tmp_path, crs, nodata):
  values = np.kron(np.random.default_rng(1).integers(0, 2, (9, 9)), np.ones((4, 4))).astype(np.uint8)
  to = pyproj.Transformer.from_crs("EPSG:32644", crs, always_xy=True)
  left, top = to.transform(500006, 2999996.5)
  side = 1.5 if crs == 32644 else 1.4e-5
  place = Affine(side, 0, left, 0, -side, top)
  path = write_mask(tmp_path / "m.tif", values, crs=CRS.from_epsg(crs), transform=place, nodata=nodata)
  values_on_grid = whole(path)
  expected = np.full((24, 30), UNKNOWN)
  for row in range(24):
    for col in range(30):
      x, y = ~place @ to.transform(*(GRID.transform @ (col + 0.5, row + 0.5)))
      if 0 <= x < 36 and 0 <= y < 36:
        expected[row, col] = values[math.floor(y), math.floor(x)]
  assert {0, 1, UNKNOWN} == set(np.unique(expected))
  # GDAL interpolates coordinates to within 1/8 pixel, so some pixels at borders differ.
  assert np.mean(values_on_grid != expected) < (0.001 if crs == 32644 else 0.04)


@pytest.mark.parametrize("colours", ["RGBA", "LA"])
def test_an_opaque_mask_of_colours_on_another_grid_is_read(tmp_path, colours):
  grid = Grid(12, 15, UTM, GRID.transform @ Affine.scale(2))
  values = np.zeros((12, 15), np.uint8)
  values[2:9, 3:11] = 255
  path = tmp_path / "mask.tif"
  count = len(colours)
  with rasterio.open(
    path, "w", driver="GTiff", height=12, width=15, count=count, dtype="uint8", crs=UTM,
    transform=grid.transform, photometric="RGB" if count == 4 else "MINISBLACK", alpha="YES",
  ) as file:
    for band in range(1, count):
      file.write(values, band)
    file.write(np.full_like(values, 255), count)
  larger = dataclasses.replace(GRID, height=26)  # The mask ends above its last two rows.
  expected = np.pad((values > 0).repeat(2, 0).repeat(2, 1), ((0, 2), (0, 0)))
  expected = np.where(np.arange(26)[:, None] < 24, expected, UNKNOWN)
  np.testing.assert_array_equal(whole(path, larger), expected)


def test_grids_without_a_georeference_must_have_the_same_size(tmp_path, caplog):
  nowhere = Grid(24, 30, None, Affine.identity())
  values = np.eye(24, 30, dtype=np.uint8)
  np.testing.assert_array_equal(whole(write_mask(tmp_path / "m.tif", values), nowhere), values)
  assert "only one of mask and scene is georeferenced" in caplog.text
  with pytest.raises(ImageError, match=r"m\.tif is \(24, 30\), its image \(12, 30\)"):
    whole(tmp_path / "m.tif", Grid(12, 30, None, Affine.identity()))


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize("lacking", ["layer", "scene", "mask", "both"])
def test_a_missing_reference_system_is_that_of_the_other(tmp_path, caplog, lacking):
  grid = GRID if lacking in ("layer", "mask") else Grid(24, 30, None, GRID.transform)
  expected = covered([SQUARE])
  if lacking in ("layer", "scene"):
    crs = None if lacking == "layer" else "EPSG:32644"
    path = write_layer(tmp_path / "a.gpkg", [on_earth(SQUARE)], crs=crs)
  else:
    grown = np.pad(expected, 2)
    place = GRID.transform @ Affine.translation(-2, -2)
    path = write_mask(tmp_path / "m.tif", grown, crs=None, transform=place)
  np.testing.assert_array_equal(whole(path, grid), expected)
  assert ("coordinate reference system" in caplog.text) == (lacking != "both")


def test_skipped_and_repaired_geometries_are_counted(tmp_path, caplog):
  caplog.set_level(logging.WARNING)
  bow = shapely.Polygon([(2.2, 2), (10.2, 10), (10.2, 2), (2.2, 10)])
  spike = shapely.Polygon([(15, 3), (20, 3), (20, 8), (20, 12), (20, 8), (15, 8)])
  nowhere = shapely.box(1e9, 1e9, 2e9, 2e9)
  layer = [on_earth(bow), None, shapely.Polygon(), on_earth(spike), nowhere]
  path = write_layer(tmp_path / "a.gpkg", layer)
  other = Grid(24, 30, CRS.from_epsg(4326), GRID.transform)
  halves = [shapely.Polygon([(x, 2), (6.2, 6), (x, 10)]) for x in (2.2, 10.2)]
  expected = covered([*halves, shapely.box(15, 3, 20, 8)]) > 0
  np.testing.assert_array_equal(whole(path), expected)
  assert "2 of its features have no readable geometry" in caplog.text
  assert "2 of its features are invalid" in caplog.text
  whole(path, other)
  assert "1 of its features have no position" in caplog.text
  assert "none of its 2 polygons lies in the scene" in caplog.text


def test_invalid_layers_fields_and_classes_are_named(tmp_path):
  both = [on_earth(SQUARE), on_earth(TRIANGLE)]
  path = write_layer(tmp_path / "a.gpkg", both, ["slide", "rock fall"])
  for options, message in (
    ({"classes": ("slide", "flow"), "field": "type"}, r"a\.gpkg.*'rock fall'.*slide, flow"),
    ({"classes": ("slide", "flow")}, r"a\.gpkg.*--field.*type.*slide, flow"),
    ({"field": "kind"}, r"a\.gpkg.*no field 'kind'.*--field.*type"),
    ({"layer": "b"}, r"a\.gpkg.*no layer 'b'.*--layer.*a"),
  ):
    with pytest.raises(ValueError, match=message):
      whole(path, **options)
  write_layer(path, [on_earth(SQUARE)], layer="more")
  with pytest.raises(ValueError, match=r"2 layers: choose one with --layer, of a, more"):
    whole(path)
  np.testing.assert_array_equal(whole(path, layer="more"), covered([SQUARE]))
  line = shapely.LineString([(1, 1), (5, 5)])
  either = "either polygons or points"
  for number, (layer, message) in enumerate((
    ([line], either), ([SQUARE, shapely.Point(1, 1)], either), ([None], "no feature with a geometry"),
  )):
    mixed = write_layer(tmp_path / f"{number}.gpkg", [g and on_earth(g) for g in layer])
    with pytest.raises(ValueError, match=rf"{number}\.gpkg holds .*{message}"):
      whole(mixed)


def test_only_the_three_formats_are_opened(tmp_path):
  write_layer(tmp_path / "good.gpkg", [on_earth(SQUARE)])
  virtual = (
    f'<OGRVRTDataSource><OGRVRTLayer name="good"><SrcDataSource>{tmp_path}/good.gpkg</SrcDataSource>'
    "</OGRVRTLayer></OGRVRTDataSource>"
  )
  # GDAL opens this file and runs its command. The assertion below shows that the test can fail.
  command = {"type": "gdal_streamed_alg", "command_line": (
    f"gdal vector pipeline ! read {tmp_path}/good.gpkg ! write --of=stream streamed_dataset")}
  (tmp_path / "c.geojson").write_text(json.dumps(command))
  assert pyogrio.read_info(tmp_path / "c.geojson")["driver"] == "GDALG"
  contents = {
    "c.geojson": None, "d.shp": b"SQLite format 3\0", "e.json": b"[1]", "f.geojson": b"[" * 9999,
  }
  contents |= {f"{i}{s}": virtual.encode() for i, s in enumerate(SUFFIXES)}
  hidden = {"type": "FeatureCollection", "features": [], "properties": command}
  contents["g.json"] = json.dumps(hidden).encode()
  for name, content in contents.items():
    if content is not None:
      (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is not a valid .* file"):
      whole(tmp_path / name)
  (tmp_path / "h.gpkg").write_bytes((tmp_path / "good.gpkg").read_bytes()[:2000])
  with pytest.raises(ValueError, match=r"h\.gpkg cannot be read as labels"):
    whole(tmp_path / "h.gpkg")
  for path in ("http:/127.0.0.1:9/a.geojson", "/vsicurl/http://127.0.0.1:9/a.gpkg", "none.shp"):
    with pytest.raises(ValueError, match="no such file"):
      whole(type(tmp_path)(path))

"""Vector layers as people have them: empty parts, collections, curves, heights, flat shapes."""

import contextlib
import json
import logging
import sqlite3
import struct

import numpy as np
import pytest
import shapely
from affine import Affine
from pyogrio import raw
from rasterio.crs import CRS
from rasterio.windows import Window

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.reference import open_reference

UTM = CRS.from_epsg(32644)
GRID = Grid(24, 30, UTM, Affine(2, 0, 5e5, 0, -2, 3e6))
SQUARE, OTHER = shapely.box(3, 4, 9, 12), shapely.box(15, 6, 20, 18)


def on_earth(geometry, grid=GRID):
  return shapely.transform(geometry, lambda p: np.stack(grid.transform @ tuple(p.T), axis=1))


def write_layer(path, geometries, crs="EPSG:32644", fields=()):
  raw.write(
    path, shapely.to_wkb(np.array(geometries, object)),
    [np.array(["landslide"] * len(geometries), object) for _ in fields], list(fields), crs=crs,
    geometry_type="Unknown",
  )
  return path


def whole(path, grid=GRID, **options):
  with open_reference(path, grid, ("landslide",), **options) as reference:
    return reference.read(Window(0, 0, grid.width, grid.height))


def drawn(*boxes, grid=GRID):
  array = np.zeros((grid.height, grid.width), np.uint8)
  for box in boxes:
    left, top, right, bottom = map(int, box.bounds)
    array[top:bottom, left:right] = 1
  return array


LINE, NAN = shapely.LineString([(0, 0), (9, 9)]), shapely.Polygon([(1, 1), (5, 1), (np.nan, np.nan)])
FLAT = shapely.Polygon([(1, 1), (2, 2), (3, 3), (1, 1)])
HOLLOW = shapely.from_wkt("POLYGON ((3 4, 9 4, 9 12, 3 12, 3 4), EMPTY)")


@pytest.mark.parametrize(("geometry", "words"), [
  (shapely.multipolygons([shapely.Polygon(), SQUARE]), "1 of its features have empty parts"),
  (shapely.multipolygons([SQUARE, shapely.Polygon()]), "1 of its features have empty parts"),
  (shapely.GeometryCollection([SQUARE, LINE]), "1 of its features hold other geometry"),
  (shapely.GeometryCollection([shapely.Point(1, 1), SQUARE]), "beside polygons"),
  (shapely.GeometryCollection([shapely.GeometryCollection([SQUARE, LINE]), LINE]), "beside polygons"),
  (shapely.multipolygons([NAN, SQUARE]), "coordinates that are not numbers"),
  (shapely.MultiPolygon([FLAT, SQUARE]), "1 of its features have parts without an area"),
  (shapely.MultiPolygon([FLAT, FLAT, SQUARE]), "1 of its features have parts without an area"),
  (HOLLOW, "1 of its features have empty parts"),
  (shapely.GeometryCollection([SQUARE, shapely.GeometryCollection()]), "have empty parts"),
  (shapely.GeometryCollection([shapely.MultiPolygon([SQUARE])]), ""),
  (shapely.force_3d(SQUARE, 7.0), ""),
  (shapely.MultiPolygon([SQUARE]), ""),
])
def test_the_valid_parts_of_a_feature_count_and_the_others_are_named(tmp_path, caplog, geometry, words):
  caplog.set_level(logging.WARNING)
  path = write_layer(tmp_path / "a.gpkg", [on_earth(OTHER), on_earth(geometry)])
  np.testing.assert_array_equal(whole(path), drawn(SQUARE, OTHER))
  assert words in caplog.text
  assert words or not caplog.text


def write_wkb(path, *features):
  raw.write(
    path, np.array(features, object), [], [], crs="EPSG:32644", geometry_type="Unknown", driver="GPKG"
  )
  return path


def wkb(kind, *parts):
  """Returns what shapely cannot write: the little-endian WKB of a type; parts are WKB or points."""
  points = [struct.pack("<I", len(part)) + np.array(part, "<f8").tobytes() if isinstance(part, list)
            else part for part in parts]
  head = struct.pack("<BI", 1, kind) + (struct.pack("<I", len(parts)) if kind not in (8, 9) else b"")
  return head + b"".join(points)


@pytest.mark.parametrize("multi", [False, True])
def test_curves_are_read_as_the_outlines_that_they_mean(tmp_path, caplog, multi):
  circle = [GRID.transform @ point for point in ((2.9, 8), (6, 11.1), (9.1, 8), (6, 4.9), (2.9, 8))]
  curve = wkb(10, wkb(8, circle))
  path = write_wkb(tmp_path / "a.gpkg", wkb(12, curve) if multi else curve)
  rows, cols = np.mgrid[:24, :30] + 0.5
  np.testing.assert_array_equal(whole(path), np.hypot(rows - 8, cols - 6) < 3.1)
  assert not caplog.text


def test_measures_do_not_matter(tmp_path, caplog):
  ring = shapely.get_coordinates(on_earth(SQUARE)).tolist()
  measured = wkb(2003, [(*point, 5.0) for point in ring])
  both = wkb(3006, wkb(3003, [(*point, 1.0, 2.0) for point in ring]))
  for number, feature in enumerate((measured, both)):
    path = write_wkb(tmp_path / f"{number}.gpkg", feature)
    np.testing.assert_array_equal(whole(path), drawn(SQUARE))
  assert not caplog.text


@pytest.mark.filterwarnings("ignore:Registering non-standard")
def test_surfaces_are_the_polygons_that_they_consist_of(tmp_path, caplog):
  ring = shapely.get_coordinates(on_earth(SQUARE)).tolist()
  first, second = ([*ring[:3], ring[0]], [*ring[2:], ring[2]])
  plain = shapely.to_wkb(on_earth(OTHER))
  for number, features in enumerate((
    (wkb(16, wkb(17, first), wkb(17, second)), plain),
    (wkb(1016, *(wkb(1017, [(*p, 1.0) for p in part]) for part in (first, second))), plain),
    (wkb(17, first), wkb(17, second), plain), (wkb(15, wkb(3, ring)), plain),
    (wkb(7, plain, wkb(7, wkb(16, wkb(17, first)), wkb(15, wkb(3, second)))),),
  )):
    path = write_wkb(tmp_path / f"{number}.gpkg", *features)
    np.testing.assert_array_equal(whole(path), drawn(SQUARE, OTHER))
  assert not caplog.text


@pytest.mark.parametrize("case", ["cut", "curves", "geojson", "kind"])
def test_a_feature_that_cannot_be_read_is_refused(tmp_path, case):
  ring = shapely.get_coordinates(on_earth(SQUARE)).tolist()
  circle = [GRID.transform @ point for point in ((3, 8), (6, 11), (9, 8), (6, 5), (3, 8))]
  collection = wkb(7, wkb(3, ring), wkb(10, wkb(8, circle)))
  message, path = "the geometry of its feature 2 is damaged", tmp_path / "a.gpkg"
  if case == "curves":
    write_wkb(path, wkb(3, ring), collection)
    message = "its feature 2 is a collection with curves.*CONVERT_TO_LINEAR"
  elif case == "cut":
    write_layer(path, [on_earth(SQUARE), on_earth(OTHER), None])
    with contextlib.closing(sqlite3.connect(path)) as database, database:
      triggers = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
      for (name,) in triggers:
        database.execute(f'DROP TRIGGER "{name}"')
      database.execute("UPDATE a SET geom = substr(geom, 1, length(geom) - 20) WHERE fid = 2")
  else:
    kind, points = ("Polygon", ring) if case == "geojson" else ("Ring", [ring])
    shapes = [("Polygon", [ring]), ("Polygon", [ring]), (kind, points)]
    features = [{"type": "Feature", "geometry": {"type": k, "coordinates": p}} for k, p in shapes]
    path = tmp_path / "a.geojson"
    crs = {"type": "name", "properties": {"name": "EPSG:32644"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, "crs": crs}))
  with pytest.raises(ValueError, match=message):
    whole(path)


def test_features_without_geometry_are_skipped(tmp_path, caplog):
  shapes = [on_earth(SQUARE), None, shapely.Polygon(), on_earth(OTHER)]
  for suffix in ("gpkg", "shp"):
    path = tmp_path / f"a.{suffix}"
    raw.write(
      path, shapely.to_wkb(np.array(shapes, object)), [np.arange(4)], ["n"], crs="EPSG:32644",
      geometry_type="Polygon")
    np.testing.assert_array_equal(whole(path), drawn(SQUARE, OTHER))
    assert f"a.{suffix}: 2 of its features have no readable geometry; skipping them" in caplog.text


def test_a_ring_that_is_not_closed_is_read(tmp_path, caplog):
  path = write_wkb(tmp_path / "a.gpkg", wkb(3, shapely.get_coordinates(on_earth(SQUARE)).tolist()[:-1]))
  np.testing.assert_array_equal(whole(path), drawn(SQUARE))
  assert not caplog.text


@pytest.mark.parametrize("root", ["feature", "collection"])
def test_empty_parts_of_geojson(tmp_path, caplog, root):
  ring = shapely.get_coordinates(on_earth(SQUARE)).tolist()
  shape = {"type": "MultiPolygon", "coordinates": [[], [ring]]}
  crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32644"}}
  content = {"type": "GeometryCollection", "geometries": [shape]}
  if root == "feature":
    features = [{"type": "Feature", "properties": {}, "geometry": geometry} for geometry in (
      shape, None, {"type": "Polygon", "coordinates": []})]
    content = {"type": "FeatureCollection", "features": features}
  path = tmp_path / "a.geojson"
  path.write_text(json.dumps({**content, "crs": crs}))
  np.testing.assert_array_equal(whole(path), drawn(SQUARE))
  assert "1 of its features have empty parts" in caplog.text
  assert ("2 of its features have no readable geometry" in caplog.text) == (root == "feature")


def test_overlapping_parts_are_no_hole(tmp_path):
  parts = [shapely.box(3, 4, 9, 12), shapely.box(6, 8, 14, 16)]
  path = write_layer(tmp_path / "a.gpkg", [on_earth(shapely.multipolygons(parts))])
  np.testing.assert_array_equal(whole(path), drawn(*parts))


def test_classes_stay_with_their_parts(tmp_path):
  path = tmp_path / "a.gpkg"
  multi = shapely.multipolygons([SQUARE, shapely.Polygon()])
  raw.write(
    path, shapely.to_wkb(on_earth(np.array([multi, OTHER]))),
    [np.array(["b", "a"], object)], ["type"], crs="EPSG:32644", geometry_type="MultiPolygon",
  )
  with open_reference(path, GRID, ("a", "b"), field="type") as reference:
    values = reference.read(Window(0, 0, 30, 24))
  np.testing.assert_array_equal(values, 2 * drawn(SQUARE) + drawn(OTHER))


def test_a_layer_without_a_usable_part_is_refused(tmp_path):
  for number, (geometry, words) in enumerate((
    (FLAT, "no polygon with an area"),
    (shapely.GeometryCollection([LINE]), "lines: .*either polygons or points"),
    (shapely.MultiPolygon([shapely.Polygon()]), "no feature with a geometry"),
  )):
    path = write_layer(tmp_path / f"{number}.gpkg", [on_earth(geometry)])
    with pytest.raises(ValueError, match=rf"{number}\.gpkg holds .*{words}"):
      whole(path)


def test_polygons_narrower_than_a_pixel_are_counted(tmp_path, caplog):
  narrow = [shapely.box(5.1, 5.1, 5.3, 9), shapely.box(4, 8.6, 9, 9.4), shapely.box(2.1, 2.1, 2.2, 2.2)]
  outside = shapely.box(-3.4, 2, -3.3, 3)
  path = write_layer(tmp_path / "a.gpkg", [on_earth(one) for one in (*narrow, outside, OTHER)])
  np.testing.assert_array_equal(whole(path), drawn(OTHER))
  assert "3 of its polygons in the scene are too narrow" in caplog.text

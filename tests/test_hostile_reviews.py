"""Logs and layers of a review that come from others: errors that name the file, in little time."""

import json
import time

import numpy as np
import pyogrio.raw
import pytest
import shapely

from lgag_jax.options.reviewing import Settings
from lgag_jax.reviewing import outlines, products
from lgag_jax.reviewing.session import Session
from tests.test_reviewing import HEIGHT, PLACE, WIDTH, write_maps

LEFT, TOP = PLACE.c, PLACE.f
WHERE = "2026-01-01T00:00:00+00:00"


@pytest.fixture
def maps(tmp_path):
  return write_maps(tmp_path)


def line(number, wkt, decision="missed", **fields):
  return json.dumps({
    "feature": f"drawn-{number:016x}", "decision": decision, "class": "landslide", "comment": "",
    "geometry": wkt, "time": WHERE, **fields,
  })


def write_log(maps, *lines):
  path = maps / "review" / "scene_tif.jsonl"
  path.parent.mkdir(exist_ok=True)
  path.write_text("\n".join(lines) + "\n")
  return path


def box(left, top, right, bottom):
  """Returns a box in pixels as a log has it."""
  return shapely.box(LEFT + 2 * left, TOP - 2 * bottom, LEFT + 2 * right, TOP - 2 * top).wkt


def star(points):
  """Returns a star in the scene, in which every edge crosses nearly all others."""
  angles = np.arange(points + 1) * 2 * np.pi * (points // 2 - 1) / points
  xy = np.stack([LEFT + 90 + 60 * np.cos(angles), TOP - 90 + 60 * np.sin(angles)], 1)
  return shapely.Polygon(xy).wkt


@pytest.mark.parametrize(("wkt", "message"), [
  ("GEOMETRYCOLLECTION (" * 100_000 + "POINT (0 0)" + ")" * 100_000, "no POLYGON or MULTIPOLYGON"),
  ("POLYGON (" * 100_000, "is damaged"),
  ("POINT (500001 2999999)", "no POLYGON"), ("LINESTRING (0 0, 1 1)", "no POLYGON"),
  ("POLYGON ((nan nan, 1 1, 2 2, nan nan))", "no POLYGON"), (5, "no POLYGON"), (["x"], "no POLYGON"),
  ("POLYGON ((1e999 0, 1 1, 2 2, 1e999 0))", "far outside the scene"),
  (f"POLYGON (({LEFT} {TOP}, 1e99 {TOP}, {LEFT} {TOP - 9}, {LEFT} {TOP}))", "far outside the scene"),
  (star(301), "crosses itself more than 2000 times"),
])
def test_an_outline_of_a_log_is_checked_before_it_is_used(maps, wkt, message):
  path = write_log(maps, line(1, wkt))
  begin = time.monotonic()
  with pytest.raises(ValueError, match=message) as caught:
    Session(Settings(input=str(maps)))
  assert str(path) in str(caught.value)
  assert time.monotonic() - begin < 5


ORIGINAL = {"number": 1, "class": "c", "geometry": box(1, 1, 5, 5), "mean_probability": None,
            "area_m2": None}


@pytest.mark.parametrize("original", [
  {"number": 1e999}, {"number": float("nan")}, {"number": "x"}, {"mean_probability": "x"},
  {"mean_probability": float("nan")}, {"area_m2": 1e999}, {"area_m2": []}, {"geometry": None},
])
def test_odd_values_of_a_log_name_the_line(maps, original):
  text = json.dumps({**json.loads(line(1, None)), "original": ORIGINAL | original})
  path = write_log(maps, line(2, box(1, 1, 5, 5)), text)
  with pytest.raises(ValueError, match="line 2 is damaged") as caught:
    Session(Settings(input=str(maps)))
  assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "5", '"x"', "null", "{}"])
def test_a_line_that_is_no_decision_is_named(maps, text):
  write_log(maps, text)
  with pytest.raises(ValueError, match=r"scene_tif\.jsonl, line 1 is damaged"):
    Session(Settings(input=str(maps)))


@pytest.mark.parametrize(("comment", "kept"), [
  ("a\0b", "a\\x00b"), ("a\ud800b", "a\\ud800b"), ("tab\tand\nline", "tab\tand\nline"),
])
def test_a_comment_of_any_letters_is_kept_and_read_again(maps, comment, kept):
  write_log(maps, line(1, box(1, 1, 5, 5), comment=comment))
  for _ in range(2):  # The second start must not take the first's file for an edited one.
    Session(Settings(input=str(maps)))
    fields = pyogrio.raw.read(maps / "review" / "scene_tif.gpkg", layer="review", columns=["comment"])
    assert kept in fields[3][0].tolist()
    assert not (maps / "review" / "edited").exists()


@pytest.mark.parametrize("threshold", [float("nan"), -0.5, 7, "x", [0.5]])
def test_an_odd_threshold_names_the_record(maps, threshold):
  path = maps / "scenes" / "scene_tif.json"
  record = json.loads(path.read_text())
  record["classes"]["landslide"]["threshold"] = threshold
  path.write_text(json.dumps(record))
  with pytest.raises(ValueError, match=r"scenes/scene_tif\.json is damaged"):
    Session(Settings(input=str(maps)))


@pytest.mark.parametrize("far", [1e6, 1e9, 1e14])
def test_an_outline_outside_the_scene_takes_little_time(maps, far):
  shape = f"POLYGON (({LEFT} {TOP}, {far} {TOP}, {LEFT} {TOP - 9}, {LEFT} {TOP}))"
  write_log(maps, line(1, shape), line(2, shape, "not_landslide"))
  begin = time.monotonic()
  assert Session(Settings(input=str(maps))).state()["decisions"]
  assert time.monotonic() - begin < 10


def test_a_bow_tie_is_repaired(maps):
  shape = f"POLYGON (({LEFT + 2} {TOP - 2}, {LEFT + 10} {TOP - 10}, {LEFT + 10} {TOP - 2}, " \
    f"{LEFT + 2} {TOP - 10}, {LEFT + 2} {TOP - 2}))"
  write_log(maps, line(1, shape))
  scene = Session(Settings(input=str(maps))).scenes[0]
  (decision,) = scene.log.state()[0].values()
  assert shapely.is_valid(decision.geometry)
  assert shapely.area(decision.geometry) == pytest.approx(32)


def test_many_drawings_are_subtracted_as_one_by_one(maps):
  generator = np.random.default_rng(3)
  corners = np.stack([generator.integers(0, WIDTH - 9, 60), generator.integers(0, HEIGHT - 9, 60)], 1)
  shapes = [box(x, y, x + 8, y + 8) for x, y in corners.tolist()]
  kinds = ["not_landslide" if n % 3 else "missed" for n in range(60)]
  write_log(maps, *[
    line(n, shape, kind, time=f"2026-01-01T00:{n:02d}:00+00:00")
    for n, (shape, kind) in enumerate(zip(shapes, kinds, strict=True))
  ])
  Session(Settings(input=str(maps)))
  path = maps / "review" / "scene_tif_reviewed.gpkg"
  found = shapely.from_wkb(pyogrio.raw.read(path)[2])
  expected = []
  for n in range(0, 60, 3):
    later = [shapely.from_wkt(s) for s, k in zip(shapes[n:], kinds[n:], strict=True) if "not" in k]
    expected.append(shapely.from_wkt(shapes[n]).difference(shapely.union_all(later)))
  expected = [shape for shape in expected if not shape.is_empty]
  assert len(found) == len(expected)
  assert all(a.equals(b) for a, b in zip(found, expected, strict=True))


def test_hundreds_of_overlapping_drawings_take_seconds(maps):
  count = 200
  wkt = lambda n: shapely.Polygon([
    (LEFT + n % 90, TOP), (LEFT + n % 90 + 3, TOP), (LEFT + n % 90 + 3, TOP - 190)]).wkt
  write_log(
    maps, *[line(n, wkt(n)) for n in range(count)],
    *[line(count + n, wkt(n), "not_landslide", time=WHERE.replace("01T", "02T")) for n in range(count)],
  )
  begin = time.monotonic()
  scene = Session(Settings(input=str(maps))).scenes[0]
  assert time.monotonic() - begin < 20
  rows, _ = products._rows(scene.map, *scene.log.state()[:2])
  assert products._inventory(scene.map, rows) == []


@pytest.mark.parametrize("size", [(8, 8), (3000, 2), (900_000, 90_000)])
def test_the_area_of_an_outline_takes_few_points(maps, size):
  grid = Session(Settings(input=str(maps))).scenes[0].map.grid
  shape = shapely.box(LEFT, TOP - 2 * size[1], LEFT + 2 * size[0], TOP)
  begin = time.monotonic()
  area = outlines.area_m2(shape, grid)
  assert time.monotonic() - begin < 3
  if size[0] < 1e5:
    assert area == pytest.approx(shape.area, rel=5e-3)  # The scale of UTM.


@pytest.mark.parametrize("kind", ["far", "line", "star", "NaN"])
def test_the_polygons_of_a_map_are_checked_as_well(maps, kind):
  path = maps / "polygons" / "scene_tif.gpkg"
  meta, _, wkb, data = pyogrio.raw.read(path)
  shape = {
    "far": shapely.box(LEFT, TOP, LEFT + 1e99, TOP + 1e9), "line": shapely.LineString([(0, 0), (1, 1)]),
    "star": shapely.from_wkt(star(301)), "NaN": shapely.Polygon([(0, 0), (np.nan, 1), (1, 1)]),
  }[kind]
  wkb[0] = shapely.to_wkb(shape)
  layer = pyogrio.list_layers(path)[0, 0]
  path.unlink()
  pyogrio.raw.write(path, wkb, data, meta["fields"].tolist(), layer=layer, driver="GPKG",
                    geometry_type="Unknown", crs=meta["crs"])
  with pytest.raises(ValueError, match=r"polygons/scene_tif\.gpkg cannot be read"):
    Session(Settings(input=str(maps)))


@pytest.mark.parametrize(("field", "value"), [
  ("id", np.nan), ("id", np.inf), ("id", "x"), ("area_m2", "x"), ("mean_probability", "x"),
])
def test_odd_values_of_a_map_s_polygons_name_the_file(maps, field, value):
  path = maps / "polygons" / "scene_tif.gpkg"
  meta, _, wkb, data = pyogrio.raw.read(path)
  names, layer = meta["fields"].tolist(), pyogrio.list_layers(path)[0, 0]
  data[names.index(field)] = np.array([value] * len(wkb), object if value == "x" else float)
  path.unlink()
  pyogrio.raw.write(path, wkb, data, names, layer=layer, driver="GPKG",
                    geometry_type="Polygon", crs=meta["crs"])
  with pytest.raises(ValueError, match=r"polygons/scene_tif\.gpkg cannot be read"):
    Session(Settings(input=str(maps)))

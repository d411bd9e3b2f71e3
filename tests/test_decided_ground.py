"""Maps that follow what somebody has decided of the ground: --mode=predict --review."""

import contextlib
import html
import json
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from rasterio.crs import CRS

from lgag_jax import config as configs
from lgag_jax.config import Config
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scene import open_scene
from lgag_jax.mapping import decided_ground, predict
from lgag_jax.options.mapping import Options
from lgag_jax.options.reviewing import Settings
from lgag_jax.options.tiling import Settings as TilingSettings
from lgag_jax.reviewing.session import Session
from lgag_jax.tiling import review_files, tile
from tests.conftest import make_small_config
from tests.test_label_reach import write_scene
from tests.test_reviewing import (  # noqa: F401
  BOXES,
  HEIGHT,
  NEW,
  OTHER,
  PLACE,
  WIDTH,
  box,
  decide,
  decision,
  keys_of,
  maps,
  on_ground,
  session,
  write_maps,
)
from tests.untrained import make_workdir

EVERYTHING = {"threshold": (1e-6,), "gate": 0.0, "min_area": 0.0}
NOTHING = {"threshold": (1.0,), "min_area": 0.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  config = configs.from_mapping(make_small_config(tmp_path_factory.mktemp("unused")))
  return predict.load_model(make_workdir(tmp_path_factory.mktemp("work"), config))


def mapped(model, scene, output, **options):
  """Maps a scene; returns its mask and its polygons in the scene's pixels."""
  result = predict.map_scenes(model, scene, output, Options(**options))
  with rasterio.open(next((output / "mask").glob("*.tif"))) as file:
    return file.read(1), result


def inside(*numbers):
  mask = np.zeros((HEIGHT, WIDTH), bool)
  for number in numbers:
    left, top, right, bottom = BOXES[number][:4]
    mask[top:bottom, left:right] = True
  return mask


def test_rejected_ground_is_empty_and_accepted_ground_is_mapped(session, maps, tmp_path, model):  # noqa: F811
  keys = keys_of(session)
  decide(session, (keys[1], decision("rejected")), (keys[2], decision("accepted")))
  decide(session, (f"0/{NEW}", decision("not_landslide", box(60, 60, 80, 70))))
  decide(session, (f"0/{OTHER}", decision("missed", box(20, 60, 30, 70))))
  session.close()
  scene, review = tmp_path / "scene.tif", str(maps / "review")
  drawn, missed = np.zeros((2, HEIGHT, WIDTH), bool)
  drawn[60:70, 60:80] = missed[60:70, 20:30] = True
  mask, result = mapped(model, scene, tmp_path / "all", review=review, **EVERYTHING)
  np.testing.assert_array_equal(mask == 0, inside(1) | drawn)
  (row,) = result.rows
  assert row["landslide_share"] == pytest.approx((mask == 1).mean(), abs=1e-6)
  mask, result = mapped(model, scene, tmp_path / "none", review=review, **NOTHING)
  np.testing.assert_array_equal(mask == 1, inside(2) | missed)
  assert result.rows[0]["landslide_landslides"] == 2
  record = json.loads((tmp_path / "none/scenes/scene_tif.json").read_text())
  assert f"--review={review}" in record["flags"]


def test_a_map_is_made_anew_when_decisions_change(session, maps, tmp_path, model):  # noqa: F811
  keys, scene, review = keys_of(session), tmp_path / "scene.tif", str(maps / "review")
  decide(session, (keys[2], decision("accepted")))
  session.write()
  output = tmp_path / "out"
  mask, _ = mapped(model, scene, output, review=review, **NOTHING)
  np.testing.assert_array_equal(mask == 1, inside(2))
  decide(session, (keys[2], decision("rejected")), (keys[3], decision("accepted")))
  session.write()
  mask, _ = mapped(model, scene, output, review=review, **NOTHING)
  np.testing.assert_array_equal(mask == 1, inside(3))


def test_shapes_with_decisions_drawn_in_a_gis_count_too(maps, tmp_path, model):  # noqa: F811
  shapes = [(on_ground(*BOXES[4][:4]), "missed"), (on_ground(100, 70, 104, 74), "not_landslide")]
  features = [
    {"type": "Feature", "properties": {"decision": word}, "geometry": shapely.geometry.mapping(shape)}
    for shape, word in shapes
  ]
  crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32644"}}
  content = {"type": "FeatureCollection", "crs": crs, "features": features}
  (tmp_path / "drawn.geojson").write_text(json.dumps(content))
  mask, _ = mapped(
    model, tmp_path / "scene.tif", tmp_path / "out", review=str(tmp_path / "drawn.geojson"), **NOTHING)
  expected = inside(4)
  expected[70:74, 100:104] = False
  np.testing.assert_array_equal(mask == 1, expected)


@pytest.mark.parametrize("wrong", ["missing", "of another scene", "no review", "unfinished"])
def test_a_review_that_does_not_fit_is_refused(session, maps, tmp_path, model, wrong):  # noqa: F811
  scene, review = tmp_path / "scene.tif", maps / "review"
  decide(session, (keys_of(session)[1], decision("rejected")))
  if wrong != "unfinished":
    session.close()
  if wrong == "missing":
    review = tmp_path / "nowhere"
  elif wrong == "of another scene":
    scene = scene.rename(tmp_path / "other.tif")
  elif wrong == "no review":
    review = maps / "polygons" / "scene_tif.gpkg"
  words = {
    "missing": "--review=.*no such file", "no review": "--review=.*is no review",
    "of another scene": r"reviews of scene\.tif, which --input does not name",
    "unfinished": "lacks the last decisions",
  }[wrong]
  with pytest.raises((ValueError, OSError), match=words):
    mapped(model, scene, tmp_path / "out", review=str(review), **NOTHING)
  assert not list((tmp_path / "out").glob("mask/*"))


def test_missing_data_stay_missing(session, maps, tmp_path, model):  # noqa: F811
  with rasterio.open(tmp_path / "scene.tif", "r+") as file:
    pixels = file.read()
    pixels[:, 4:8] = 0
    file.write(pixels)
    file.nodata = 0
  decide(session, (keys_of(session)[2], decision("accepted")))
  session.close()
  scene, review = tmp_path / "scene.tif", str(maps / "review")
  mask, _ = mapped(model, scene, tmp_path / "out", review=review, **NOTHING)
  expected = inside(2)
  expected[4:8] = False
  np.testing.assert_array_equal(mask == 1, expected)
  assert (mask[4:8] == 255).all()


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize(("systems", "name"), [
  (("EPSG:32632", "EPSG:32633"), "d.gpkg"), (("EPSG:32633", "EPSG:32645"), "d.shp"),
])
def test_decisions_without_a_system_are_of_scenes_of_one(tmp_path, model, systems, name):
  scenes = [write_scene(tmp_path / f"{n}.tif", crs=crs) for n, crs in enumerate(systems)]
  shape = shapely.to_wkb([shapely.box(500000, 4999360, 500640, 5000000)])
  for path, crs in ((tmp_path / name, None), (tmp_path / "with_crs.gpkg", systems[0])):
    pyogrio.raw.write(
      path, shape, [np.array(["not_landslide"], object)], ["decision"], crs=crs,
      geometry_type="Polygon")
  options = Options(review=str(tmp_path / name), **EVERYTHING)
  with pytest.raises(ValueError, match=rf"{name} is one file of labels for 2 scenes, but it has no"):
    predict.map_scenes(model, f"{tmp_path}/*.tif", tmp_path / "out", options)
  grids = {scene: open_scene(scene, 3).grid for scene in scenes}
  decided_ground.check_places(grids, Options(review=str(tmp_path / "with_crs.gpkg")))
  decided_ground.check_places({scenes[0]: grids[scenes[0]]}, options)


def unread(folder, stem, kind):
  """Makes the review of a map one that cannot be read."""
  path = folder / f"{stem}.gpkg"
  if kind == "gone":
    path.unlink()
  elif kind == "cut":
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  elif kind == "text":
    path.write_text("my notes")
  else:
    path.with_suffix(".jsonl").unlink()
    change = {
      "view": "CREATE VIEW mine AS SELECT * FROM review",
      "note": "UPDATE gpkg_metadata SET metadata = '{}'",
      "field": "ALTER TABLE review DROP COLUMN decision",
    }[kind]
    # In a process of its own: TensorFlow brings an SQLite without R-trees.
    script = "import sqlite3 as s, sys; s.connect(sys.argv[1]).execute(sys.argv[2]).connection.commit()"
    subprocess.run([sys.executable, "-c", script, path, change], check=True)


@pytest.fixture(scope="module")
def two_maps(tmp_path_factory):
  """Scenes and reviews of scene.tif and other.tif in one folder; something was decided on both."""
  folder = tmp_path_factory.mktemp("two")
  for name in ("scene.tif", "other.tif"):
    place = tmp_path_factory.mktemp("map")
    review = Session(Settings(input=str(write_maps(place, name=name))))
    decide(review, (keys_of(review)[2], decision("accepted")))
    review.close()
    shutil.copytree(place / "maps" / "review", folder / "reviews", dirs_exist_ok=True)
    shutil.copy(place / name, folder)
  return folder


@pytest.fixture
def two_reviews(two_maps, tmp_path):
  return shutil.copytree(two_maps, tmp_path, dirs_exist_ok=True) / "reviews"


@pytest.mark.parametrize("kind", ["gone", "cut", "text", "view", "note", "field"])
def test_a_review_that_cannot_be_read_is_not_passed_over(two_reviews, tmp_path, model, kind):
  unread(two_reviews, "other_tif", kind)
  scenes = str(tmp_path / "*.tif")
  match = r"other_tif\.gpkg cannot be read as the review of other\.tif"
  with pytest.raises(ValueError, match=match):
    predict.map_scenes(model, scenes, tmp_path / "out", Options(review=str(two_reviews), **NOTHING))
  assert not (tmp_path / "out").exists()
  for flags in ({"labels": two_reviews}, {"labels": two_reviews, "review": two_reviews}):
    settings = TilingSettings(
      input=scenes, output=str(tmp_path / "tiles"), tile_size=16,
      **{name: str(path) for name, path in flags.items()})
    with pytest.raises(ValueError, match=match):
      tile.cut(settings)
  assert not (tmp_path / "tiles").exists()
  decided_ground.check([tmp_path / "scene.tif"], Options(review=str(two_reviews)))


@pytest.mark.parametrize("left", ["nothing", "an empty log", "another file", "an unreadable inventory"])
def test_a_scene_without_a_review_in_the_folder_is_mapped(two_reviews, tmp_path, left):
  for path in two_reviews.glob("other_tif*"):
    path.unlink()
  if left == "an empty log":
    (two_reviews / "other_tif.jsonl").touch()
  elif left == "another file":
    (two_reviews / "other_png.gpkg").write_text("my notes")
  elif left == "an unreadable inventory":
    (two_reviews / "other_tif_reviewed.gpkg").write_text("my notes")
  options, scenes = Options(review=str(two_reviews)), [tmp_path / "scene.tif", tmp_path / "other.tif"]
  decided_ground.check(scenes, options)
  grid = Grid(HEIGHT, WIDTH, CRS.from_epsg(32644), PLACE)
  decisions, missing = (decided_ground.find(path, grid, options, Config()) for path in scenes)
  assert decisions.count == 1
  assert missing is None


@pytest.mark.parametrize("crs", [
  "+init={}:1 +type=crs", "+proj=utm +zone=33 +ellps=bessel +nadgrids={} +units=m +type=crs", "{}",
  'BOUNDCRS[SOURCECRS[{wkt}],TARGETCRS[{wkt}],ABRIDGEDTRANSFORMATION["x",METHOD["NTv2"],'
  'PARAMETERFILE["Latitude and longitude difference file","{}"]]]',
])
def test_a_review_whose_crs_names_a_file_opens_no_file(two_reviews, tmp_path, crs):
  path, pipe = two_reviews / "other_tif.gpkg", tmp_path / "pipe"
  os.mkfifo(pipe)  # PROJ would wait for it.
  crs = crs.replace("{wkt}", CRS.from_epsg(32644).to_wkt()).replace("{}", str(pipe))
  with contextlib.closing(sqlite3.connect(path)) as base:
    ((number, text),) = base.execute(
      "SELECT id, metadata FROM gpkg_metadata WHERE metadata LIKE '%lgag_review%'")
    note = re.search(r"\{.*\}", text)
    changed = json.dumps({**json.loads(html.unescape(note[0])), "crs": crs})
    base.execute(
      "UPDATE gpkg_metadata SET metadata = ? WHERE id = ?",
      (text.replace(note[0], html.escape(changed, quote=False)), number))
    base.commit()
  scene, grid = tmp_path / "other.tif", Grid(HEIGHT, WIDTH, CRS.from_epsg(32644), PLACE)
  begin = time.monotonic()
  with pytest.raises(ValueError, match=r"other_tif\.gpkg cannot be read as the review of other\.tif"):
    decided_ground.find(scene, grid, Options(review=str(two_reviews)), Config())
  assert time.monotonic() - begin < 5


DIGEST = "_0123456789abcdef"


@pytest.mark.parametrize(("stem", "scene", "expected"), [
  ("a_tif", "a.tif", True), (f"a_tif{DIGEST}", "a.tif", True), ("a_tif_reviewed", "a.tif", False),
  ("b_tif", "a.tif", False), ("ab_tif", "a.tif", False), (f"{'a' * 160}{DIGEST}", "a.tif", False),
  (f"{'a' * 183}{DIGEST}", f"{'a' * 240}.tif", True), (f"a_b_tif{DIGEST}", "a;b.tif", True),
])
def test_the_name_of_a_review_tells_its_scene(stem, scene, expected):
  assert review_files.may_be_of(stem, pathlib.Path(scene)) == expected

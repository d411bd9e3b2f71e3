"""Labels and decisions belong to the ground on which they were given."""

import contextlib
import dataclasses
import json
import sqlite3
import types
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scene_ground import SceneGround
from lgag_jax.labelling.answers import Answers
from lgag_jax.labelling.session import Session
from lgag_jax.mapping import decided_ground
from lgag_jax.options import mapping, reviewing
from lgag_jax.options.labelling import Settings
from lgag_jax.reviewing import session as reviews
from lgag_jax.tiling import labels, tile
from tests import test_reviewing

YES, NO = "landslide", "non-landslide"
SIDE, COUNT = 16, 4  # Pixels of a tile, and tiles along a side of the scene.
PLACE = Affine(10, 0, 500000, 0, -10, 5000000)
PIXELS = np.random.default_rng(0).integers(1, 255, (SIDE * COUNT, SIDE * COUNT, 3), np.uint8)

COUNTED = Affine(1, 0, 0, 0, -1, 0)


def write(path, pixels=PIXELS, place: Affine | None = PLACE, crs=32633, **options):
  located = {} if place is None else {"transform": place, "crs": CRS.from_epsg(crs)}
  with rasterio.open(
    path, "w", driver="GTiff" if path.suffix == ".tif" else "PNG", height=pixels.shape[0],
    width=pixels.shape[1], count=3, dtype=pixels.dtype, **located, **options,
  ) as file:
    file.write(np.moveaxis(pixels, -1, 0))


CHANGES = {  # From the scene, and to which one.
  "twice the resolution": (
    {}, {"pixels": PIXELS.repeat(2, 0).repeat(2, 1), "place": PLACE @ Affine.scale(0.5)},
    "it had 64 x 64 pixels, and now has 128 x 128"),
  "a cut": ({}, {"pixels": PIXELS[SIDE:]}, "it had 64 x 64 pixels, and now has 64 x 48"),
  "moved": (
    {}, {"place": PLACE @ Affine.translation(0, -5)},
    "it lay at 500000, 5000000 with pixels of 10 x 10, and now lies at 500000, 5000050 with"),
  "another pixel size": (
    {}, {"place": PLACE @ Affine.scale(2)}, "it lay .* now lies at .* pixels of 20 x 20"),
  "no place": ({}, {"place": None}, "it had a place on the ground, and now has none"),
  "another photograph": (
    {"place": None}, {"place": None, "pixels": PIXELS[::-1]}, "it showed something else"),
  "another photograph whose pixels are counted": (
    {"place": COUNTED}, {"place": COUNTED, "pixels": PIXELS[::-1]}, "it showed something else"),
}
SAME = {
  "the same": ({}, {}),
  "another CRS": ({}, {"crs": 32634}),
  "a rounded place": ({}, {"place": PLACE @ Affine.translation(1e-6, 0.2)}),
  "another image": ({}, {"pixels": 255 - PIXELS}),
  "a photograph whose pixels are counted": ({"place": COUNTED}, {"place": COUNTED, "zlevel": 1}),
  "the same photograph": ({"place": None}, {"place": None}),
  "a photograph saved again": ({"place": None}, {"place": None, "zlevel": 1}),
}


def settings(folder, **fields):
  scene = next(folder.glob("s.*"))
  return Settings(
    input=str(scene), output=str(folder / "labels"), tile_size=SIDE, learn=False, **fields)


@contextlib.contextmanager
def labelling(folder, **fields):
  session = Session(settings(folder, **fields))
  yield session
  session.close()


def answer(session):
  """Labels the upper half of the tiles as landslides."""
  view = session.view.index
  session.answer(
    view.version, [(n, YES if place.row < 2 else NO) for n, (_, place) in enumerate(view.tiles)])


def positives(folder):
  cut = dataclasses.replace(settings(folder).tiling(SIDE), block_buffer=0)
  rows, _ = tile.cut(dataclasses.replace(cut, output=str(folder / "tiles")))
  return {(row.row, row.col) for row in rows if row.label == YES}


@pytest.mark.parametrize("change", CHANGES)
def test_labels_of_another_ground_are_refused(tmp_path, change):
  before, after, words = CHANGES[change]
  scene = tmp_path / ("s.tif" if before.get("place", PLACE) else "s.png")
  write(scene, **before)
  with labelling(tmp_path) as session:
    answer(session)
  write(scene, **after)
  table = tmp_path / "labels/labels.csv"
  content = table.read_bytes()
  message = rf"labels\.csv, row 2 labels a tile of another .*s\.\w+: {words}"
  with pytest.raises(ValueError, match=message):
    positives(tmp_path)
  with pytest.raises(ValueError, match=message), labelling(tmp_path):
    pass
  other = tmp_path / "other.csv"
  table.rename(other)
  words = message.replace("labels", "other", 1)
  with pytest.raises(ValueError, match=words), labelling(tmp_path, merge=str(other)):
    pass
  assert other.read_bytes() == content
  assert not Answers(tmp_path / "labels", settings(tmp_path).tiling(SIDE)).latest


@pytest.mark.parametrize("change", SAME)
def test_labels_of_the_same_ground_are_read(tmp_path, change):
  before, after = SAME[change]
  scene = tmp_path / ("s.tif" if before.get("place", PLACE) else "s.png")
  write(scene, **before)
  with labelling(tmp_path) as session:
    answer(session)
  write(scene, **after)
  with labelling(tmp_path, merge=str(tmp_path / "labels/labels.csv")) as session:
    assert len(session.answers.latest) == COUNT**2
    assert session.merged and session.merged.agreed == COUNT**2
  assert positives(tmp_path) == {(row, col) for row in (0, 1) for col in range(COUNT)}


def test_an_earlier_table_is_read_and_goes_on_with_the_ground(tmp_path, caplog):
  write(scene := tmp_path / "s.tif")
  table = tmp_path / "labels/labels.csv"
  table.parent.mkdir()
  whole = f"scene,row,col,label,tile_size,time\ns.tif,0,0,{YES},{SIDE},2026-01-01T00:00:00\n"
  table.write_text(f"{whole}s.tif,0,1,{YES},{SIDE},20")  # Torn.
  with labelling(tmp_path) as session:
    assert set(session.answers.latest) == {("s.tif", 0, 0)}
    assert "removed its last row" in caplog.text
    assert table.with_suffix(".original.csv").read_text() == whole
    session.answer(session.view.index.version, [(5, NO)])
  time = session.answers.latest["s.tif", 1, 1].time
  assert table.read_text().splitlines()[1:] == [
    f"s.tif,0,0,{YES},{SIDE},,2026-01-01T00:00:00",
    f"s.tif,1,1,{NO},{SIDE},64x64 10 0 500000 0 -10 5000000,{time}",
  ]
  write(scene, place=PLACE @ Affine.translation(SIDE, 0))
  with pytest.raises(ValueError, match=r"labels\.csv, row 3 labels a tile of another"):
    positives(tmp_path)
  table.write_text(table.read_text().replace("64x64 10 0 500000 0 -10 5000000", "64x64 10"))
  with pytest.raises(ValueError, match=r"row 3 holds '64x64 10' in scene_grid, which is no grid"):
    positives(tmp_path)
  table.write_text(table.read_text().replace("64x64 10", ""))  # The remedy.
  assert positives(tmp_path) == {(0, 0)}


@pytest.mark.parametrize(
  "text", ["x", "64", "64x", "64x64 1", "64x64 a b c d e f", "64x64 1 2 3 4 5 6 7"])
def test_a_damaged_grid_is_no_grid(tmp_path, text):
  with pytest.raises(ValueError, match=r"values to unpack|invalid literal|could not convert"):
    SceneGround(tmp_path / "s.tif", Grid(64, 64, None, PLACE)).difference(text)


@pytest.mark.parametrize("corner", [0, 64])
def test_the_place_of_counted_pixels_in_an_earlier_text_is_the_same(tmp_path, corner):
  place = Affine(1, 0, 0, 0, -1, corner)
  write(tmp_path / "s.tif", place=place)
  ground = SceneGround(tmp_path / "s.tif", Grid(64, 64, None, place))
  assert ground.text.startswith("64x64 sha256:")
  assert not ground.difference(f"64x64 1 0 0 0 -1 {corner}")
  assert ground.difference("64x64 1 0 500 0 -1 700") == "it had a place on the ground, and now has none"


def test_a_scene_that_is_gone_is_told_by_its_size(tmp_path):
  ground = SceneGround(tmp_path / "s.png", Grid(64, 64, None, Affine.identity()))
  assert ground.text == "64x64"
  assert not ground.difference("64x64 sha256:0")
  assert not SceneGround(tmp_path / "s.tif", Grid(64, 64, None, PLACE)).difference("64x64")
  assert ground.difference("64x32 sha256:0")


IN_PIXELS = {"crs": None, "place": Affine.identity(), "name": "scene.png"}
MAPPED = test_reviewing.PLACE
MAP_CHANGES = {  # From one scene and its map, and to which.
  "moved": (
    {}, {"place": MAPPED @ Affine.translation(SIDE, 0)}, "it lay at 500000, 3000000 .* at 500032"),
  "reprojected": (
    {}, {"crs": 3857, "place": Affine(2.2, 0, 9e6, 0, -2.2, 3.1e6)}, "it lay at .* at 9000000, 3"),
  "another pixel size": ({}, {"place": MAPPED @ Affine.scale(2)}, "it lay .* with pixels of 4 x 4"),
  "another photograph": (IN_PIXELS, IN_PIXELS, "it showed something else"),
  "no place": ({}, {"place": Affine.identity(), "crs": None}, "it had a place on the ground, and now"),
}


@contextlib.contextmanager
def reviewing_maps(folder):
  session = reviews.Session(reviewing.Settings(input=str(folder / "maps")))
  yield session
  session.close()


def accept_first(folder):
  with reviewing_maps(folder) as session:
    key = test_reviewing.keys_of(session)[1]
    test_reviewing.decide(session, (key, test_reviewing.decision("accepted")))


def uses(folder):
  """Returns what reads a review: labels of tiles, decisions beside other labels, and a map."""
  review, scene = str(folder / "maps/review"), next(folder.glob("scene.*"))
  cut = test_reviewing.tiles(folder / "maps", input=str(scene))
  with rasterio.open(scene) as file:
    grid = Grid(file.height, file.width, file.crs, file.transform)
  config: Any = types.SimpleNamespace(data=types.SimpleNamespace(classes=(YES,), background=NO))

  def positives():
    with labels.open_labels(scene, {scene: grid}, cut) as label:
      every = tile.tile_grid.tiles(grid, cut)
      return {
        (t.row, t.col) for t in every if label(t, np.ones((SIDE, SIDE), bool))[0] == YES}

  return (
    positives,
    lambda: labels.open_decisions(scene, grid, dataclasses.replace(cut, review=review)),
    lambda: decided_ground.find(scene, grid, mapping.Options(review=review), config),
  )


@pytest.mark.parametrize("change", MAP_CHANGES)
def test_decisions_on_another_ground_are_refused(tmp_path, change):
  before, after, words = MAP_CHANGES[change]
  maps = test_reviewing.write_maps(tmp_path, **before)
  accept_first(tmp_path)
  assert uses(tmp_path)[0]() == {(0, 0)}
  test_reviewing.write_maps(tmp_path, key="second", **after)
  scene = next(tmp_path.glob("scene.*"))
  if before:  # The same map of other pixels.
    with rasterio.open(scene) as file:
      pixels = file.read()
    write(scene, np.moveaxis(255 - pixels, 0, -1), place=None)
  for use in uses(tmp_path):
    with pytest.raises(ValueError, match=rf"\.gpkg is a review of another .*{scene.name}: {words}"):
      use()
  log = next((maps / "review").glob("*.jsonl"))
  content = log.read_bytes()
  message = rf"\.jsonl holds decisions on another .*{scene.name}: {words}"
  with pytest.raises(ValueError, match=message), reviewing_maps(tmp_path):
    pass
  assert log.read_bytes() == content
  log.write_text("".join(
    json.dumps({k: v for k, v in json.loads(line).items() if k != "scene_grid"}) + "\n"
    for line in content.decode().splitlines()))
  with reviewing_maps(tmp_path) as session:  # The remedy; so is the log of an earlier release read.
    assert len(session.scenes[0].log.state()[0]) == 1


@pytest.mark.parametrize("after", [
  {}, {"place": MAPPED @ Affine.translation(1e-6, 0.2)}, {"boxes": {1: (2, 2, 14, 12, 90)}},
])
def test_decisions_on_the_same_ground_are_read(tmp_path, after):
  test_reviewing.write_maps(tmp_path)
  accept_first(tmp_path)
  test_reviewing.write_maps(tmp_path, key="second", **after)
  for use in uses(tmp_path):
    assert use()
  with reviewing_maps(tmp_path) as session:
    assert len(session.scenes[0].log.state()[0]) == 1
  assert uses(tmp_path)[0]() == {(0, 0)}


def test_a_corrected_crs_needs_a_review_of_the_new_map(tmp_path):
  test_reviewing.write_maps(tmp_path, crs=32643)
  accept_first(tmp_path)
  test_reviewing.write_maps(tmp_path, key="second", crs=32644)
  for use in uses(tmp_path):
    with pytest.raises(ValueError, match=r"holds outlines in .*EPSG:32643.* is in .*EPSG:32644.* now"):
      use()
  with reviewing_maps(tmp_path):
    pass
  assert uses(tmp_path)[0]() == {(0, 0)}


def test_a_review_of_an_earlier_release_is_read(tmp_path):
  maps = test_reviewing.write_maps(tmp_path)
  accept_first(tmp_path)
  database = sqlite3.connect(maps / "review/scene_tif.gpkg")
  for number, text in database.execute("SELECT id, metadata FROM gpkg_metadata").fetchall():
    assert "scene_grid" in text
    old = text.replace("scene_grid", "unknown_1").replace("crs", "unknown_2")
    database.execute("UPDATE gpkg_metadata SET metadata = ? WHERE id = ?", (old, number))
  database.commit()
  database.close()
  for use in uses(tmp_path):
    assert use()


def test_overviews_do_not_change_a_photograph(tmp_path):
  write(path := tmp_path / "s.tif", np.tile(PIXELS, (10, 10, 1)), place=None)
  grid = Grid(640, 640, None, Affine.identity())
  text, content = SceneGround(path, grid).text, path.read_bytes()
  with rasterio.open(path, "r+") as file:
    file.build_overviews([2, 4])
  assert path.read_bytes() != content
  assert SceneGround(path, grid).text == text
  with rasterio.open(path, "r+") as file:
    file.write(255 - file.read())
  assert SceneGround(path, grid).difference(text) == "it showed something else"

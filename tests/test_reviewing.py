"""Reviews of maps: decisions, their log, requests to the server, files for a GIS, labels of tiles."""

import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from starlette.testclient import TestClient

from lgag_jax.geo.grid import Grid
from lgag_jax.mapping import map_names, polygons, rasters, vectors
from lgag_jax.options.reviewing import Settings
from lgag_jax.options.tiling import Settings as TilingSettings
from lgag_jax.reviewing import outlines, server
from lgag_jax.reviewing.decisions import DecisionLog
from lgag_jax.reviewing.session import Session
from lgag_jax.tiling import tile
from tests.page_server import PageServer

HEIGHT, WIDTH, SIDE = 96, 128, 16
PLACE = Affine(2, 0, 500000, 0, -2, 3000000)
# Left, top, right and bottom in pixels, and mean probability in percent. Each has a tile of its own.
BOXES = {
  1: (2, 2, 14, 12, 90), 2: (34, 4, 46, 14, 55), 3: (64, 32, 80, 48, 70), 4: (98, 66, 110, 78, 55),
}
SECRET = "s" * 32
ROOT = pathlib.Path(__file__).parent.parent
NEW = "drawn-0123456789abcdef"
OTHER = "drawn-fedcba9876543210"


def write_maps(folder, *, crs=32644, place=PLACE, boxes=BOXES, key="first", name="scene.tif"):
  """Writes a scene and its map as --mode=predict does; returns the folder of maps."""
  maps, grid = folder / "maps", Grid(HEIGHT, WIDTH, CRS.from_epsg(crs) if crs else None, place)
  pixels = np.random.default_rng(1).integers(60, 120, (HEIGHT, WIDTH, 3), np.uint8)
  mask, scores = np.zeros((HEIGHT, WIDTH), np.uint8), np.full((HEIGHT, WIDTH), 20, np.uint8)
  for left, top, right, bottom, percent in boxes.values():
    mask[top:bottom, left:right], scores[top:bottom, left:right] = 1, percent
    pixels[top:bottom, left:right] += 100
  stem = name.replace(".", "_")
  if name.endswith(".png"):
    Image.fromarray(pixels).save(folder / name)
  else:
    write_raster(folder / name, np.moveaxis(pixels, -1, 0), grid)
  suffix = ".tif" if grid.georeferenced else ".png"
  products = [maps / kind / f"{stem}{suffix}" for kind in ("mask", "probability")]
  for path, values in zip(products, (mask, scores), strict=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_raster(path, values[None], grid)
  if grid.georeferenced:
    with rasters.open_map_raster(products[0], 1) as m, rasters.open_map_raster(products[1], 1) as p:
      (maps / "polygons").mkdir(exist_ok=True)
      paths = [maps / "polygons" / f"{stem}{suffix}" for suffix in (".gpkg", ".geojson")]
      products += vectors.write(polygons.trace(m, p, ("landslide",), name), grid, *paths)
  (maps / "overlay").mkdir(exist_ok=True)
  Image.fromarray(pixels).save(maps / "overlay" / f"{stem}.png")
  (maps / "scenes").mkdir(exist_ok=True)
  (maps / "scenes" / f"{stem}.json").write_text(json.dumps({
    "key": key, "file": name, "path": map_names.source_path(folder / name), "stem": stem,
    "classes": {"landslide": {}}, "files": [p.relative_to(maps).as_posix() for p in products],
  }))
  return maps


def write_raster(path, values, grid):
  place = {} if path.suffix == ".png" else {"transform": grid.transform, "crs": grid.crs}
  with rasterio.open(
    path, "w", driver="PNG" if path.suffix == ".png" else "GTiff", height=HEIGHT, width=WIDTH,
    count=len(values), dtype="uint8", **place,
  ) as file:
    file.write(values)


def box(left, top, right, bottom, *_):
  return [[[[left, top], [right, top], [right, bottom], [left, bottom]]]]


def keys_of(session):
  """Returns the keys of the features by the number of their box."""
  found = {}
  for item in session.state()["features"]:
    outline = session.outlines(item["scene"])[item["key"].split("/")[1]]
    points = np.array(outline[0][0])
    place = (*points.min(axis=0), *points.max(axis=0))
    found |= {n: item["key"] for n, b in BOXES.items() if b[:4] == place}
  return found


def decision(kind, outline=None, comment="", class_name="landslide"):
  return {"decision": kind, "class": class_name, "comment": comment, "outline": outline}


def decide(session, *given):
  session.decide(session.version, list(given))


def layer(path, name):
  meta, _, wkb, data = pyogrio.raw.read(path, layer=name)
  columns = dict(zip(meta["fields"].tolist(), data, strict=True))
  geometries = shapely.from_wkb(wkb)
  return [
    {"geometry": g} | {k: v[i] for k, v in columns.items()} for i, g in enumerate(geometries)
  ]


def on_ground(left, top, right, bottom, *_):
  (x, y), (u, v) = PLACE @ (left, top), PLACE @ (right, bottom)
  return shapely.box(x, v, u, y)


@pytest.fixture
def maps(tmp_path):
  return write_maps(tmp_path)


@pytest.fixture
def session(maps):
  return Session(Settings(input=str(maps)))


@pytest.fixture
def client(session):
  app = server.make_app(session, SECRET, "127.0.0.1")
  return TestClient(
    app, base_url=f"http://localhost:8765/{SECRET}/", headers={"Origin": "http://localhost:8765"}
  )


def test_decisions_come_back_and_the_last_one_counts(session, client, maps):
  state, keys = client.get("state").json(), keys_of(session)
  assert len(keys) == len(state["features"]) == 4
  assert {(f["probability"], f["pixels"]) for f in state["features"]} == {
    (0.9, 120), (0.55, 120), (0.7, 256), (0.55, 144)}
  given = [
    [keys[1], decision("rejected")], [keys[1], decision("accepted", comment="fresh, \"clear\"\n")],
    [keys[2], decision("rejected")], [keys[3], decision("redrawn", box(64, 32, 72, 48))],
    [f"0/{NEW}", decision("missed", box(10, 60, 20, 70))], [keys[4], decision("accepted")],
    [keys[4], decision("", class_name="")],
  ]
  for pair in given:
    response = client.post("answers", json={"version": state["version"], "answers": [pair]})
    assert response.json() == {"saved": 1}
  again = Session(session.settings).state()["decisions"]
  expected = dict(given[1:5])
  assert set(again) == set(expected)
  for key, value in expected.items():
    found = again[key]
    assert found | {"outline": None} == value | {"outline": None}
    assert (found["outline"] is None) == (value["outline"] is None)
    if found["outline"]:
      assert shapely.Polygon(found["outline"][0][0]).equals(shapely.Polygon(value["outline"][0][0]))
  lines = [json.loads(line) for line in (maps / "review/scene_tif.jsonl").read_text().splitlines()]
  assert [line["decision"] for line in lines] == [
    "rejected", "accepted", "rejected", "redrawn", "missed", "accepted", ""]
  originals = [shapely.from_wkt(line["original"]["geometry"]) for line in lines if "original" in line]
  assert [tuple(g.bounds) for g in originals] == [on_ground(*BOXES[n]).bounds for n in (1, 2, 3, 4)]


def test_a_torn_last_line_loses_no_other_decision(session, maps):
  keys, path = keys_of(session), maps / "review/scene_tif.jsonl"
  ground = session.scenes[0].log.ground
  decide(session, (keys[1], decision("accepted")))
  decide(session, (keys[2], decision("rejected")))
  whole = path.read_bytes()
  first = whole.index(b"\n") + 1
  for end in (first + 1, first + 20, len(whole) - 2, len(whole) - 1):
    path.write_bytes(whole[:end])
    latest = DecisionLog(path, ground).state()[0]
    expected = {keys[1][2:]: "accepted"} | ({keys[2][2:]: "rejected"} if end == len(whole) - 1 else {})
    assert {name: d.decision for name, d in latest.items()} == expected
    assert path.read_bytes().endswith(b"\n")
  path.write_bytes(b"{}\n" + whole)
  with pytest.raises(ValueError, match=r"scene_tif\.jsonl, line 1 is damaged"):
    DecisionLog(path, ground)


def test_a_gis_gets_every_original_and_the_final_inventory(session, maps):
  before = (maps / "polygons/scene_tif.gpkg").read_bytes()
  keys = keys_of(session)
  decide(session, (keys[1], decision("accepted", comment="sure")), (keys[2], decision("rejected")),
         (keys[3], decision("redrawn", box(64, 32, 72, 48))),
         (f"0/{NEW}", decision("missed", box(10, 60, 20, 70))))
  decide(session, (f"0/{OTHER}", decision("not_landslide", box(2, 2, 6, 12))))
  session.close()
  assert (maps / "polygons/scene_tif.gpkg").read_bytes() == before
  path = maps / "review/scene_tif.gpkg"
  rows = {row["feature"]: row for row in layer(path, "review")}
  shapes = {keys[n][2:]: on_ground(*BOXES[n]) for n in BOXES}
  originals = {row["feature"]: row["geometry"] for row in layer(path, "originals")}
  assert set(originals) == set(shapes)
  assert all(originals[name].equals(shapes[name]) for name in shapes)
  shapes |= {keys[3][2:]: on_ground(64, 32, 72, 48), NEW: on_ground(10, 60, 20, 70),
             OTHER: on_ground(2, 2, 6, 12)}
  assert {name: row["decision"] for name, row in rows.items()} == {
    keys[1][2:]: "accepted", keys[2][2:]: "rejected", keys[3][2:]: "redrawn", keys[4][2:]: "",
    NEW: "missed", OTHER: "not_landslide"}
  assert all(rows[name]["geometry"].equals(shape) for name, shape in shapes.items())
  assert rows[keys[1][2:]]["comment"] == "sure"
  assert rows[keys[1][2:]]["time"] > "2026"
  changed = rows[keys[3][2:]]
  assert changed["mapped_area_m2"] == pytest.approx(2 * changed["area_m2"], rel=1e-3)
  inventory = layer(maps / "review/scene_tif_reviewed.gpkg", "landslides")
  assert [row["status"] for row in inventory] == ["accepted", "redrawn", "missed"]
  expected = [on_ground(6, 2, 14, 12), on_ground(64, 32, 72, 48), on_ground(10, 60, 20, 70)]
  for row, shape in zip(inventory, expected, strict=True):
    assert row["geometry"].equals(shape)
    assert row["area_m2"] == pytest.approx(shape.area, rel=2e-3)  # UTM's scale is near 1 there.


def tiles(maps, **fields):
  return TilingSettings(**{
    "input": str(maps.parent / "scene.tif"), "output": str(maps.parent / "tiles"), "tile_size": SIDE,
    "labels": str(maps / "review"), "validation_fraction": 0.0, **fields,
  })


def read_mask(maps, row):
  with rasterio.open(maps.parent / "tiles" / row.mask) as file:
    return file.read(1)


@pytest.mark.parametrize("form", ["folder", "file"])
@pytest.mark.parametrize("unmapped", [False, True])
def test_decisions_become_labels_of_tiles(session, maps, form, unmapped):
  keys = keys_of(session)
  decide(session, (keys[1], decision("accepted")), (keys[2], decision("rejected")),
         (keys[3], decision("redrawn", box(64, 32, 72, 48))),  # The other half becomes background.
         (f"0/{NEW}", decision("missed", box(16, 64, 24, 72))),
         (f"0/{OTHER}", decision("not_landslide", box(2, 2, 4, 12))))  # Within an accepted one.
  session.close()
  labels = maps / "review" / ("scene_tif.gpkg" if form == "file" else "")
  rows, _ = tile.cut(tiles(maps, labels=str(labels), unmapped_background=unmapped))
  found = {(row.row, row.col): row for row in rows}
  positive = {(0, 0), (2, 4), (4, 1)}
  undecided = {(4, 6)}
  fractions = {(row.row, row.col): row.landslide_fraction for row in rows if row.label == "landslide"}
  assert fractions == {(0, 0): None, (2, 4): 0.5, (4, 1): None}  # Unknown where most of it is.
  for place, row in found.items():
    expected = "landslide" if place in positive else "non-landslide" if place == (0, 2) else "unknown"
    if unmapped and expected == "unknown" and place not in undecided:
      expected = "non-landslide"
    assert row.label == expected, place
  masks = {place: np.full((SIDE, SIDE), 255, np.uint8) for place in positive}
  masks[0, 0][2:12, 2:14] = 1
  masks[0, 0][2:12, 2:4] = 0
  masks[2, 4][:, :8], masks[2, 4][:, 8:] = 1, 0
  masks[4, 1][:8, :8] = 1
  for place, mask in masks.items():
    np.testing.assert_array_equal(read_mask(maps, found[place]), mask)
  with (maps.parent / "tiles/manifest.csv").open(newline="") as file:
    assert {r["label"] for r in csv.DictReader(file)} == {"landslide", "non-landslide"}


def test_few_decided_tiles_are_all_used_in_both_splits(session, maps):
  keys = keys_of(session)
  decide(session, *((keys[n], decision("accepted" if n in (1, 3) else "rejected")) for n in BOXES))
  session.close()
  rows, _ = tile.cut(tiles(maps, validation_fraction=0.5))
  splits = sorted((row.label, row.split) for row in rows if row.image)
  assert splits == sorted(
    (name, split) for name in ("landslide", "non-landslide") for split in ("train", "validation"))


@pytest.mark.parametrize("form", ["table", "polygons"])
def test_a_review_counts_before_other_labels(session, maps, tmp_path, form):
  keys = keys_of(session)
  decide(session, (keys[1], decision("accepted")), (keys[2], decision("rejected")),
         (f"0/{NEW}", decision("not_landslide", box(64, 32, 66, 33))))  # Too small to be negative.
  session.close()
  if form == "table":
    labels = tmp_path / "labels.csv"
    labels.write_text("row,col,label\n0,0,no\n0,2,yes\n2,4,yes\n5,5,no\n")
    expected = {(0, 0): "landslide", (0, 2): "non-landslide", (2, 4): "landslide",
                (5, 5): "non-landslide"}
  else:
    labels = tmp_path / "inventory.gpkg"
    shapes = [on_ground(*BOXES[n]) for n in (2, 3)]
    pyogrio.raw.write(
      labels, shapely.to_wkb(shapes), [], [], layer="a", driver="GPKG", geometry_type="Polygon",
      crs="EPSG:32644")
    expected = {(r, c): "non-landslide" for r in range(6) for c in range(8)}
    expected |= {(0, 0): "landslide", (2, 4): "landslide"}
  cut = tiles(maps, labels=str(labels), review=str(maps / "review"), min_fraction=0.01)
  rows, _ = tile.cut(cut)
  found = {(r.row, r.col): r for r in rows if r.label != "unknown"}
  assert {place: row.label for place, row in found.items()} == expected
  mask = np.full((SIDE, SIDE), 255, np.uint8)
  mask[2:12, 2:14] = 1
  np.testing.assert_array_equal(read_mask(maps, found[0, 0]), mask)
  if form == "polygons":
    mask = np.ones((SIDE, SIDE), np.uint8)
    mask[0, :2] = 0
    np.testing.assert_array_equal(read_mask(maps, found[2, 4]), mask)
  with pytest.raises(ValueError, match=r"--review=.*polygons is a folder without a review"):
    tile.cut(tiles(maps, labels=str(labels), review=str(maps / "polygons")))


def test_a_landslide_covers_a_rejection_and_a_drawing_covers_both(session, maps):
  keys = keys_of(session)
  decide(session, (keys[1], decision("redrawn", box(2, 2, 46, 14))), (keys[2], decision("rejected")))
  decide(session, (f"0/{NEW}", decision("not_landslide", box(30, 2, 40, 14))))
  decide(session, (f"0/{OTHER}", decision("missed", box(34, 2, 36, 14))))
  session.close()
  rows, _ = tile.cut(tiles(maps))
  row = next(row for row in rows if (row.row, row.col) == (0, 2))
  line = read_mask(maps, row)[8]
  np.testing.assert_array_equal(line, [0] * 2 + [1] * 2 + [0] * 4 + [1] * 6 + [255] * 2)


def test_wrong_uses_of_a_review_are_told(session, maps, tmp_path):
  keys = keys_of(session)
  decide(session, (keys[1], decision("accepted")))
  path = maps / "review/scene_tif.gpkg"
  with pytest.raises(ValueError, match=r"scene_tif\.gpkg lacks the last decisions in scene_tif\.jsonl"):
    tile.cut(tiles(maps))  # As after a kill.
  Session(session.settings)
  write_maps(tmp_path, name="other.tif")
  with pytest.raises(ValueError, match=r"holds reviews of scene\.tif, which --input does not name"):
    tile.cut(tiles(maps, input=str(tmp_path / "other.tif")))
  (tmp_path / "empty").mkdir()
  with pytest.raises(ValueError, match=r"--labels=.*empty is a folder without a review"):
    tile.cut(tiles(maps, labels=str(tmp_path / "empty")))
  with pytest.raises(ValueError, match=r"'landslide', which is not among the classes \(flow\)"):
    tile.cut(tiles(maps, classes=("flow",)))
  (tmp_path / "small").mkdir()
  with rasterio.open(tmp_path / "small/scene.tif", "w", driver="GTiff", height=50, width=50, count=3,
                     dtype="uint8", transform=PLACE, crs="EPSG:32644") as file:
    file.write(np.ones((3, 50, 50), np.uint8))
  with pytest.raises(ValueError, match=r"review of 96 x 128 pixels, but .*scene\.tif has 50 x 50"):
    tile.cut(tiles(maps, input=str(tmp_path / "small")))
  assert path.exists()
  (tmp_path / "nothing").mkdir()
  with pytest.raises(FileNotFoundError, match=r"--input=.*nothing holds no map"):
    Session(Settings(input=str(tmp_path / "nothing")))
  with pytest.raises(ValueError, match="--rgb_bands=1,2"):
    Settings(input="maps", rgb_bands=(1, 2))


@pytest.mark.parametrize("name", ["saved.gpkg", "saved.geojson", "saved.shp"])
def test_an_exported_review_is_never_an_inventory(session, maps, tmp_path, name):
  decide(session, (keys_of(session)[1], decision("rejected")))
  session.close()
  meta, _, wkb, data = pyogrio.raw.read(maps / "review/scene_tif.gpkg", layer="review")
  fields = [str(field) for field in meta["fields"]]
  pyogrio.raw.write(
    tmp_path / name, wkb, [column.astype(object) for column in data], fields,
    geometry_type="MultiPolygon", crs=meta["crs"])
  with pytest.raises(ValueError, match=rf"{name} .*it holds a review, in which rejected polygons"):
    tile.cut(tiles(maps, labels=str(tmp_path / name)))


def test_a_review_edited_in_a_gis_is_kept_and_can_be_used(session, maps):
  keys, path = keys_of(session), maps / "review/scene_tif.gpkg"
  decide(session, (keys[1], decision("accepted")))
  session.close()
  Session(session.settings)  # Not edited: nothing is moved.
  assert not (maps / "review/edited").exists()
  os.utime(path)
  edit(path, f"UPDATE review SET decision = 'rejected' WHERE feature = '{keys[1][2:]}'")
  Session(session.settings)
  (kept,) = (maps / "review/edited").iterdir()
  rows, _ = tile.cut(tiles(maps, labels=str(kept)))
  assert {(r.row, r.col) for r in rows if r.label == "non-landslide"} == {(0, 0)}
  rows, _ = tile.cut(tiles(maps, output=str(maps.parent / "again")))
  assert {(r.row, r.col) for r in rows if r.label == "landslide"} == {(0, 0)}


def test_polygons_added_in_a_gis_are_labels(session, maps, tmp_path):
  keys, path = keys_of(session), tmp_path / "mine.gpkg"
  decide(session, (keys[1], decision("accepted")))
  session.close()
  path.write_bytes((maps / "review/scene_tif.gpkg").read_bytes())
  shapes = [on_ground(2, 2, 6, 12), on_ground(16, 64, 24, 72)]
  pyogrio.raw.write(
    path, shapely.to_wkb([shapely.MultiPolygon([shape]) for shape in shapes]),
    [np.array(["not_landslide", "missed"], object), np.array([None, "landslide"], object)],
    ["decision", "class"], layer="review", driver="GPKG", geometry_type="MultiPolygon", append=True,
    crs="EPSG:32644",
  )
  rows, _ = tile.cut(tiles(maps, labels=str(path)))
  found = {(r.row, r.col): r for r in rows if r.label == "landslide"}
  assert set(found) == {(0, 0), (4, 1)}
  np.testing.assert_array_equal(
    read_mask(maps, found[0, 0])[8], [255] * 2 + [0] * 4 + [1] * 8 + [255] * 2)
  edit(path, "UPDATE review SET decision = 'maybe' WHERE decision = 'missed'")
  with pytest.raises(ValueError, match=r"mine\.gpkg holds the decision 'maybe': leave it empty"):
    tile.cut(tiles(maps, labels=str(path), output=str(tmp_path / "other")))


def edit(path, statement):
  """Changes a table of a GeoPackage, without its spatial index."""
  import sqlite3

  with sqlite3.connect(path) as database:
    triggers = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for (name,) in triggers:
      database.execute(f'DROP TRIGGER "{name}"')
    database.execute(statement)
  database.close()


def test_decisions_outlive_a_new_map(session, maps, tmp_path):
  keys = keys_of(session)
  decide(session, (keys[1], decision("accepted")), (keys[2], decision("rejected")))
  session.close()
  later = {n: b for n, b in BOXES.items() if n != 2} | {9: (34, 70, 46, 80, 80)}
  write_maps(tmp_path, boxes=later, key="second")
  again = Session(session.settings)
  assert again.version != session.version
  features = {f["key"]: f["origin"] for f in again.state()["features"]}
  assert features[keys[1]] == "map"
  assert features[keys[2]] == "earlier"
  assert len(features) == 5
  rows, _ = tile.cut(tiles(maps))
  labels = {(r.row, r.col): r.label for r in rows if r.label != "unknown"}
  assert labels == {(0, 0): "landslide", (0, 2): "non-landslide"}
  decide(again, (keys[2], decision("", class_name="")))
  assert keys[2] not in {f["key"] for f in again.state()["features"]}


@pytest.mark.parametrize("change", ["removed", "another size", "no image", "moved", "no place"])
def test_the_output_s_own_picture_stands_in_for_a_scene(maps, tmp_path, change):
  path = tmp_path / "scene.tif"
  if change == "removed":
    path.unlink()
  elif change == "no image":
    path.write_text("nothing")
  elif change in ("moved", "no place"):
    with rasterio.open(path, "r+") as file:
      moved = file.transform @ Affine.translation(10, 0)
      file.transform = moved if change == "moved" else Affine.identity()
  else:
    with rasterio.open(path, "w", driver="GTiff", height=9, width=9, count=3, dtype="uint8") as file:
      file.write(np.ones((3, 9, 9), np.uint8))
  session = Session(Settings(input=str(maps)))
  client = TestClient(server.make_app(session, SECRET, "127.0.0.1"),
                      base_url=f"http://localhost:8765/{SECRET}/")
  assert "scene.tif" in client.get("state").json()["scenes"][0]["problem"]
  assert client.get("map/0/0/0/0").status_code == 400
  assert client.get("picture/0").content == (maps / "overlay/scene_tif.png").read_bytes()


@pytest.mark.parametrize("remove", [
  lambda folder: folder.joinpath("scene_tif.gpkg").unlink(), shutil.rmtree,
  lambda folder: folder.rename(folder.with_name("polygons_old")),
])
def test_polygons_that_are_gone_are_not_traced_anew(maps, remove):
  remove(maps / "polygons")
  with pytest.raises(FileNotFoundError, match=r"polygons/scene_tif\.gpkg is missing: restore it"):
    Session(Settings(input=str(maps)))


def test_a_scene_without_a_georeference_is_reviewed_in_pixels(tmp_path):
  maps = write_maps(tmp_path, crs=None, place=Affine.identity(), name="scene.png")
  session = Session(Settings(input=str(maps)))
  keys = keys_of(session)
  assert len(keys) == 4
  decide(session, (keys[1], decision("accepted")), (keys[2], decision("rejected")))
  session.close()
  rows, _ = tile.cut(tiles(maps, input=str(tmp_path / "scene.png")))
  labels = {(r.row, r.col): r.label for r in rows if r.label != "unknown"}
  assert labels == {(0, 0): "landslide", (0, 2): "non-landslide"}


def test_classes_can_be_changed_and_label_their_pixels(tmp_path):
  maps = write_maps(tmp_path)
  record = json.loads((maps / "scenes/scene_tif.json").read_text())
  record["classes"] = {"landslide": {}, "flow": {}}
  (maps / "scenes/scene_tif.json").write_text(json.dumps(record))
  with rasterio.open(maps / "probability/scene_tif.tif") as file:
    profile, values = file.profile, file.read(1)
  with rasterio.open(maps / "probability/scene_tif.tif", "w", **(profile | {"count": 2})) as file:
    file.write(np.stack([values, values]))
  session = Session(Settings(input=str(maps)))
  keys = keys_of(session)
  drawn = decision("missed", box(40, 4, 46, 14), class_name="flow")
  decide(session, (keys[1], decision("accepted", class_name="flow")),
         (keys[2], decision("accepted")), (f"0/{NEW}", drawn), (keys[3], decision("rejected")))
  session.close()
  cut = tiles(maps, classes=("landslide", "flow"))
  rows, _ = tile.cut(cut)
  labels = {(r.row, r.col): r.label for r in rows if r.label != "unknown"}
  assert labels == {(0, 0): "flow", (2, 4): "non-landslide"}  # Two classes in a tile are uncertain.
  assert np.unique(read_mask(maps, next(r for r in rows if r.label == "flow"))).tolist() == [2, 255]
  statuses = [(r["class"], r["status"]) for r in layer(
    maps / "review/scene_tif_reviewed.gpkg", "landslides")]
  assert statuses == [("flow", "accepted"), ("landslide", "accepted"), ("flow", "missed")]


def test_cutting_removes_an_area(client):
  cut = {"scene": 0, "outline": box(10, 10, 30, 20), "area": box(15, 0, 20, 50)}
  (left, right) = sorted(client.post("cut", json=cut).json()["outline"])
  assert [sorted(map(tuple, part[0])) for part in (left, right)] == [
    [(10, 10), (10, 20), (15, 10), (15, 20)], [(20, 10), (20, 20), (30, 10), (30, 20)]]
  response = client.post("cut", json=cut | {"area": box(0, 0, 90, 90)})
  assert response.status_code == 400
  assert "no area" in response.json()["error"]


@pytest.mark.parametrize("outline", [
  None, [], [[]], [[[]]], [[[[1, 2], [3, 4]]]], [[[[1, 2], [3, float("inf")], [5, 5]]]], "x",
  [[[[1, 2, 3], [4, 5, 6], [7, 8, 10]]]], [[[["a", 1], [2, 3], [4, 5]]]], {"a": 1},
  box(500, 500, 600, 600), [[[[i % 90, i % 70] for i in range(outlines.MAX_POINTS + 1)]]],
  box(1, 1, 9, 1),
])
def test_what_is_no_outline_is_refused(session, client, outline):
  answers = [[f"0/{NEW}", decision("missed", outline)]]
  content = json.dumps({"version": session.version, "answers": answers})  # Also of infinity.
  response = client.post("answers", content=content, headers={"Content-Type": "application/json"})
  assert response.status_code == 400
  assert session.state()["decisions"] == {}


@pytest.mark.parametrize(("key", "value"), [
  ("0/nosuch", decision("accepted")), ("9/drawn-0123456789abcdef", decision("missed", box(1, 1, 9, 9))),
  ("0/drawn-../../etc", decision("missed", box(1, 1, 9, 9))), ("", decision("accepted")),
  (f"0/{NEW}", decision("accepted")), (f"0/{NEW}", decision("missed")),
  ("first", decision("missed", box(1, 1, 9, 9))), ("first", decision("accepted", box(1, 1, 9, 9))),
  ("first", decision("accepted", class_name="river")), ("first", decision("accepted", comment=7)),
  ("first", decision("accepted", comment="x" * 1001)), ("first", decision(["accepted"])),
  ("first", {}), ("first", decision("redrawn")),
])
def test_impossible_decisions_are_refused(session, client, key, value):
  key = keys_of(session)[1] if key == "first" else key
  response = client.post("answers", json={"version": session.version, "answers": [[key, value]]})
  assert response.status_code == 400
  assert (session.folder / "scene_tif.jsonl").read_bytes() == b""


@pytest.mark.parametrize(("path", "headers", "status"), [
  ("", {}, 200), ("state", {}, 200), ("outlines/0", {}, 200), ("map/0/0/0/0", {}, 200),
  ("files/review.js", {}, 200), ("files/leaflet/leaflet.js", {}, 200), ("files/saver.js", {}, 200),
  ("picture/0", {}, 200), ("", {"Host": "evil.example:8765"}, 403),
  ("state", {"Sec-Fetch-Site": "cross-site"}, 403), ("files/../server.py", {}, 404),
  ("files/%2e%2e/session.py", {}, 404), ("../../etc/passwd", {}, 403), ("scene_tif.jsonl", {}, 404),
  (".secret", {}, 404), ("outlines/7", {}, 400), ("map/0/9/0/0", {}, 400), ("map/0/0/9/9", {}, 400),
  ("map/0/99999999999999999999/0/0", {}, 400), ("picture/3", {}, 400), ("answers", {}, 405),
])
def test_only_the_page_and_its_pictures_are_served(client, path, headers, status):
  response = client.get(path, headers=headers)
  assert response.status_code == status
  assert "default-src 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize(("headers", "content", "status"), [
  ({"Origin": "http://evil.example"}, b"{}", 403), ({"Host": "evil.example"}, b"{}", 403),
  ({"Content-Type": "text/plain"}, b"{}", 415), ({}, b" " * ((1 << 20) + 1), 413), ({}, b"{", 400),
  ({}, b'{"version": "a", "answers": [["x", []]]}', 400), ({}, b'{"version": "a", "answers": []}', 409),
])
def test_only_the_page_can_decide(client, headers, content, status):
  for path in ("answers", "cut"):
    response = client.post(
      path, content=content, headers={"Content-Type": "application/json", **headers})
    assert response.status_code == (400 if path == "cut" and status == 409 else status)


def test_a_full_disk_is_told_and_the_decision_does_not_count(session, client, monkeypatch):
  def full(*_, **__):
    raise OSError(28, "No space left on device", "scene_tif.jsonl")

  monkeypatch.setattr("lgag_jax.reviewing.decisions.files.append_line", full)
  answers = [[keys_of(session)[1], decision("accepted")]]
  response = client.post("answers", json={"version": session.version, "answers": answers})
  assert response.status_code == 500
  assert "No space left" in response.json()["error"]
  assert session.state()["decisions"] == {}


def test_nothing_is_served_without_the_secret(session):
  client = TestClient(server.make_app(session, SECRET, "127.0.0.1"), base_url="http://localhost")
  for path in ("", "state", "files/review.js", "map/0/0/0/0"):
    assert client.get(f"/{'S' * 32}/{path}").status_code == 403


def reviewing_server(maps, *flags):
  return PageServer("--mode=review", f"--input={maps}", *flags)


@pytest.mark.slow
def test_a_killed_server_loses_no_decision(maps):
  process = reviewing_server(maps)
  state = process.request("state")
  keys = [feature["key"] for feature in state["features"]]
  for i, key in enumerate(keys[:3]):
    answers = [[key, decision(["accepted", "rejected"][i % 2])]]
    process.request("answers", {"version": state["version"], "answers": answers})
    if i == 1:
      process.end(signal.SIGKILL)
      process = reviewing_server(maps)
  other = subprocess.run(
    [sys.executable, "-m", "lgag_jax.main", "--mode=review", f"--input={maps}", "--no_browser"],
    cwd=ROOT, capture_output=True, text=True,
  )
  assert other.returncode == 1
  assert "is in use by process" in other.stderr
  decisions = process.request("state")["decisions"]
  assert [decisions[key]["decision"] for key in keys[:3]] == ["accepted", "rejected", "accepted"]
  printed = process.end(signal.SIGINT)
  assert process.process.returncode == 0
  assert "2 accepted, 0 redrawn, 1 rejected" in printed
  assert "Traceback" not in printed

"""Labels drawn in a GIS: points, lines and polygons that say what is a landslide and what is none."""

import logging
import math

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely

from lgag_jax.geo.reference import open_reference
from lgag_jax.options.reviewing import Settings as ReviewSettings
from lgag_jax.reviewing.session import Session
from lgag_jax.tiling import tile
from tests.test_foreign_layers import GRID
from tests.test_reviewing import BOXES, decide, decision, keys_of, write_maps
from tests.test_tile import NO, PLACE, SIDE, UNKNOWN, YES, options, write_layer, write_scene

# In pixels: a slide in tile (1, 2), a road through it and the tiles (1, 0) to (1, 3), clicks.
SLIDE = shapely.box(34, 18, 46, 30)
ROAD = shapely.LineString([(2, 24.5), (59.5, 24.5)])
SHORT = shapely.LineString([(66, 70.5), (70, 70.5)])  # In tile (4, 4).
YES_POINTS, NO_POINTS = ((100.5, 4.5), (5.5, 70.5)), ((120.5, 60.5), (101.5, 5.5), (80, 80))


def cut(folder, labels, **fields):
  settings = options(folder, labels=str(labels), validation_fraction=0.0, **fields)
  return {(r.row, r.col): r for r in tile.cut(settings)[0]}


def labels_of(rows):
  return {place: row.label for place, row in rows.items() if row.label in (YES, NO, "flow")}


def tiles_of(points):
  """Returns the tiles of points; those on a border belong to the tile below or to the right."""
  return {(math.floor(y / SIDE), math.floor(x / SIDE)) for x, y in points}


@pytest.fixture
def place(tmp_path):
  write_scene(tmp_path / "scene.tif")
  return tmp_path


@pytest.mark.parametrize("form", ["field", "two files", "decision", "DECISION", "numbers", "reals"])
def test_clicks_on_landslides_and_on_none_label_their_tiles(place, form, caplog):
  points, fields = shapely.points(YES_POINTS + NO_POINTS), {}
  words = {"field": (YES, NO), "decision": ("missed", "not_landslide"), "numbers": ("1", "0"),
           "reals": (1.0, 0.0)}
  if form == "two files":
    labels = write_layer(place / "slides.gpkg", points[:2])
    fields["negative_labels"] = str(write_layer(place / "none.gpkg", points[2:]))
  else:
    yes, no = words[form.lower()]
    name = form if form.lower() == "decision" else "kind"
    labels = write_layer(place / "clicks.gpkg", points, **{name: [yes] * 2 + [no] * 3})
    fields["field"] = "kind" if name == "kind" else ""
  caplog.set_level(logging.INFO)
  rows = cut(place, labels, **fields)
  expected = dict.fromkeys(tiles_of(NO_POINTS), NO) | dict.fromkeys(tiles_of(YES_POINTS), YES)
  assert len(expected) == 4  # One tile has a point of each kind: it shows a landslide.
  assert labels_of(rows) == expected
  assert not any(row.mask for row in rows.values())  # Points do not say which pixels are landslide.
  assert "2 shapes of landslides and 3 of none" in caplog.text
  assert "tiles without a shape are skipped" in caplog.text


def test_lines_and_polygons_are_labels_of_pixels(place):
  """A road is taken out of a slide, and makes its other tiles negative where it is long enough."""
  labels = write_layer(
    place / "drawn.gpkg", [ROAD, SLIDE, SHORT, shapely.Point(100.5, 4.5)],
    kind=[NO, YES, YES, "not_landslide"])
  rows = cut(place, labels, field="kind", min_pixels=13)
  assert labels_of(rows) == {
    (1, 0): NO, (1, 1): NO, (1, 2): YES, (4, 4): YES, (0, 6): NO}  # 12 pixels lie in tile (1, 3).
  with rasterio.open(place / "tiles" / rows[1, 2].mask) as file:
    mask = file.read(1)
  expected = np.full((SIDE, SIDE), 255, np.uint8)
  expected[2:14, 2:14] = 1
  expected[8] = 0
  np.testing.assert_array_equal(mask, expected)
  with rasterio.open(place / "tiles" / rows[4, 4].mask) as file:
    assert np.argwhere(file.read(1) == 1).tolist() == [[6, col] for col in range(2, 7)]


def test_shapes_of_several_layers_and_classes(place):
  path = place / "drawn.gpkg"
  for name, shapes, words in (
    ("areas", [SLIDE, shapely.box(66, 66, 78, 78)], ["slide", "flow"]), ("roads", [ROAD], ["none"]),
    ("clicks", [shapely.MultiPoint([(100.5, 4.5), (120.5, 4.5)])], ["flow"]),
  ):
    moved = shapely.transform(np.array(shapes), lambda p: np.array([PLACE @ tuple(q) for q in p]))
    pyogrio.raw.write(
      path, shapely.to_wkb(moved), [np.array(words, object)], ["kind"], layer=name,
      crs="EPSG:32644", geometry_type="Unknown", driver="GPKG")
  fields = {"field": "kind", "classes": ("slide", "flow"), "background": "none", "min_pixels": 12}
  rows = cut(place, path, **fields)
  found = {at: row.label for at, row in rows.items() if row.image}
  assert found == {(1, 0): "none", (1, 1): "none", (1, 2): "slide", (1, 3): "none", (4, 4): "flow",
                   (0, 6): "flow", (0, 7): "flow"}
  with pytest.raises(ValueError, match=r"3 layers: choose one with --layer"):
    cut(place, path, **{**fields, "field": "", "output": str(place / "other")})
  only = cut(place, path, **fields, layer="roads", output=str(place / "only"))
  assert {row.label for row in only.values() if row.image} == {"none"}


def test_few_drawn_tiles_are_dealt_to_both_splits(place):
  points = [(SIDE * col + 3.5, SIDE * row + 3.5) for row in (0, 1, 2) for col in range(6)]
  labels = write_layer(place / "clicks.gpkg", shapely.points(points), kind=[YES, NO] * 9)
  settings = options(place, labels=str(labels), field="kind", block_size=0, block_buffer=-1)
  rows, _ = tile.cut(settings)
  counts = {(r.label, r.split) for r in rows if r.image}
  assert counts == {(label, split) for label in (YES, NO) for split in ("train", "validation")}
  assert sum(1 for r in rows if r.image) == len(points)


@pytest.mark.parametrize("form", ["table", "polygons"])
def test_what_is_drawn_counts_before_other_labels_but_denies_no_landslide_beside_it(place, form):
  drawn = write_layer(
    place / "drawn.gpkg", [ROAD, shapely.Point(100.5, 4.5), shapely.box(16, 64, 31.9, 80)],
    decision=["not_landslide", "missed", "not_landslide"])
  if form == "table":
    labels = place / "labels.csv"
    labels.write_text("row,col,label\n1,2,yes\n1,0,no\n0,6,no\n5,5,yes\n")
    rows = cut(place, labels, review=str(drawn), min_pixels=10)
    # Beside the road there may be a landslide in the tiles that nobody has answered, (1, 1) and (1, 3).
    assert labels_of(rows) == {(1, 0): NO, (1, 2): YES, (0, 6): YES, (5, 5): YES, (4, 1): NO}
    with rasterio.open(place / "tiles" / rows[1, 2].mask) as file:  # The landslide is beside the road.
      assert {tuple(row) for row in file.read(1).tolist()} == {(255,) * SIDE, (0,) * SIDE}
    assert {at for at, row in rows.items() if row.mask} == {(1, 2), (0, 6)}
    return
  thin = shapely.box(17, 24, 31, 25)  # All of it is road.
  labels = write_layer(place / "inventory.gpkg", [SLIDE, thin])
  rows = cut(place, labels, review=str(drawn), min_pixels=10)
  assert {at for at, row in rows.items() if row.label == YES} == {(1, 2), (0, 6)}
  assert rows[1, 1].label == NO
  with rasterio.open(place / "tiles" / rows[1, 2].mask) as file:
    mask = file.read(1)
  assert (mask[8] == 0).all()
  assert mask[7, 2:14].all()


def test_a_layer_of_roads_added_to_a_review_in_a_gis_counts(tmp_path, caplog):
  maps = write_maps(tmp_path)
  session = Session(ReviewSettings(input=str(maps)))
  decide(session, (keys_of(session)[1], decision("accepted")))
  session.close()
  path = maps / "review/scene_tif.gpkg"
  for name, column in (("roads", "decision"), ("notes", "text")):
    line = shapely.LineString([PLACE @ (2, 6.5), PLACE @ (14, 6.5)])
    pyogrio.raw.write(
      path, shapely.to_wkb([line]), [np.array(["not_landslide"], object)], [column], layer=name,
      crs="EPSG:32644", geometry_type="LineString", driver="GPKG")
  settings = options(
    tmp_path, input=str(tmp_path / "scene.tif"), labels=str(path), validation_fraction=0.0)
  (row,) = [row for row in tile.cut(settings)[0] if row.label == YES]
  with rasterio.open(tmp_path / "tiles" / row.mask) as file:
    mask = file.read(1)
  left, top, right, bottom = BOXES[1][:4]
  expected = np.full((SIDE, SIDE), 255, np.uint8)
  expected[top:bottom, left:right] = 1
  expected[6, 2:15] = 0
  np.testing.assert_array_equal(mask, expected)
  assert "layer notes is not used, since it has no field decision" in caplog.text
  Session(session.settings)  # Writes the review again, but not over what was added.
  (kept,) = (maps / "review/edited").iterdir()
  assert {name for name, _ in pyogrio.list_layers(kept)} >= {"roads", "notes"}


@pytest.mark.parametrize(("shapes", "column", "fields", "message"), [
  ([ROAD], {}, {}, "holds lines: labels must be either"),
  ([ROAD, SLIDE], {"kind": [YES, YES]}, {"field": "kind"}, "holds polygons and lines"),
  ([SLIDE, SLIDE], {"kind": [YES, "perhaps"]}, {"field": "kind"}, "'perhaps', which is not among"),
  ([SLIDE, ROAD], {"kind": ["perhaps", NO]}, {"field": "kind"}, "a shape has the label 'perhaps'"),
  ([SLIDE, ROAD], {"kind": [None, NO]}, {"field": "kind"}, "a shape has the label ''"),
  ([SLIDE, ROAD], {"decision": ["accepted", "not_landslide"]}, {}, "has the decision 'accepted'"),
  ([SLIDE, ROAD], {"decision": ["missed", "not_landslide"]}, {"classes": ("a", "b")},
   "a missed landslide has the class ''"),
  ([SLIDE, ROAD], {"Decision": ["missed", "not landslide"]}, {}, "has the decision 'not landslide'"),
  ([shapely.Point()], {"decision": ["not_landslide"]}, {}, "holds no shape that can be read"),
  ([SLIDE], {}, {"negative_labels": "nowhere.gpkg"}, "--negative_labels=nowhere.gpkg: no such file"),
  ([SLIDE], {}, {"negative_labels": "drawn.gpkg"}, "is the file of --labels"),
  ([SLIDE], {}, {"negative_labels": "scene.tif"}, "scene.tif is no layer of shapes"),
  ([SLIDE], {}, {"negative_labels": "none.gpkg", "labels": "t.csv"}, "needs a layer of landslides"),
  ([SLIDE], {}, {"review": "none.gpkg"}, "none.gpkg is no review: .* a field decision"),
])
def test_nothing_is_taken_in_silence(place, shapes, column, fields, message, monkeypatch):
  monkeypatch.chdir(place)
  write_layer(place / "none.gpkg", [shapely.box(2, 2, 9, 9)])
  (place / "t.csv").write_text("row,col,label\n0,0,yes\n")
  labels = write_layer(place / "drawn.gpkg", shapes, **column)
  with pytest.raises((ValueError, OSError), match=message):
    cut(place, **{"labels": labels, **fields})


@pytest.mark.parametrize(("name", "words", "fields", "said"), [
  ("decision", ["missed", "not_landslide"], {}, "not_landslide"),
  ("decision", ["accepted", "rejected"], {}, "rejected"),
  ("DECISION", ["accepted", "Rejected"], {"field": "kind"}, "Rejected"),
  ("Decision", ["redrawn", None], {}, "undecided"),
  ("decision", ["ours", "No landslide"], {}, "No landslide"),
  ("decision", [1, 0], {}, "0"),
])
def test_decisions_are_no_inventory(place, name, words, fields, said):
  labels = write_layer(
    place / "drawn.gpkg", [SLIDE, SLIDE], **{"kind": [YES, YES], name: words})
  message = rf"some of its shapes are {said},.*Only --mode=tile"
  with pytest.raises(ValueError, match=message), open_reference(labels, GRID, (YES,), **fields):
    pass
  if said != "not_landslide":
    none = write_layer(place / "none.gpkg", [ROAD])
    for more in (fields, {"negative_labels": str(none), **fields}):
      with pytest.raises(ValueError, match=message):
        cut(place, labels, **more)


def test_an_inventory_stays_one(place, caplog):
  """A landslide's tile is positive and all others are negative, whatever other fields it has."""
  labels = write_layer(place / "inventory.gpkg", [SLIDE], kind=[YES], decision=["accepted by me"])
  for field in ("", "kind"):
    rows = cut(place, labels, field=field, output=str(place / f"out{field}"))
    assert rows[1, 2].label == YES
    assert sum(row.label == NO for row in rows.values()) > 40
    assert not any(row.label == UNKNOWN for row in rows.values())
    assert "whose field decision says 'accepted by me'" in caplog.text


@pytest.mark.parametrize(("labels", "review", "taught"), [
  ("table", True, True), ("drawn", False, True), ("table", False, False), ("inventory", True, False),
])
def test_only_what_is_drawn_teaches_pixels(place, labels, review, taught):
  """Masks of an inventory are for evaluation: its labels stay yes and no."""
  (place / "table.csv").write_text("row,col,label\n1,2,yes\n0,6,no\n")
  paths = {
    "table": place / "table.csv", "inventory": write_layer(place / "inventory.gpkg", [SLIDE]),
    "drawn": write_layer(place / "drawn.gpkg", [SLIDE, ROAD], decision=["missed", "not_landslide"]),
  }
  decisions = {"review": str(paths["drawn"])} if review else {}
  settings = options(place, labels=str(paths[labels]), validation_fraction=0.0, **decisions)
  _, command = tile.cut(settings)
  assert ("--config.loss.drawn_pixel_weight=1.0" in command) == taught


def test_a_mask_without_a_landslide_judges_nothing(place):
  """Validation has no mask that knows only what is none."""
  drawn = write_layer(place / "drawn.gpkg", [ROAD], decision=["not_landslide"])
  labels = place / "labels.csv"
  labels.write_text("row,col,label\n" + "".join(f"1,{col},yes\n0,{col},no\n" for col in range(4)))
  rows, _ = tile.cut(options(place, labels=str(labels), review=str(drawn), min_pixels=10))
  of = lambda split: [bool(row.mask) for row in rows if row.split == split and row.label == YES]
  assert any(of("train"))
  assert of("validation")
  assert not any(of("validation"))

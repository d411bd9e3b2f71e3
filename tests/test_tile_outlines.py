"""Tiles labelled in a GIS: outlines with an empty field `label`, which come back as labels."""

import csv
import shutil
import sqlite3

import numpy as np
import pyogrio.raw
import pytest
import shapely

from lgag_jax.cli import command_line
from lgag_jax.labelling import label
from lgag_jax.options.labelling import Settings as LabelSettings
from lgag_jax.options.tiling import Settings
from lgag_jax.tiling import tile
from tests import commands
from tests.test_reviewing import edit
from tests.test_tile import NO, SIDE, UNKNOWN, YES, write_scene

GIVEN = {(0, 0): YES, (0, 1): NO, (1, 5): YES, (5, 2): UNKNOWN, (5, 7): "no", (3, 6): NO}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  folder = tmp_path_factory.mktemp("written")
  for name in ("scene.tif", "two.tif"):
    write_scene(folder / name, crs=32644 if name == "scene.tif" else 32645)
  label.label(LabelSettings.for_sheets(settings(folder, labels="")))
  return folder


@pytest.fixture
def place(written, tmp_path):
  shutil.copytree(written, tmp_path, dirs_exist_ok=True)
  return tmp_path


def settings(folder, **fields):
  return Settings(**{
    "input": str(folder / "*.tif"), "output": str(folder / "tiles"), "tile_size": SIDE,
    "labels": str(folder / "tiles" / "tiles.gpkg"), **fields,
  })


def cut(folder, **fields):
  return tile.cut(settings(folder, output=str(folder / "cut"), validation_fraction=0.0, **fields))[0]


def fill(path, given):
  for (row, col), text in given.items():
    edit(path, f"UPDATE tiles SET label = '{text}' WHERE row = {row} AND col = {col}")


def labels_of(rows):
  return {(r.scene, r.row, r.col): r.label for r in rows if r.label not in ("no data", UNKNOWN)}


def test_outlines_filled_in_give_the_labels_that_the_table_gives(place):
  folder = place / "tiles"
  fill(folder / "tiles.gpkg", GIVEN)
  with (folder / "labels.csv").open(newline="") as file:
    lines = list(csv.DictReader(file))
  for line in lines:
    if line["scene"] == "scene.tif":
      line["label"] = GIVEN.get((int(line["row"]), int(line["col"])), "")
  with (place / "filled.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, lines[0])
    writer.writeheader()
    writer.writerows(lines)
  results = []
  for path in (folder / "tiles.gpkg", place / "filled.csv"):
    results.append(cut(place, labels=str(path)))
    (place / "cut").rename(place / f"cut_{path.stem}")
  expected = {
    ("scene.tif", *key): {"no": NO}.get(text, text) for key, text in GIVEN.items() if text != UNKNOWN
  }
  assert labels_of(results[0]) == labels_of(results[1]) == expected
  assert {r.image for r in results[0] if r.label == YES} == {
    "landslide/scene_r000_c000.tif", "landslide/scene_r001_c005.tif"}


@pytest.mark.parametrize("copy", ["saved.shp", "saved.geojson", "renamed.gpkg"])
def test_copies_that_a_gis_saves_in_another_system_are_read(place, copy):
  fill(place / "tiles" / "tiles.gpkg", GIVEN)
  meta, _, shapes, columns = pyogrio.raw.read(place / "tiles" / "tiles.gpkg", layer="tiles")
  from pyproj import Transformer

  convert = Transformer.from_crs(32644, 4326, always_xy=True).transform
  shapes = shapely.transform(shapely.from_wkb(shapes), lambda p: np.stack(convert(*p.T), axis=1))
  pyogrio.raw.write(place / copy, shapely.to_wkb(shapes), columns, meta["fields"], crs="EPSG:4326",
                    geometry_type="Polygon")
  assert labels_of(cut(place, labels=str(place / copy))) == {
    ("scene.tif", *key): {"no": NO}.get(text, text) for key, text in GIVEN.items() if text != UNKNOWN
  }


@pytest.mark.parametrize(("statement", "fields", "message"), [
  ("SELECT 1", {}, r"outlines of \d+ tiles, and their field label is empty: fill it in"),
  ("UPDATE tiles SET label = 'perhaps' WHERE fid = 3", {}, "feature 3 has the label 'perhaps'"),
  ("UPDATE tiles SET label = 'no'", {"tile_size": 32}, "tile of 16 pixels, but --tile_size=32"),
  ("UPDATE tiles SET label = 'no', tile_size = NULL", {}, "tile of unknown pixels"),
  ("UPDATE tiles SET label = 'no', row = row + 1 WHERE fid = 5", {}, "feature 5 does not lie where"),
  ("INSERT INTO tiles (geom, label) SELECT geom, 'no' FROM tiles WHERE fid = 4", {}, "the scene ''"),
  ("UPDATE tiles SET label = 'no', scene = 'other.tif' WHERE fid = 9", {}, "feature 9 names .*other"),
  ("INSERT INTO tiles (geom, label, scene, row, col, tile_size) SELECT geom, 'yes', scene, row, col, "
   "16 FROM tiles WHERE fid = 1", {}, "as landslide, but an earlier row labels it as unknown"),
])
def test_outlines_that_cannot_be_used_are_named(place, statement, fields, message):
  count = "UPDATE gpkg_ogr_contents SET feature_count = (SELECT count(*) FROM tiles)"
  for part in (statement, f"{count} WHERE table_name = 'tiles'"):
    edit(place / "tiles" / "tiles.gpkg", part)
  with pytest.raises(ValueError, match=message):
    cut(place, **fields)
  assert not (place / "cut").exists()


@pytest.mark.parametrize("changes", [
  ("ALTER TABLE tiles DROP COLUMN label",), ("ALTER TABLE tiles RENAME COLUMN label TO klasse",),
  ("ALTER TABLE tiles DROP COLUMN scene", "UPDATE tiles SET label = 'yes'"),
  ("ALTER TABLE tiles DROP COLUMN label", "ALTER TABLE tiles DROP COLUMN tile_size"),
])
def test_outlines_that_lost_a_field_are_no_landslides(place, changes):
  for change in changes:
    edit(place / "tiles" / "tiles.gpkg", change)
  with pytest.raises(ValueError, match=r"outlines of tiles without the field (label|scene), .*Restore"):
    cut(place, layer="tiles")



@pytest.mark.parametrize("stride", [SIDE // 2, 2 * SIDE])
@pytest.mark.parametrize("form", ["tiles.gpkg", "labels.csv"])
def test_answers_are_of_tiles_that_neither_overlap_nor_have_gaps(place, form, stride):
  path = place / "tiles" / form
  if form == "tiles.gpkg":
    fill(path, GIVEN)
  else:
    path.write_text(path.read_text().replace(f"scene.tif,1,5,,{SIDE}", f"scene.tif,1,5,{YES},{SIDE}"))
  for same in (0, SIDE):
    assert ("scene.tif", 1, 5) in labels_of(cut(place, labels=str(path), tile_stride=same))
    shutil.rmtree(place / "cut")
  words = "does not lie where" if form == "tiles.gpkg" else rf"16 pixels apart.*stride={stride}: leave"
  with pytest.raises(ValueError, match=rf"{form}.*{words}"):
    cut(place, labels=str(path), tile_stride=stride)


@pytest.mark.parametrize(("columns", "row"), [
  ("row,col,label", "2,10,yes"), ("x,y,label,tile_size", "500080,2999980,yes,16"),
])
def test_tables_by_hand_may_name_tiles_that_overlap(tmp_path, columns, row):
  write_scene(tmp_path / "scene.tif")
  (tmp_path / "hand.csv").write_text(f"{columns}\n{row}\n")
  rows = cut(tmp_path, labels=str(tmp_path / "hand.csv"), tile_stride=SIDE // 2)
  assert list(labels_of(rows).values()) == [YES]


def test_labels_filled_in_are_not_written_over(place, caplog):
  path = place / "tiles" / "tiles.gpkg"
  fill(path, {(0, 0): YES})
  before = path.read_bytes()
  again = LabelSettings.for_sheets(settings(place, labels=""))
  label.label(again)
  assert path.read_bytes() == before
  assert "tiles.gpkg holds labels that" in caplog.text
  path.unlink()
  label.label(LabelSettings.for_sheets(settings(place, labels="", tile_size=32)))  # Before any answer.
  with sqlite3.connect(path) as database:
    assert set(database.execute("SELECT tile_size, label FROM tiles")) == {(32, "")}
  database.close()
  text = (place / "tiles" / "labels.csv").read_text()
  assert ",,32," in text
  assert ",,16," not in text


def test_the_command_line_writes_them_and_prints_what_reads_them(tmp_path):
  write_scene(tmp_path / "scene.tif")
  source, output = f"--input={tmp_path}/scene.tif", f"--output={tmp_path}/labels"
  (result,) = commands.run([(["--mode=tile", source, output, "--tile_size=16"], {})])
  assert result.returncode == 0, result.stderr
  line = next(line for line in result.stdout.splitlines() if line.startswith("    lgag"))
  assert f"--labels={tmp_path}/labels/tiles.gpkg --tile_size=16" in line
  with pytest.raises(ValueError, match="--min_fraction needs --labels"):
    Settings(input="a", output="b", min_fraction=0.5)
  assert "labels" not in command_line.MODES["tile"].required

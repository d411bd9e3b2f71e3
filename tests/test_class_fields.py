"""Layers whose own fields deny that a shape is a landslide are refused, and others are taken."""

import json
import pathlib
import shlex

import numpy as np
import pyogrio.raw
import pytest
import shapely

from lgag_jax.geo import class_fields
from lgag_jax.geo.reference import open_reference
from lgag_jax.mapping import judge
from lgag_jax.options.mapping import Options, References
from lgag_jax.tiling import tile
from tests.test_crs_relation import write_raster
from tests.test_foreign_layers import GRID, OTHER, SQUARE, UTM, drawn, on_earth, whole
from tests.test_judge_scenes import config_of
from tests.test_tile import options, write_scene
from tests.test_tile import write_layer as write_tile_layer


def write_layer(path, field, values, *, crs="EPSG:32644"):
  column = np.array(values, None if isinstance(values[0], int) else object)
  if isinstance(values[0], bool):
    column = np.array(values, bool)
  pyogrio.raw.write(
    path, shapely.to_wkb(np.array([on_earth(SQUARE), on_earth(OTHER)], object)), [column], [field],
    crs=crs, geometry_type="Polygon",
  )
  return path


@pytest.mark.parametrize(("field", "values", "other", "where"), [
  ("class", ("landslide", "river"), "river", "class = 'landslide'"),
  ("CLASS", ("Landslide", "river"), "river", "CLASS = 'Landslide'"),
  ("label", ("landslide", "non-landslide"), "non-landslide", "label = 'landslide'"),
  ("Label", ("1", "0"), "0", "Label = '1'"),
  ("label", (1, 0), "0", "label = 1"),
  ("type", ("landslide", "no landslide"), "no landslide", "type = 'landslide'"),
  ("kind", ("slide's", "Not a landslide"), "Not a landslide", "kind = 'slide''s'"),
  ("landslide", (1, 0), "0", "landslide = 1"),
  ("DN", (0, 1), "0", "DN = 1"),  # Polygons of a raster, with those of its background.
  ("gridcode", (2, 0), "0", "gridcode = 2"),
  ("raster_val", (0, 255), "0", "raster_val = 255"),
  ("landslide", (True, False), "False", "landslide = 1"),
  ("landslide", ("yes", "no"), "no", "landslide = 'yes'"),
  ("status", ("accepted", "rejected"), "rejected", "status = 'accepted'"),
  ("status", ("stable", "active"), "stable", "status = 'active'"),  # The name of the background.
  ("type", ("nonlandslide", "nonlandslide"), "nonlandslide", ""),
  ("LS_Type", ("landslide", "non-landslide"), "non-landslide", "LS_Type = 'landslide'"),
  ("review_status", ("reviewed", "rejected"), "rejected", "review_status = 'reviewed'"),
  ("review", ("kept", "Rejected"), "Rejected", "review = 'kept'"),
  ("status", ("active", "deleted"), "deleted", "status = 'active'"),
  ("type", ("slide", "no slide"), "no slide", "type = 'slide'"),
  ("is_landslide", (0, 1), "0", "is_landslide = 1"),
  ("landslides", ("yes", "no"), "no", "landslides = 'yes'"),
  ("mask", (1, 0), "0", "mask = 1"), ("pred", (0, 1), "0", "pred = 1"),
  ("DN", (0, 0), "0", ""),  # Of a raster without any landslide.
])
def test_a_field_that_denies_a_landslide_is_refused(tmp_path, field, values, other, where):
  path = write_layer(tmp_path / "a.gpkg", field, values)
  with (
    pytest.raises(ValueError, match="cannot be read as labels") as error,
    open_reference(path, GRID, ("landslide",), background="stable"),
  ):
    pass
  assert f"{path} cannot be read as labels: its field {field} says {other!r}" in str(error.value)
  assert f"--field={field}." in str(error.value) and ("ogr2ogr" in str(error.value)) == bool(where)
  if where:  # Keeps one of the two shapes.
    kept = pyogrio.raw.read(path, where=where, columns=[])[2]
    assert len(kept) == 1 and f'ogr2ogr -where "{where}" new.gpkg' in str(error.value)


@pytest.mark.parametrize(("field", "values"), [
  ("type", ("slide", "flow")), ("Type", ("Landslide", "Rock fall")), ("kind", ("no data", "not known")),
  ("class", ("landslide", "landslide")), ("class", ("slide", "flow")), ("label", ("river", "river")),
  ("landslide", ("Randa", "Elm")), ("landslide", (0, 57)), ("status", ("inactive", "non-active")),
  ("label", (1, 1)), ("class", (0, 3)), ("landslide", ("yes", None)), ("class", ("landslide", None)),
  ("remark", ("landslide", "no landslide")), ("type", (0, 1)),
  ("DN", (1, 1)), ("value", (3, 12)), ("value", (0, 0)), ("class_id", (0, 0)),
  ("soil_type", ("clay", "no")),
])
@pytest.mark.parametrize("suffix", [".gpkg", ".shp"])
def test_other_fields_change_nothing(tmp_path, field, values, suffix):
  path = write_layer(tmp_path / f"a{suffix}", field, values)
  np.testing.assert_array_equal(whole(path), drawn(SQUARE, OTHER))


def test_no_value_becomes_a_command(tmp_path):
  path = write_layer(tmp_path / "a.gpkg", "type", ('x"; $(touch a)', "no landslide"))
  with pytest.raises(ValueError, match="cannot be read as labels") as error:
    whole(path)
  command = str(error.value).split("such as ")[-1].split(": ogr2ogr ")[1].split(". If")[0]
  assert shlex.split(command)[:2] == ["-where", "type = 'x\"; $(touch a)'"]


def test_a_named_field_is_taken(tmp_path):
  path = write_layer(tmp_path / "a.gpkg", "class", ("landslide", "river"))
  with open_reference(path, GRID, ("landslide", "river"), field="class") as reference:
    assert reference.kind == "polygons"


def test_an_evaluation_refuses_it(tmp_path, monkeypatch):
  scene = write_raster(tmp_path / "s.tif", np.full((3, 24, 30), 90, np.uint8), UTM)
  path = write_layer(tmp_path / "a.geojson", "class", ("landslide", "river"))
  assert "Polygon" in json.dumps(json.loads(path.read_text()))
  monkeypatch.setattr(judge.configs, "load", lambda path: config_of(("landslide",)))
  with pytest.raises(ValueError, match="its field class says 'river'"):
    judge.evaluate(tmp_path, scene, tmp_path / "out", Options(), References(labels=str(path)))


@pytest.mark.parametrize(("slides", "none", "message"), [
  ({"label": ["landslide", "non-landslide"]}, {}, "slides.gpkg .*its field label says 'non-landslide'"),
  ({}, {"label": ["landslide", "road"]}, "none.gpkg holds landslides: its field label"),
  ({}, {"Landslide": ["no", "yes"]}, "holds landslides: its field Landslide says 'yes'"),
  ({"type": ["slide", "flow"]}, {"type": ["road", "quarry"]}, ""),
])
def test_layers_of_landslides_and_of_none(tmp_path, slides, none, message):
  write_scene(tmp_path / "scene.tif")
  boxes = [shapely.box(34, 18, 46, 30), shapely.box(98, 50, 110, 62)]
  layers = [
    write_tile_layer(tmp_path / name, shapes, **fields)
    for name, shapes, fields in (
      ("slides.gpkg", boxes, slides), ("none.gpkg", [shapely.box(2, 66, 10, 78)] * 2, none))
  ]
  settings = options(
    tmp_path, labels=str(layers[0]), negative_labels=str(layers[1]), validation_fraction=0.0)
  if message:
    with pytest.raises(ValueError, match=message):
      tile.cut(settings)
  else:
    assert any(row.image for row in tile.cut(settings)[0])


@pytest.mark.parametrize(("column", "denied"), [
  ([1, 0, 2, 1], True), ([0, 2, 0], True), ([0, 1, 2], False), ([0, 2], False), ([1, 2, 2], False),
  ([0, 1, 2, 3, 3], False),
])
@pytest.mark.parametrize("field", ["landslide", "is_landslide", "class", "label"])
def test_repeated_codes_are_no_numbers_of_shapes(field, column, denied):
  check = lambda: class_fields.check_kinds(pathlib.Path("a.gpkg"), {field: column}, ("landslide",), "")
  if not denied:
    return check()
  with pytest.raises(ValueError, match=f"its field {field} says '0'"):
    check()


def test_empty_values_say_nothing():
  values = {"landslide": [1, None, float("nan")], "label": [None, ""], "status": []}
  class_fields.check_kinds(pathlib.Path("a.gpkg"), values, ("landslide",), "")
  with pytest.raises(ValueError, match="its field landslide says '0'"):
    class_fields.check_kinds(pathlib.Path("a.gpkg"), {"landslide": [None, 0]}, ("landslide",), "")

"""--layer and --field are refused for labels that have no layers or no fields."""

import numpy as np
import pytest

from lgag_jax.geo.reference import open_reference
from lgag_jax.mapping import judge
from lgag_jax.options.mapping import Options, References
from lgag_jax.options.reviewing import Settings as ReviewSettings
from lgag_jax.reviewing.session import Session
from lgag_jax.tiling import output, tile
from tests.test_class_fields import write_layer
from tests.test_crs_relation import write_raster
from tests.test_foreign_layers import GRID, UTM
from tests.test_judge_scenes import config_of
from tests.test_own_layers import tile_rows
from tests.test_reviewing import decide, decision, keys_of, tiles, write_maps
from tests.test_tile import options, write_scene

MASK = np.zeros((24, 30), np.uint8)
MASK[4:12, 3:9] = 1
FLAGS = [{"layer": "slides"}, {"field": "kind"}, {"layer": "slides", "field": "kind"}]


def refusal(flags, what):
  name, value = next(iter(flags.items()))
  return f"--{name}={value} cannot apply: .* is {what}, which has no {name} to choose"


@pytest.mark.parametrize("flags", FLAGS)
def test_a_raster_mask_has_neither(tmp_path, monkeypatch, flags):
  scene = write_raster(tmp_path / "s.tif", np.full((3, 24, 30), 90, np.uint8), UTM)
  mask = write_raster(tmp_path / "m.tif", MASK, UTM)
  settings = options(
    tmp_path, input=str(scene), labels=str(mask), tile_size=8, validation_fraction=0.0,
    **flags)
  with pytest.raises(ValueError, match=refusal(flags, "a raster mask")):
    tile.cut(settings)
  monkeypatch.setattr(judge.configs, "load", lambda path: config_of(("landslide",)))
  with pytest.raises(ValueError, match=refusal(flags, "a raster mask")):
    judge.evaluate(tmp_path, scene, tmp_path / "out", Options(), References(labels=str(mask), **flags))


@pytest.mark.parametrize(("flags", "what"), [
  ({"field": "kind"}, "of tiles"), ({"layer": "slides"}, "a table"),
  ({"layer": "slides", "field": "kind"}, "of tiles"),
])
def test_a_table_has_neither(tmp_path, flags, what):
  write_scene(tmp_path / "scene.tif")
  labels = tmp_path / "t.csv"
  labels.write_text("row,col,label\n0,0,1\n1,1,0\n")
  name = "field" if "field" in flags else "layer"
  with pytest.raises(ValueError, match=refusal({name: flags[name]}, what)):
    tile.cut(options(tmp_path, labels=str(labels), **flags))


def test_outlines_of_tiles_have_layers_but_no_field(tmp_path):
  scene = write_raster(tmp_path / "s.tif", np.full((3, 24, 30), 90, np.uint8), UTM)
  output.write_footprints(tile_rows(), tmp_path / "tiles.gpkg")
  fields = {"input": str(scene), "labels": str(tmp_path / "tiles.gpkg"), "tile_size": 8}
  fields |= {"output": str(tmp_path / "o"), "validation_fraction": 0}
  with pytest.raises(ValueError, match=refusal({"field": "label"}, "of tiles")):
    tile.cut(options(tmp_path, field="label", **fields))
  assert any(row.image for row in tile.cut(options(tmp_path, layer="tiles", **fields))[0])


@pytest.mark.parametrize("flags", FLAGS)
def test_a_review_has_neither(tmp_path, flags):
  maps = write_maps(tmp_path)
  session = Session(ReviewSettings(input=str(maps)))
  decide(session, (keys_of(session)[1], decision("accepted")))
  with pytest.raises(ValueError, match=refusal(flags, "a review")):
    tile.cut(tiles(maps, **flags))


def test_references_of_both_kinds_may_be_mixed(tmp_path):
  """The flags then choose in the layers."""
  mask = write_raster(tmp_path / "m.tif", MASK, UTM)
  layer = write_layer(tmp_path / "a.gpkg", "kind", ["a", "b"])
  with open_reference(mask, GRID, ("a", "b"), field="kind", masks=[mask, layer]) as reference:
    assert reference.kind == "raster"

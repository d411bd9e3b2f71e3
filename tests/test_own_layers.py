"""Layers that lgag wrote as labels: outlines of tiles are no landslides, landslides are taken."""

import dataclasses

import numpy as np
import pyogrio
import pytest
import shapely
from pyogrio import raw
from rasterio.crs import CRS

from lgag_jax.geo.reference import open_reference
from lgag_jax.mapping import judge, vectors
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.options.mapping import Options, References
from lgag_jax.options.tiling import Settings
from lgag_jax.tiling import output, tile
from tests.test_crs_relation import write_raster
from tests.test_foreign_layers import GRID, OTHER, SQUARE, UTM, drawn, on_earth, whole, write_layer
from tests.test_judge_scenes import config_of

WORDS = r"{name} .*outlines of tiles that lgag wrote.*Only --mode=tile reads.*Give the inventory"


def tile_rows(systems=(UTM,)):
  corners = np.array([(5e5, 3e6), (5e5 + 16, 3e6), (5e5 + 16, 3e6 - 16), (5e5, 3e6 - 16)])
  return [
    output.Row("s.tif", 0, col, label, "train", "a.tif", "", corners + np.array([16 * col, 0]), crs)
    for crs in systems for col, label in enumerate(("landslide", "no data"))
  ]


@pytest.mark.parametrize("copy", [
  "tiles.gpkg", "renamed.gpkg", "saved.shp", "saved.geojson", "edited.gpkg",
])
def test_outlines_of_tiles_are_no_landslides(tmp_path, monkeypatch, copy):
  path = tmp_path / copy
  output.write_footprints(tile_rows(), tmp_path / "tiles.gpkg")
  if copy == "renamed.gpkg":
    (tmp_path / "tiles.gpkg").rename(path)
  elif copy != "tiles.gpkg":  # As a GIS saves it: another layer name, other columns beside the tiles'.
    meta, _, geometries, columns = raw.read(tmp_path / "tiles.gpkg")
    fields = [*meta["fields"], "comment"] if copy == "edited.gpkg" else meta["fields"]
    columns = [*columns, columns[0]] if copy == "edited.gpkg" else columns
    raw.write(path, geometries, columns, fields, crs="EPSG:32644", geometry_type="Polygon")
  words = WORDS.format(name=copy)
  scene = write_raster(tmp_path / "s.tif", np.full((3, 24, 30), 90, np.uint8), UTM)
  if copy == "tiles.gpkg":  # Before a field for its classes is asked for.
    with pytest.raises(ValueError, match=words), open_reference(path, GRID, ("a", "b")):
      pass
  with pytest.raises(ValueError, match=words), open_reference(path, GRID, ("a",)):
    pass
  cut = Settings(input=str(scene), output=str(tmp_path / "o"), labels=str(path), tile_size=8)
  rows, _ = tile.cut(dataclasses.replace(cut, validation_fraction=0))  # The tiles' labels.
  assert [(row.row, row.col, row.label) for row in rows if row.image] == [(0, 0, "landslide")]
  monkeypatch.setattr(judge.configs, "load", lambda path: config_of(("landslide",)))
  with pytest.raises(ValueError, match=words):
    judge.evaluate(tmp_path, scene, tmp_path / "out", Options(), References(labels=str(path)))


def test_tiles_in_several_systems(tmp_path):
  path = tmp_path / "tiles.gpkg"
  output.write_footprints(tile_rows((UTM, CRS.from_epsg(32645))), path)
  assert pyogrio.list_layers(path)[:, 0].tolist() == ["tiles", "tiles_2"]
  for layer in ("", "tiles", "tiles_2"):
    with pytest.raises(ValueError, match=WORDS.format(name="tiles.gpkg")):
      whole(path, layer=layer)


def test_landslides_with_such_names_and_columns_are_labels(tmp_path):
  fields = ["label", "split", "image", "scene", "row", "col"]
  shapes = [on_earth(SQUARE), on_earth(OTHER.union(SQUARE.buffer(1, quad_segs=2)))]
  joined = write_layer(tmp_path / "joined.gpkg", shapes, fields=fields)
  few = write_layer(tmp_path / "tiles.gpkg", shapes[:1], fields=fields[:3])
  assert whole(joined).any()
  np.testing.assert_array_equal(whole(few), drawn(SQUARE))
  for layer in ("tiles_1", "tiles_2"):  # Nothing of them is read before one is chosen.
    raw.write(tmp_path / "two.gpkg", shapely.to_wkb(np.array(shapes[:1])), [], [], layer=layer,
              crs="EPSG:32644", geometry_type="Polygon", driver="GPKG")
  with pytest.raises(ValueError, match="2 layers: choose one with --layer, of tiles_1, tiles_2"):
    whole(tmp_path / "two.gpkg")


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_polygons_of_a_map_are_labels(tmp_path, suffix):
  shapes = [Landslide(number, "a", on_earth(outline), 1.0, 1.0, 0.5, 0.5, 1, "s.tif")
            for number, outline in enumerate((SQUARE, OTHER))]
  vectors.write(shapes, GRID, tmp_path / "a.gpkg", tmp_path / "a.geojson")
  np.testing.assert_array_equal(whole(tmp_path / f"a{suffix}"), drawn(SQUARE, OTHER))


def test_the_table_of_tiles_labels_them(tmp_path):
  """It is what ogr2ogr makes of the outlines."""
  rows = ["label,split,image,scene,row,col", "landslide,train,a.tif,s.tif,0,0", "no data,,,s.tif,0,1"]
  (tmp_path / "tiles.csv").write_text("\n".join(rows) + "\n")
  scene = write_raster(tmp_path / "s.tif", np.full((3, 24, 30), 90, np.uint8), UTM)
  settings = Settings(
    input=str(scene), output=str(tmp_path / "o"), labels=str(tmp_path / "tiles.csv"), tile_size=8,
    validation_fraction=0,
  )
  written, _ = tile.cut(settings)
  assert [(row.row, row.col, row.label) for row in written if row.image] == [(0, 0, "landslide")]

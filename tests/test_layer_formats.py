"""Labels of formats that lgag does not read: the message names file, formats and command."""

import numpy as np
import pytest
import shapely
from pyogrio import raw

from lgag_jax.geo import layer_formats
from lgag_jax.geo.reference import open_reference
from lgag_jax.mapping import reference_files
from lgag_jax.options.tiling import Settings
from lgag_jax.tiling import labels
from tests.test_foreign_layers import GRID, SQUARE, on_earth, whole, write_layer

READS = r"GeoPackage \(\.gpkg\), shapefiles \(\.shp\), GeoJSON \(\.geojson, \.json\) and raster masks"


def check_all_readers(path, scene, words):
  with pytest.raises(ValueError, match=words), open_reference(path, GRID, ("landslide",)):
    pass
  with pytest.raises(ValueError, match=words):
    reference_files.find([scene], str(path))
  with pytest.raises(ValueError, match=words):
    labels.check_scenes([scene], Settings(input=str(scene), output="o", labels=str(path)))


@pytest.mark.parametrize(("name", "words"), [
  ("a b.kml", r"is KML.*ogr2ogr 'a b\.gpkg' '.*a b\.kml'"), ("a.KMZ", "is KML.*ogr2ogr a.gpkg"),
  ("a.GML", r"is GML.*ogr2ogr a\.gpkg"), ("a.fgb", r"FlatGeobuf.*ogr2ogr a\.gpkg"),
  ("a.dxf", r"DXF.*ogr2ogr a\.gpkg .*a\.dxf -a_srs"), ("a.parquet", "GeoParquet.*ogr2ogr"),
  ("a.shp.zip", r"zipped.*ogr2ogr a\.shp\.gpkg /vsizip/"), ("a.tsv", "a table.*ogr2ogr.*X_POSSIBLE"),
  ("a.topojson", "TopoJSON.*ogr2ogr"), ("a.geojsonl", "sequence of GeoJSON.*ogr2ogr"),
  ("a.tab", "MapInfo.*ogr2ogr"), ("a.sqlite", "SpatiaLite.*ogr2ogr"),
  ("a.xlsx", "spreadsheet.*ogr2ogr"),
])
def test_files_of_other_formats(tmp_path, name, words):
  path = tmp_path / name
  path.write_text("<kml/>")
  check_all_readers(path, tmp_path / "s.tif", rf"{name}.* {words}")
  check_all_readers(path, tmp_path / "s.tif", READS)


def test_folders_and_parts_of_layers(tmp_path):
  settings = Settings(input="s.tif", output="o", labels=str(tmp_path))
  with pytest.raises(ValueError, match=rf"--labels={tmp_path} is a folder without a review"):
    labels.check_scenes([tmp_path / "s.tif"], settings)
  (tmp_path / "a.gdb").mkdir()
  check_all_readers(tmp_path / "a.gdb", tmp_path / "s.tif", r"a\.gdb is a file geodatabase.*ogr2ogr")
  write_layer(tmp_path / "a.shp", [on_earth(SQUARE)])
  for suffix in (".dbf", ".shx", ".prj"):
    path = tmp_path / f"a{suffix}"
    check_all_readers(path, tmp_path / "s.tif", rf"a\{suffix} is one part of a shapefile: give a\.shp")


@pytest.mark.parametrize("name", ["inventory", "a.txt", "a.xyz", "a.backup.1"])
def test_other_names_with_content_that_is_no_image(tmp_path, name):
  path = tmp_path / name
  path.write_text("<kml/>")
  words = rf"{name} cannot be opened as an image.*layer.*{READS}.*ogr2ogr"
  check_all_readers(path, tmp_path / "s.tif", words)


@pytest.mark.parametrize(("name", "content"), [
  ("a.geojson", '{"type": "Topology", "objects": {}}'), ("a.json", '{"rings": [[[1, 2]]]}'),
  ("a.gpkg", "<kml/>"), ("a.shp", "<gml/>"),
])
def test_another_format_under_a_known_suffix(tmp_path, name, content):
  path = tmp_path / name
  path.write_text(content)
  words = rf"{name} is not a valid .*{READS}.*ogr2ogr a\.gpkg"
  with pytest.raises(ValueError, match=words), open_reference(path, GRID, ("landslide",)):
    pass


@pytest.mark.parametrize("header", ["WKT,type", "id,geometry", "lon,lat,name", "X;Y"])
def test_an_inventory_as_a_table(tmp_path, header):
  path = tmp_path / "a.csv"
  path.write_text(f"{header}\n{header}\n")
  words = rf"a\.csv .*{READS}.*ogr2ogr a\.gpkg .*POSSIBLE_NAMES"
  check_all_readers(path, tmp_path / "s.tif", words)
  path.write_text("label,row,col\nlandslide,0,0\n")
  settings = Settings(input="s.tif", output="o", labels=str(path))
  labels.check_scenes([tmp_path / "s.tif"], settings)


def test_the_command_for_tables_finds_their_geometry(tmp_path):
  """The options are those of GDAL's driver, whatever calls it."""
  words = layer_formats.remedy(tmp_path / "a.csv").replace("'", "").split("-oo ")[1:]
  options = dict(word.split()[0].split("=") for word in words)
  for number, text in enumerate((
    'geometry,b\n"POINT (3 4)",1\n', "lon,lat\n3,4\n", "Longitude,Latitude\n3,4\n", "x,y\n3,4\n",
    'WKT\n"POINT (3 4)"\n',
  )):
    path = tmp_path / f"{number}.csv"
    path.write_text(text)
    _, _, geometries, _ = raw.read(path, **options)
    assert shapely.from_wkb(geometries[0]).equals(shapely.Point(3, 4))


def test_a_folder_whose_references_have_other_formats(tmp_path):
  scenes = [tmp_path / "in" / name for name in ("a.tif", "b.tif")]
  folder = tmp_path / "labels"
  folder.mkdir()
  for name in ("a.kml", "c.kml"):
    (folder / name).write_text("<kml/>")
  with pytest.raises(ValueError, match=r"a\.kml is KML.*ogr2ogr"):
    reference_files.find(scenes, str(folder))
  write_layer(folder / "a.gpkg", [on_earth(SQUARE)])
  assert reference_files.find(scenes, str(folder)) == {scenes[0]: folder / "a.gpkg"}
  assert np.any(whole(folder / "a.gpkg"))

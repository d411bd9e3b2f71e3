"""Each profile of attributes against its written schema, in the files as GDAL and JSON read them."""

import datetime
import json
import pathlib
import re

import jsonschema
import numpy as np
import pyarrow.parquet
import pyogrio.raw
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.terrain import Terrain
from lgag_jax.mapping import geoparquet, predict, qgis_style, schemas, vectors
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.mapping.schemas import PROFILES, Provenance
from lgag_jax.options.mapping import SCHEMAS, Options
from tests.test_map_names import model  # noqa: F401
from tests.test_mapping import batch_sizes, picture, write_scene  # noqa: F401

ROOT = pathlib.Path(__file__).parent.parent
_PLACES = {  # CRS and transform.
  "utm": ("EPSG:32633", (10, 0, 5e5, 0, -10, 5e6)),
  "degrees": ("EPSG:4326", (1e-4, 0, 9, 0, -1e-4, 46)),
  "no crs": (None, (10, 0, 5e5, 0, -10, 5e6)),
}
_ARROW = {
  "OFTString": "string", "OFTReal": "double", "OFTInteger64": "int64", "OFTInteger": "int32",
  "OFSTBoolean": "bool", "OFTDate": "date32[day]",
}
_FULL = Provenance(
  0.5, "lgag on a trunk, step 9", (0.5,), "Storm 'é' 滑坡", "2024-02-29", "dem.tif", "scène.tif",
  "2023-08-01")


def written_schema(name):
  schema = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text())
  jsonschema.Draft202012Validator.check_schema(schema)
  return schema


def landslides(grid, *, placed):
  """Returns one landslide of which all is known, and one of which nothing is."""
  to_scene = lambda box: shapely.transform(box, lambda p: np.stack(grid.transform @ tuple(p.T), axis=1))
  known = Landslide(
    1, "slide", to_scene(shapely.box(2, 3, 9, 8)), 25_000.0 if placed else None, 900.0, 0.8, 0.9, 35,
    "scène.tif", "0123456789abcdef", "high", 70.0, 50.0, 90.0, True, False,
    Terrain(20.0, 40.0, 359.5, 100.0, 180.5, 0.9), 15.5, 45.2,
  )
  unknown = Landslide(
    2, "flow", to_scene(shapely.box(12, 13, 14, 15)), 400.0 if placed else None, None, None, None, 4,
    "scène.tif", "fedcba9876543210",
  )
  return [known, unknown]


def write(folder, name, place="utm", provenance=_FULL):
  """Writes two polygons; returns GeoPackage, GeoJSON. The GeoParquet is a.parquet."""
  crs, transform = _PLACES[place]
  grid = Grid(20, 20, CRS.from_user_input(crs) if crs else None, Affine(*transform))
  paths = folder / "a.gpkg", folder / "a.geojson"
  with geoparquet.create(folder / "a.parquet", provenance, PROFILES[name]) as table:
    vectors.write(landslides(grid, placed=bool(crs)), grid, *paths, provenance, PROFILES[name], table)
  return paths


@pytest.mark.parametrize("provenance", [_FULL, Provenance(source="a.tif")], ids=["full", "bare"])
@pytest.mark.parametrize("place", _PLACES)
@pytest.mark.parametrize("name", PROFILES)
def test_files_validate_against_the_written_schema(tmp_path, name, place, provenance):
  schema = written_schema(name)
  gpkg, geojson = write(tmp_path, name, place, provenance)
  info = pyogrio.read_info(gpkg, layer="landslides")
  assert info["driver"] == "GPKG" and info["features"] == 2 and info["geometry_type"] == "Polygon"
  wanted = [
    (key, value["ogrType"], value.get("ogrSubtype", "OFSTNone"))
    for key, value in schema["properties"].items()
  ]
  assert list(zip(info["fields"], info["ogr_types"], info["ogr_subtypes"], strict=True)) == wanted
  assert list(schema["properties"]) == schema["required"] == [f.name for f in PROFILES[name].fields]
  if place == "no crs":
    assert not geojson.exists()
    return
  features = json.loads(geojson.read_text())["features"]
  assert pyogrio.read_info(geojson)["features"] == len(features) == 2
  validator = jsonschema.Draft202012Validator(schema)
  for feature in features:
    assert list(validator.iter_errors(feature["properties"])) == []
    assert shapely.geometry.shape(feature["geometry"]).is_valid
  broken = {**features[0]["properties"], "surprise": 1}
  assert list(validator.iter_errors(broken))  # The schema can refuse.
  table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
  columns = [(column, _ARROW[kind if kind in _ARROW else ogr]) for column, ogr, kind in wanted]
  assert [(f.name, str(f.type)) for f in table.schema] == [*columns, ("geometry", "binary")]
  for row, feature in zip(table.to_pylist(), features, strict=True):
    outline = shapely.from_wkb(row.pop("geometry"))
    assert outline.equals_exact(shapely.geometry.shape(feature["geometry"]), 1e-6, normalize=True)
    row = {key: v.isoformat() if isinstance(v, datetime.date) else v for key, v in row.items()}
    assert list(validator.iter_errors(row)) == [] and row == feature["properties"]


def properties(folder, name, provenance=_FULL):
  _, geojson = write(folder, name, "utm", provenance)
  return [feature["properties"] for feature in json.loads(geojson.read_text())["features"]]


def test_the_plain_profile_tells_everything(tmp_path):
  known, unknown = properties(tmp_path, "plain")
  assert (known["slope_mean_deg"], known["aspect_deg"], known["height_range_m"]) == (20, 359.5, 80.5)
  assert (known["image_date"], known["event"], known["dem"]) == ("2024-02-29", _FULL.event, "dem.tif")
  assert known["touches_nodata"] is True and known["touches_border"] is False
  assert unknown["slope_mean_deg"] is unknown["confidence"] is unknown["length_m"] is None


def test_the_usgs_profile(tmp_path):
  known, unknown = properties(tmp_path, "usgs")
  assert known == {
    "USGS_ID": None, "Date_Min": "2023-08-01", "Date_Max": "2024-02-29", "Fatalities": None,
    "Confidence": 3, "LS_Type": "slide", "Inventory": "Storm 'é' 滑坡", "Inv_URL": None,
    "Info_Source": "scène.tif, imagery of 2024-02-29, compared with imagery of 2023-08-01, "
    "0.5 m per pixel",
    "Notes": "Storm 'é' 滑坡; slide; confidence high; not reviewed; id 0123456789abcdef; lgag_jax "
             f"{schemas.__version__}", "Lat_N": 45.2, "Lon_W": 15.5,
  }
  assert unknown["Confidence"] is None and unknown["Lat_N"] is None
  assert properties(tmp_path, "usgs", Provenance())[0]["Info_Source"] == "scène.tif"


def test_the_copernicus_profile_and_its_table_of_sources(tmp_path):
  known, _ = properties(tmp_path, "copernicus_ems")
  assert (known["event_type"], known["obj_desc"]) == ("6-Mass Movement", "Landslide")
  assert (known["det_method"], known["dmg_src_id"], known["area"]) == ("Automatic extraction", 1, 2.5)
  gpkg = tmp_path / "a.gpkg"
  assert pyogrio.list_layers(gpkg)[:, 0].tolist() == ["landslides", "source"]
  meta, _, _, columns = pyogrio.raw.read(gpkg, layer="source")
  row = {name: column.tolist() for name, column in zip(meta["fields"], columns, strict=True)}
  assert row == {
    "source_nam": ["scène.tif"], "src_date": ["29/02/2024"], "source_tm": [None],
    "sensor_gsd": ["0.5 m"], "eventphase": ["Post-event"], "src_id": [1],
  }
  assert pyogrio.list_layers(write(tmp_path, "plain")[0])[:, 0].tolist() == ["landslides"]


def test_the_flag_names_the_profiles():
  assert tuple(PROFILES) == SCHEMAS
  with pytest.raises(ValueError, match="--schema=shp: must be one of plain, usgs, copernicus_ems"):
    Options(schema="shp")
  for name, profile in PROFILES.items():
    names = [field.name for field in profile.fields]
    assert profile.class_field in (*names, "")
    style = qgis_style.polygon_style(("slide", "flow"), profile.class_field)
    assert (f'attr="{profile.class_field}"' in style) == bool(profile.class_field), name


def test_the_page_of_events_tells_every_attribute_of_the_agencies():
  text = (ROOT / "docs" / "events.md").read_text().split("## Profiles of agencies")[1]
  for name, heading in (("usgs", "### USGS"), ("copernicus_ems", "### Copernicus EMS")):
    section = text.split(heading)[1].split("\n### ")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    named = [word for cell in cells for word in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted(written_schema(name)["required"])


@pytest.mark.usefixtures("batch_sizes")
@pytest.mark.parametrize("name", PROFILES)
def test_a_map_has_the_profile_that_was_asked_for(model, tmp_path, name):  # noqa: F811
  scene = write_scene(tmp_path / "a.tif", picture(64, 64))
  options = Options(event="Storm", image_date="2024-02-29", min_area=0, schema=name)
  predict.map_scenes(model, scene, tmp_path / "maps", options)
  features = json.loads((tmp_path / "maps/polygons/a_tif.geojson").read_text())["features"]
  assert features
  validator = jsonschema.Draft202012Validator(written_schema(name))
  assert [error for f in features for error in validator.iter_errors(f["properties"])] == []

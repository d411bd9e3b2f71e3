"""Untrusted layers: GDAL opens no other file, URL or pipe for them, whatever hides in their text."""

import contextlib
import json
import pathlib
import sqlite3

import numpy as np
import pyogrio
import pytest
import shapely
from pyogrio.errors import DataSourceError

from lgag_jax.geo import geometry_parts, geopackage_checks, layer_files
from lgag_jax.tiling import review_files
from tests.opened_files import make_pipe, opens
from tests.test_hostile_images import server  # noqa: F401
from tests.test_named_files import BOUND, definition
from tests.test_reference import SQUARE, on_earth, whole, write_layer

READ = """
import sys, pyogrio
info = pyogrio.read_info(sys.argv[1])
print(info["driver"], info["features"])
"""


def geojson(folder, name="a.geojson", **members):
  """Writes a valid layer with more members; returns its path."""
  ring = shapely.get_coordinates(on_earth(SQUARE)).tolist()
  geometry = {"type": "Polygon", "coordinates": [ring]}
  feature = {"type": "Feature", "properties": {}, "geometry": geometry}
  crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32644"}}
  layer = {**members, "type": "FeatureCollection", "crs": crs, "features": [feature]}
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(layer))
  return path


def vrt(source):
  layer = f"<OGRVRTLayer name='other'><SrcDataSource>{source}</SrcDataSource></OGRVRTLayer>"
  return f"<OGRVRTDataSource>{layer}</OGRVRTDataSource>"


@pytest.mark.parametrize("kind", ["file", "url", "pipe", "entities"])
def test_text_in_a_geojson_is_only_text(tmp_path, server, kind):  # noqa: F811
  """Because of the text in it, another driver takes the file for its own."""
  url, requests = server
  pipe, other = make_pipe(tmp_path), write_layer(tmp_path / "other.gpkg", [on_earth(SQUARE)] * 7)
  source = {"url": f"/vsicurl/{url}/x.geojson", "pipe": pipe}.get(kind, other)
  if kind == "entities":
    command = f"gdal vector pipeline ! read {other} ! write --of=stream streamed_dataset"
    content = json.dumps({"type": "gdal_streamed_alg", "command_line": command})
    source = "".join(f"&#{byte};" for byte in content.encode())
  path = geojson(tmp_path, note=vrt(source))
  opened, printed = opens(pipe, READ, path)
  real = {"pipe": opened, "url": bool(requests)}.get(kind, "OGR_VRT 7" in printed)
  assert real  # The attack is real.
  requests.clear()
  np.testing.assert_array_equal(whole(path), whole(geojson(tmp_path / "plain")))
  assert not requests


@pytest.mark.parametrize("kind", ["link", "url", "ogcwkt", "name"])
def test_a_geojson_names_its_crs_and_links_to_none(tmp_path, server, kind):  # noqa: F811
  url, requests = server
  pipe = make_pipe(tmp_path)
  crs = {
    "link": {"type": "link", "properties": {"href": f"{url}/x", "type": "proj4"}},
    "url": {"type": "url", "properties": {"url": f"{url}/x"}},
    "ogcwkt": {"type": "link", "properties": {"href": f"{url}/x", "type": "ogcwkt"}},
    "name": {"type": "name", "properties": {"name": BOUND.format(pipe)}},
  }[kind]
  path = geojson(tmp_path)
  path.write_text(json.dumps({**json.loads(path.read_text()), "crs": crs}))
  opened, _ = opens(pipe, READ, path)
  assert opened or requests  # The attack is real.
  requests.clear()
  with pytest.raises(ValueError, match=r"a\.geojson cannot be read as labels: its CRS .* is no name"):
    whole(path)
  geometry = json.loads(path.read_text())
  geometry["features"][0]["geometry"]["crs"] = geometry.pop("crs")
  path.write_text(json.dumps(geometry))
  with pytest.raises(ValueError, match=r"a\.geojson cannot be read as labels"):
    whole(path)
  assert not requests


@pytest.mark.parametrize("name", [
  "urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:4326", "urn:ogc:def:crs:EPSG::32644"])
def test_names_of_crss_are_read(tmp_path, name):
  path = geojson(tmp_path)
  crs = {"type": "name", "properties": {"name": name}}
  path.write_text(json.dumps({**json.loads(path.read_text()), "crs": crs}))
  assert pyogrio.read_info(layer_files.source(path)[1])["crs"] == pyogrio.read_info(path)["crs"]


@pytest.mark.parametrize("name", [
  "https:x.geojson", "s3:x.geojson", "zip:x.geojson", "s3:x.gpkg", "zip:x.shp"])
def test_a_relative_name_is_a_file(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  write_layer(tmp_path / f"x{pathlib.Path(name).suffix}", [on_earth(SQUARE)], kind="Polygon")
  for file in tmp_path.glob("x.*"):
    file.rename(f"{name.rpartition('.')[0]}{file.suffix}")
  with pytest.raises(DataSourceError):
    pyogrio.read_info(name)  # The attack is real: GDAL takes the name for an address.
  assert whole(pathlib.Path(name)).any()


@pytest.mark.parametrize(("suffix", "kind", "change"), [
  *((s, kind, None) for s in (".shp", ".gpkg") for kind in ("nadgrids", "geoidgrids", "bound")),
  (".shp", "nadgrids", "lines"), (".gpkg", "nadgrids", "bytes"),
])
def test_the_crs_of_a_layer_names_no_file(tmp_path, suffix, kind, change):
  pipe = make_pipe(tmp_path)
  path = write_layer(tmp_path / f"a{suffix}", [on_earth(SQUARE)], kind="Polygon")
  text = definition(kind, pipe)
  if change == "lines":  # GDAL joins them.
    text = text.replace("nadgrids", "nadgr\nids")
  if suffix == ".shp":
    path.with_suffix(".prj").write_text(text)
  else:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
      database.execute(
        "UPDATE gpkg_spatial_ref_sys SET organization='x', organization_coordsys_id=7, definition=? "
        "WHERE srs_id=32644", (text.encode() if change == "bytes" else text,))
  crs = "import sys, pyogrio, pyproj\ncrs = pyogrio.read_info(sys.argv[1])['crs']\n"
  transform = 'pyproj.Transformer.from_crs(crs, "EPSG:4326").transform(5e5, 3e6)'
  opened, _ = opens(pipe, crs + transform, path)
  assert opened or (suffix, kind) == (".shp", "bound")  # The attack is real.
  with pytest.raises(ValueError, match=rf"a\{suffix} cannot be read as labels: its CRS names other"):
    whole(path)


ENDLESS = "(WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n)"


def with_schema(path, *texts, drop=()):
  """Adds views and virtual tables to a GeoPackage, whatever this SQLite knows of them."""
  with contextlib.closing(sqlite3.connect(path)) as database, database:
    database.execute("PRAGMA foreign_keys=OFF")
    for name in drop:
      database.execute(f"DROP TABLE {name}")
    database.execute("PRAGMA writable_schema=1")
    for text in texts:
      if "VIEW" in text:
        database.execute(text)
      else:
        database.execute("INSERT INTO sqlite_master VALUES ('table', 'b', 'b', 0, ?)", (text,))
  return path


@pytest.mark.parametrize(("texts", "drop"), [
  ([f"CREATE VIEW gpkg_spatial_ref_sys AS SELECT * FROM {ENDLESS}"], ["gpkg_spatial_ref_sys"]),
  ([f"CREATE VIEW a AS SELECT x AS fid, NULL AS geom FROM {ENDLESS}"], ["a"]),
  (["CREATE VIEW b AS SELECT * FROM a"], []),
  (["CREATE VIEW st_spatial_ref_sys AS SELECT abs(1)"], []),
  (["CREATE VIRTUAL TABLE b USING VirtualShape('x', 'UTF-8', 4326)"], []),
  (["CREATE/**/VIRTUAL TABLE b USING VirtualShape('x', 'UTF-8', 4326)"], []),
])
def test_what_runs_in_a_geopackage_is_refused(tmp_path, texts, drop):
  path = with_schema(write_layer(tmp_path / "a.gpkg", [on_earth(SQUARE)]), *texts, drop=drop)
  with pytest.raises(ValueError, match=r"a\.gpkg cannot be read as labels: it holds a view or a virt"):
    whole(path)
  assert review_files.describe(path) is None


def test_a_table_of_another_file_in_a_geopackage_is_not_opened(tmp_path):
  pipe = make_pipe(tmp_path)
  (tmp_path / "pipe").rename(tmp_path / "other.shx")
  path = with_schema(
    write_layer(tmp_path / "a.gpkg", [on_earth(SQUARE)]),
    "CREATE VIEW a AS SELECT 1 AS fid, NULL AS geom FROM b",
    f"CREATE VIRTUAL TABLE b USING VirtualShape('{tmp_path}/other', 'UTF-8', 32644)", drop=["a"],
  )
  code = "import sys, pyogrio\nprint(pyogrio.read_info(sys.argv[1])['features'])"
  opened, text = opens(pipe.with_name("other.shx"), code, path)
  assert opened or "no such module" in text  # The attack is real where GDAL has SpatiaLite.
  with pytest.raises(ValueError, match="view or a virtual table"):
    whole(path)


@pytest.mark.parametrize("suffix", [".cpg", ".DBF", ".qix"])
def test_a_pipe_beside_a_shapefile_is_not_opened(tmp_path, suffix):
  path = write_layer(tmp_path / "a.shp", [on_earth(SQUARE)], kind="Polygon")
  path.with_suffix(suffix).unlink(missing_ok=True)
  make_pipe(tmp_path).rename(path.with_suffix(suffix))
  with pytest.raises(ValueError, match=rf"a\.shp cannot be read .*: a\{suffix} beside it is not a reg"):
    whole(path)


def test_a_geopackage_of_very_many_tables_is_refused(tmp_path, monkeypatch):
  path = write_layer(tmp_path / "a.gpkg", [on_earth(SQUARE)])
  with contextlib.closing(sqlite3.connect(path)) as database, database:
    for number in range(20):
      database.execute(f"CREATE TABLE t{number} (a)")
  assert whole(path).any()
  monkeypatch.setattr(geopackage_checks, "_MAX_TABLES", 20)
  with pytest.raises(ValueError, match=r"a\.gpkg cannot be read .*holds \d+ tables, more than the 20"):
    whole(path)


def test_generated_columns_in_a_geopackage_are_refused(tmp_path):
  path = write_layer(tmp_path / "a.gpkg", [on_earth(SQUARE)])
  with contextlib.closing(sqlite3.connect(path)) as database, database:
    database.execute("ALTER TABLE a ADD COLUMN b AS (zeroblob(100000000))")
  with pytest.raises(ValueError, match=r"a\.gpkg cannot be read .*'a' holds generated columns"):
    whole(path)


def test_a_geopackage_with_the_views_of_the_standard_is_read(tmp_path):
  path = write_layer(tmp_path / "a.gpkg", [on_earth(SQUARE)])
  with contextlib.closing(sqlite3.connect(path)) as database, database:
    database.execute("CREATE VIEW st_spatial_ref_sys AS SELECT srs_id FROM gpkg_spatial_ref_sys")
    database.execute("CREATE INDEX i ON a (fid)")
  assert whole(path).any()


@pytest.mark.parametrize("features", [
  "{}," * 40 + "{}", '{"geometry":[' + "[]," * 40 + "[]]}", "[" * 50,
])
def test_a_geojson_of_many_parts_is_refused_before_it_is_parsed(tmp_path, monkeypatch, features):
  path = tmp_path / "a.geojson"
  path.write_text(f'{{"type": "FeatureCollection", "features": [{features}]}}')
  monkeypatch.setattr(layer_files, "_MAX_JSON_PARTS", 40)
  with pytest.raises(ValueError, match=r"a\.geojson has \d+ points and other parts.*GeoPackage"):
    whole(path)
  assert whole(geojson(tmp_path, "b.geojson")).any()


@pytest.mark.parametrize("features", [1, 50])
def test_a_geojson_of_many_fields_is_refused(tmp_path, features):
  fields = [{f"f{i}": 1 for i in range(j, 1001, features)} for j in range(features)]
  content = json.loads(geojson(tmp_path, "a.geojson").read_text())
  (shape,) = content["features"][:1]
  content["features"] = [{**shape, "properties": each} for each in fields]
  path = tmp_path / "b.geojson"
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match=r"b\.geojson cannot.*more than 1000 fields, such as 'f0'"):
    whole(path)
  del content["features"][0]["properties"]["f0"]
  path.write_text(json.dumps(content))
  assert whole(path).any()


@pytest.mark.parametrize("kind", ["few", "many", "holes", "gigantic", "spikes", "twice"])
def test_polygons_that_cross_themselves_often_are_refused(tmp_path, kind):
  """Repairing them would take hours."""
  rng = np.random.default_rng(0)
  ring = lambda count: rng.uniform(0, 24, (count, 2))
  whole_ring = shapely.get_coordinates(shapely.Point(12, 12).buffer(9, quad_segs=1000))
  polygon = {
    "few": lambda: shapely.Polygon(ring(60)), "many": lambda: shapely.Polygon(ring(400)),
    "holes": lambda: shapely.Polygon(ring(4), [ring(3) for _ in range(150)]),
    "gigantic": lambda: shapely.Polygon(ring(100_000)),
    "spikes": lambda: shapely.Polygon([(0, 9), *((24 * (n % 2), 4) for n in range(2000)), (24, 9)]),
    "twice": lambda: shapely.Polygon(whole_ring, [whole_ring]),
  }[kind]()
  path = write_layer(tmp_path / "a.gpkg", [on_earth(polygon)])
  if kind in ("few", "twice"):  # Repairing these takes no time.
    assert whole(path).any()
  else:
    how = "runs along itself" if kind == "spikes" else "crosses itself"
    with pytest.raises(ValueError, match=rf"a\.gpkg holds a polygon of \d+ vertices that {how}"):
      whole(path)


def test_edges_on_one_line_are_counted():
  numbers = np.random.default_rng(0).integers(0, 10_000, 600)
  line = lambda count: shapely.Polygon([(0, 9), *((x, 4) for x in numbers[:count]), (24, 9)])
  with pytest.raises(ValueError, match="603 vertices that runs along itself more than 65536 times"):
    geometry_parts.valid(shapely.MultiPolygon([line(600)]))
  assert geometry_parts.valid(line(100)).is_valid

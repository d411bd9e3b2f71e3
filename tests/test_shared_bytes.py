"""Small layers whose parts share their bytes, and would take any memory or time, are refused."""

import contextlib
import sqlite3
import struct

import numpy as np
import pyogrio.raw
import pytest
import shapely

from lgag_jax.geo import geopackage_checks, layer_files, shapefile_parts
from tests.test_reference import on_earth, whole

CIRCLE = on_earth(shapely.Point(12, 12).buffer(9, quad_segs=25))
OTHERS = [on_earth(shapely.box(n, 1, n + 1, 2)) for n in range(3)]


def write(path, shapes):
  """Writes a layer without a spatial index: the SQLite of TensorFlow, which may be loaded, has none."""
  creation = {"SPATIAL_INDEX": "NO"} if path.suffix == ".gpkg" else {}
  pyogrio.raw.write(
    path, shapely.to_wkb(shapes), [np.arange(len(shapes))], ["n"], layer="a", crs="EPSG:32644",
    geometry_type="Polygon", layer_options=creation)
  return path


def vertices(path):
  shapes = shapely.from_wkb(pyogrio.raw.read(path)[2])
  return int(shapely.get_num_coordinates(shapes).sum())


def records(path):
  """Returns where the shapes of a shapefile begin and how long they are, in words of two bytes."""
  index = path.with_suffix(".shx").read_bytes()
  return list(struct.iter_unpack(">II", index[100:]))


def list_records(path, entries):
  """Lists other records in .shx, with as many rows in .dbf."""
  index, table = path.with_suffix(".shx"), path.with_suffix(".dbf")
  content = bytearray(index.read_bytes()[:100])
  content += b"".join(struct.pack(">II", *entry) for entry in entries)
  struct.pack_into(">I", content, 24, len(content) // 2)
  index.write_bytes(content)
  content = bytearray(table.read_bytes())
  header, row = struct.unpack_from("<HH", content, 8)
  struct.pack_into("<I", content, 4, len(entries))
  table.write_bytes(content[:header] + content[header : header + row] * len(entries) + b"\x1a")


def test_a_shapefile_that_lists_a_shape_many_times_is_refused(tmp_path):
  path = write(tmp_path / "a.shp", [CIRCLE, *OTHERS])
  first = records(path)[0]
  list_records(path, [first] * 50)
  assert vertices(path) == 50 * 101  # The attack is real.
  with pytest.raises(ValueError, match=r"a\.shp cannot .* lists the same bytes of a\.shp twice: each"):
    whole(path)
  list_records(path, [first] * 1000)
  with pytest.raises(ValueError, match=r"a\.shp is cut, or its \.shx is of another version: it li"):
    whole(path)


def test_a_shapefile_whose_shapes_overlap_is_refused(tmp_path):
  """A record may begin within another."""
  path = write(tmp_path / "a.shp", [CIRCLE, *OTHERS])
  first, *others = records(path)
  content = bytearray(path.read_bytes())
  inside = first[0] + first[1] - 100  # The last vertices, replaced by a record of a box.
  box = content[2 * others[0][0] : 2 * others[0][0] + 8 + 2 * others[0][1]]
  content[2 * inside : 2 * inside + len(box)] = box
  path.write_bytes(content)
  list_records(path, [first, (inside, others[0][1]), *others[1:]])
  assert vertices(path) == 101 + 3 * 5
  with pytest.raises(ValueError, match=r"lists the same bytes of a\.shp twice"):
    whole(path)


def test_a_shapefile_whose_index_says_that_shapes_are_longer_is_refused(tmp_path):
  path = write(tmp_path / "a.shp", OTHERS)
  entries = records(path)
  list_records(path, [(start, words + 4) for start, words in entries[:-1]] + entries[-1:])
  assert whole(path).any()  # As some programs write it.
  list_records(path, [(start, 20 * words) for start, words in entries])
  with pytest.raises(ValueError, match=r"a\.shx lists longer shapes than a\.shp holds: each shape"):
    whole(path)


def test_a_shapefile_of_very_many_shapes_is_refused(tmp_path, monkeypatch):
  path = write(tmp_path / "a.shp", OTHERS)
  monkeypatch.setattr(shapefile_parts, "_MAX_SHAPES", 2)
  with pytest.raises(ValueError, match=r"holds 3 shapes, more than the 2 that are supported: give a p"):
    whole(path)


@pytest.mark.parametrize("kind", ["gaps", "order", "gone"])
def test_shapefiles_as_editors_leave_them_are_read(tmp_path, kind):
  path = write(tmp_path / "a.shp", [*OTHERS, CIRCLE])
  entries = records(path)
  chosen = {
    "gaps": [entries[0], entries[3]], "order": entries[::-1], "gone": [(0, 0), *entries[1:]],
  }[kind]
  list_records(path, chosen)
  layer_files.source(path)
  if kind != "gone":  # GDAL cannot read such a shape.
    assert whole(path).sum() == whole(write(tmp_path / "b.shp", [CIRCLE])).sum() + (
      whole(write(tmp_path / "c.shp", OTHERS[: 3 if kind == "order" else 1])).sum())


def change(path, *texts):
  """Runs statements on a GeoPackage without its triggers."""
  with contextlib.closing(sqlite3.connect(path)) as database, database:
    triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    for (name,) in database.execute(triggers).fetchall():
      database.execute(f'DROP TRIGGER "{name}"')
    for text in texts:
      database.execute(text)
  return path


def test_a_long_default_in_a_geopackage_is_refused(tmp_path):
  path = write(tmp_path / "a.gpkg", [CIRCLE])
  with contextlib.closing(sqlite3.connect(path)) as database:
    shape = database.execute("SELECT geom FROM a").fetchone()[0].hex()
  numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 50) "
  change(
    path, "DROP TABLE a", "CREATE TABLE a (fid INTEGER PRIMARY KEY, n INTEGER)",
    f"INSERT INTO a {numbers} SELECT x, 1 FROM n",
    f"ALTER TABLE a ADD COLUMN geom BLOB DEFAULT x'{shape}'",
    "UPDATE gpkg_ogr_contents SET feature_count = 50")
  assert vertices(path) == 50 * 101  # The attack is real.
  message = r"a\.gpkg cannot .*defaults of the columns of its table 'a' have 3\d+ char.*: export the l"
  with pytest.raises(ValueError, match=message):
    whole(path)
  usual = write(tmp_path / "b.gpkg", [CIRCLE])
  change(usual, "ALTER TABLE a ADD COLUMN seen TEXT DEFAULT 'in the field'")
  assert whole(usual).any()


def share_pages(path, table, levels):
  """Puts pages over the page of a table that name the page below them again and again."""
  with contextlib.closing(sqlite3.connect(path)) as database:
    roots = dict(database.execute("SELECT name, rootpage FROM sqlite_master"))
  content, root = bytearray(path.read_bytes()), roots[table]
  size = struct.unpack_from(">H", content, 16)[0]

  def interior(child, count=9):
    page = bytearray(size)
    starts = [size - 5 * (number + 1) for number in range(count)]
    for start in starts:
      page[start : start + 5] = struct.pack(">I", child) + b"\x01"
    struct.pack_into(f">BHHHBI{count}H", page, 0, 5, 0, count, starts[-1], 0, child, *starts)
    return page

  last = len(content) // size
  content += content[(root - 1) * size : root * size]
  for level in range(levels):
    content += interior(last + 1 + level)
  content[(root - 1) * size : root * size] = interior(last + 1 + levels)
  struct.pack_into(">I", content, 28, len(content) // size)
  path.write_bytes(content)


def rows(path, table):
  with contextlib.closing(sqlite3.connect(path)) as database:
    return len(database.execute(f"SELECT * FROM {table}").fetchall())


@pytest.mark.parametrize("table", ["a", "gpkg_contents", "gpkg_spatial_ref_sys", "gpkg_ogr_contents"])
def test_a_geopackage_whose_pages_are_shared_is_refused(tmp_path, table):
  path = write(tmp_path / "a.gpkg", OTHERS)
  before = rows(path, table)
  share_pages(path, table, 1)
  assert rows(path, table) == 100 * before  # The attack is real.
  with pytest.raises(ValueError, match=r"a\.gpkg cannot .*damaged \(.* page .*: export its layer"):
    whole(path)


def test_endless_pages_of_a_geopackage_take_no_time(tmp_path):
  """These are more rows than a machine can read."""
  path = write(tmp_path / "a.gpkg", OTHERS)
  share_pages(path, "a", 15)
  with pytest.raises(ValueError, match=r"a\.gpkg cannot .*damaged"):
    whole(path)


def test_a_view_of_a_geopackage_does_not_run_before_it_is_refused(tmp_path, monkeypatch):
  path = change(
    write(tmp_path / "a.gpkg", OTHERS), "ALTER TABLE gpkg_contents RENAME TO other",
    "CREATE VIEW gpkg_contents AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
    "SELECT printf('%01000d', x) AS table_name FROM c")
  with contextlib.closing(sqlite3.connect(path)) as database:
    rows = database.execute("SELECT lower(table_name) FROM gpkg_contents").fetchmany(50)
  assert sum(len(row[0]) for row in rows) == 50_000  # The attack is real.
  monkeypatch.setattr(geopackage_checks, "_check_layers", None)  # Not reached.
  with pytest.raises(ValueError, match=r"a\.gpkg cannot .*: it holds a view or a virtual table"):
    whole(path)


def test_conditions_of_a_table_do_not_run(tmp_path):
  path = write(tmp_path / "a.gpkg", OTHERS)
  change(path, "CREATE TABLE b (x CHECK (length(printf('%0300000000d', x)) > 1))")
  with contextlib.closing(sqlite3.connect(path)) as database, database:
    database.execute("PRAGMA ignore_check_constraints=1")
    database.execute("INSERT INTO b VALUES (1)")
  assert whole(path).any()


@pytest.mark.parametrize("kind", ["wal", "large", "types"])
def test_honest_geopackages_are_read(tmp_path, kind):
  path = write(tmp_path / "a.gpkg", [CIRCLE])
  with contextlib.closing(sqlite3.connect(path)) as database:
    if kind == "wal":
      database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE b (x INTEGER NOT NULL, y TEXT)")
    content = bytes(25 << 20 if kind == "large" else 10)
    database.executemany("INSERT INTO b VALUES (?, ?)", [(1, content), (2, content)])
    if kind == "types":  # GDAL changes the type of a field in this way.
      database.execute("CREATE TABLE c (x INTEGER)")
      database.execute("INSERT INTO c VALUES (1)")
      database.execute("PRAGMA writable_schema=1")
      text = "'CREATE TABLE c (x TEXT NOT NULL)'"
      database.execute(f"UPDATE sqlite_master SET sql = {text} WHERE name = 'c'")
    database.commit()
    assert path.with_name("a.gpkg-wal").exists() == (kind == "wal")
    assert whole(path).any()

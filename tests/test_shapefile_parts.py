"""Layers of which GDAL reads only a part without an error: they are refused, sound ones are read."""

import contextlib
import shutil
import sqlite3
import struct

import numpy as np
import pyogrio.raw
import pytest
import shapely

from lgag_jax.geo import layer_files
from lgag_jax.geo.reference import open_reference
from tests.test_foreign_layers import GRID, on_earth

SQUARES = [shapely.box(2 * n, 1, 2 * n + 1, 2 + n % 5) for n in range(12)]


def write(path, squares):
  path.parent.mkdir(exist_ok=True)
  pyogrio.raw.write(
    path, shapely.to_wkb([on_earth(square) for square in squares]), [np.arange(len(squares))], ["n"],
    crs="EPSG:32644", geometry_type="Polygon")
  return path


def read(path):
  """Returns how many polygons GDAL reads."""
  return len(pyogrio.raw.read(layer_files.source(path)[1])[2])


def count(path):
  with open_reference(path, GRID, ("landslide",)) as reference:
    assert reference.kind == "polygons"
  return read(path)


@pytest.mark.parametrize(("parts", "few", "message"), [
  ((".shx",), 5, r"a\.shp cannot be read as labels: its \.shx lists 5 shapes, but a\.shp has more"),
  ((".dbf",), 5, r"a\.dbf has 5 rows, but a\.shp 12 shapes.*of one version"),
  ((".shx", ".dbf"), 5, r"lists 5 shapes, but a\.shp has more"),
  ((".shp",), 5, r"a\.shp is cut, or its \.shx is of another version"),
  ((".shp",), -12, r"lists shapes where a\.shp has none"),
])
def test_parts_of_another_version_of_a_shapefile_are_refused(tmp_path, parts, few, message):
  path, mixed = write(tmp_path / "all/a.shp", SQUARES), tmp_path / "mixed"
  others = SQUARES[:few] if few > 0 else [shapely.MultiPolygon([s, on(s)]) for s in SQUARES]
  other = write(tmp_path / "other/a.shp", others)
  shutil.copytree(path.parent, mixed)
  for part in parts:
    shutil.copy(other.with_suffix(part), mixed)
  with pytest.raises(ValueError, match=message):
    count(mixed / "a.shp")
  assert count(path) == len(SQUARES)


def on(square):
  return shapely.transform(square, lambda points: points + np.array([0, 9]))


@pytest.mark.parametrize("part", [".shp", ".shx", ".dbf"])
def test_a_shapefile_that_is_cut_is_refused(tmp_path, part):
  path = write(tmp_path / "a.shp", SQUARES)
  content = path.with_suffix(part).read_bytes()
  for length in (len(content) // 2, 10):
    path.with_suffix(part).write_bytes(content[:length])
    with pytest.raises(ValueError, match=rf"a\{part} (is cut|is not a valid)"):
      count(path)


def test_shapefiles_as_editors_leave_them_are_read(tmp_path):
  """A shape that grew lies behind the others, a deleted one keeps its row, parts are in capitals."""
  path = write(tmp_path / "a.shp", SQUARES)
  content, index = bytearray(path.read_bytes()), bytearray(path.with_suffix(".shx").read_bytes())
  start, words = struct.unpack_from(">II", index, 100 + 8 * 3)
  moved = content[2 * start : 2 * start + 8 + 2 * words]
  struct.pack_into(">I", index, 100 + 8 * 3, len(content) // 2)
  content += moved + moved  # It grew twice.
  struct.pack_into(">I", content, 24, len(content) // 2)
  path.write_bytes(content)
  path.with_suffix(".shx").write_bytes(index)
  table = bytearray(path.with_suffix(".dbf").read_bytes())
  table[struct.unpack_from("<H", table, 8)[0]] = ord("*")
  path.with_suffix(".dbf").write_bytes(table)
  path.with_suffix(".dbf").rename(tmp_path / "a.DBF")
  assert count(path) == len(SQUARES) - 1
  (tmp_path / "a.DBF").unlink()
  assert count(path) == len(SQUARES)
  assert count(write(tmp_path / "b.shp", SQUARES[:1])) == 1


@pytest.mark.parametrize("name", ["a", "Hänge neu"])
@pytest.mark.parametrize("stated", [5, 11, 12, 40, None])
def test_a_geopackage_that_states_fewer_features_than_it_has_is_refused(tmp_path, stated, name):
  path = tmp_path / "a.gpkg"
  pyogrio.raw.write(
    path, shapely.to_wkb([on_earth(square) for square in SQUARES]), [], [], layer=name,
    crs="EPSG:32644", geometry_type="Polygon")
  with contextlib.closing(sqlite3.connect(path)) as database, database:
    database.execute("UPDATE gpkg_ogr_contents SET feature_count = ?", (stated,))
  if stated in (5, 11):
    with pytest.raises(ValueError, match=rf"12 features, but says that it only has {stated}\. Save"):
      count(path)
  else:
    assert count(path) == 12

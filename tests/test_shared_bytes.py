"""Small layers whose parts share their bytes, and would take any memory or time, are refused."""

import struct

import numpy as np
import pyogrio.raw
import pytest
import shapely

from lgag_jax.geo import layer_files, shapefile_parts
from tests.test_reference import on_earth, whole

CIRCLE = on_earth(shapely.Point(12, 12).buffer(9, quad_segs=25))
OTHERS = [on_earth(shapely.box(n, 1, n + 1, 2)) for n in range(3)]


def write(path, shapes):
  pyogrio.raw.write(
    path, shapely.to_wkb(shapes), [np.arange(len(shapes))], ["n"], layer="a", crs="EPSG:32644",
    geometry_type="Polygon")
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

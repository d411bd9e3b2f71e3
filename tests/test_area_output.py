# ruff: noqa: F401, F811
"""--mode=map neither removes nor writes a file outside its output, whatever lies in the output."""

import json

import pytest

from tests.test_area_blocks import catalogue, mapped, stub


def manifest(output, names):
  output.mkdir(exist_ok=True)
  (output / "manifest.json").write_text(json.dumps({"made_by": "lgag_jax", "files": names}))


@pytest.mark.parametrize("is_list", [True, False])
def test_a_manifest_names_no_file_that_lgag_has_not_written(catalogue, tmp_path, stub, is_list):
  output, thesis = tmp_path / "out", tmp_path / "thesis.txt"
  names = [
    "polygons/landslides_/../../../thesis.txt", "polygons/landslides_1.gpkg/../../../thesis.txt",
    str(thesis), "../thesis.txt", "polygons/landslides_mine.gpkg",
  ]
  for folder in ("landslides_", "landslides_1.gpkg"):
    (output / "polygons" / folder).mkdir(parents=True)
  for name in names:
    (output / name).write_text("precious")
  manifest(output, [*names, 5, ["thesis.txt"], None, "a\0b"] if is_list else 5)
  mapped(stub["workdir"], catalogue, output)
  assert {(output / name).read_text() for name in names} == {"precious"}
  listed = json.loads((output / "manifest.json").read_text())["files"]
  zone = "polygons/landslides_32645.gpkg"
  assert listed == ["polygons/landslides.parquet", zone, "collection.json"]


def test_the_polygons_of_a_zone_that_left_the_area_are_removed(catalogue, tmp_path, stub):
  output = tmp_path / "out"
  old = output / "polygons" / "landslides_32601.gpkg"
  old.parent.mkdir(parents=True)
  for path in (old, old.with_name(f"{old.name}-wal")):
    path.write_text("of an earlier area")
  manifest(output, ["polygons/landslides.parquet", f"polygons/{old.name}", "collection.json"])
  mapped(stub["workdir"], catalogue, output)
  assert {path.name for path in old.parent.iterdir()} == {"landslides.parquet", "landslides_32645.gpkg"}

# ruff: noqa: F401, F811
"""--mode=map neither removes nor writes a file outside its output, whatever lies in the output."""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import threading

import pytest

from lgag_jax.blocks import area_results, map_block, part_lock
from lgag_jax.blocks.plan import Block, BlockSize
from lgag_jax.mapping import output_folder
from lgag_jax.options.area import Imagery
from lgag_jax.runtime import lock
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
  own = ["polygons/landslides.parquet", zone, "collection.json", "report.html", "quick_look.png"]
  assert listed == own


def test_the_polygons_of_a_zone_that_left_the_area_are_removed(catalogue, tmp_path, stub):
  output = tmp_path / "out"
  old = output / "polygons" / "landslides_32601.gpkg"
  old.parent.mkdir(parents=True)
  for path in (old, old.with_name(f"{old.name}-wal")):
    path.write_text("of an earlier area")
  manifest(output, ["polygons/landslides.parquet", f"polygons/{old.name}", "collection.json"])
  mapped(stub["workdir"], catalogue, output)
  assert {path.name for path in old.parent.iterdir()} == {"landslides.parquet", "landslides_32645.gpkg"}


def of_another(folder):
  """Writes files of another output of an hour and more ago; returns their paths."""
  paths = [
    folder / name for name in
    ("photos/a.jpg", "landslides.parquet", "landslides_32645.gpkg", "32645_10034_24062.tif")
  ]
  (folder / "photos").mkdir(parents=True)
  for path in paths:
    path.write_text("precious")
  os.utime(folder / "photos", (0, 0))
  return paths


@pytest.mark.parametrize("is_checked", [False, True])
@pytest.mark.parametrize("name", [".unfinished", "polygons"])
def test_a_folder_that_is_a_link_keeps_the_files_of_another(
  catalogue, tmp_path, stub, monkeypatch, name, is_checked
):
  output, others = tmp_path / "out", of_another(tmp_path / "others")
  manifest(output, [])
  (output / name).symlink_to("../others")
  if not is_checked:  # The files are at risk.
    monkeypatch.setattr(output_folder, "require_plain_folders", lambda *names: None)
    mapped(stub["workdir"], catalogue, output)
    assert {path.read_bytes() if path.exists() else b"" for path in others} != {b"precious"}
    return
  for part in ("1/1", "1/2"):
    with pytest.raises(ValueError, match=rf"out/{name} is a symbolic link, which lgag does not follow"):
      mapped(stub["workdir"], catalogue, output, part=part)
  assert {path.read_bytes() for path in others} == {b"precious"}


@pytest.mark.parametrize("name", ["items", "mask", "probability", "regions", "parts", "parts/1_of_2"])
def test_all_folders_of_an_area_may_not_be_links(tmp_path, name):
  output, path = tmp_path / "out", tmp_path / "out" / name
  manifest(output, [])
  path.mkdir(parents=True)
  area_results.require_own(output)
  path.rmdir()
  path.symlink_to(tmp_path / "others")
  with pytest.raises(ValueError, match=rf"out/{name} is a symbolic link"):
    area_results.require_own(output)
  path.unlink()
  os.mkfifo(path)
  with pytest.raises(ValueError, match=rf"out/{name} is not a regular file"):
    area_results.require_own(output)


def test_an_output_that_is_named_by_a_link_is_resumed(catalogue, tmp_path, stub):
  (tmp_path / "disk").mkdir()
  (tmp_path / "out").symlink_to("disk")
  for _ in range(2):
    mapped(stub["workdir"], catalogue, tmp_path / "out")
  assert len(stub["asked"]) == len(set(stub["asked"])) > 3


BLOCKS = [Block(32645, row, 0) for row in range(4)]


def job_in(output):
  return map_block.AreaJob(
    output, (), Imagery(), 2.0, BlockSize(96, 64, 4), 3, ("landslide",), "uint8", "maker"
  )


def test_a_part_is_refused_while_another_run_holds_the_output(catalogue, tmp_path, stub):
  output = tmp_path / "out"
  message = rf"out is in use by process {os.getpid()} .* another --output"
  with contextlib.closing(lock.acquire(output, "output")):
    for part in ("1/1", "1/2"):
      with pytest.raises(ValueError, match=message):
        mapped(stub["workdir"], catalogue, output, part=part)
  assert stub["asked"] == []
  mapped(stub["workdir"], catalogue, output, part="1/2")
  assert stub["asked"]


def test_only_parts_of_the_same_map_run_together(tmp_path):
  job = job_in(tmp_path)
  refused = lambda: pytest.raises(ValueError, match="is in use by process")
  with part_lock.hold(job, BLOCKS, (0, 2)):
    with part_lock.hold(job, BLOCKS, (1, 2)):
      pass
    for other, blocks, part in (
      (job, BLOCKS, (0, 1)), (job, BLOCKS, (0, 2)), (job, BLOCKS, (1, 3)), (job, BLOCKS[1:], (1, 2)),
      (dataclasses.replace(job, maker="of another network"), BLOCKS, (1, 2)),
    ):
      with refused(), part_lock.hold(other, blocks, part):
        raise AssertionError
    with part_lock.hold(job, BLOCKS, (1, 2)):  # The refused ones have changed nothing.
      pass
  with part_lock.hold(job, BLOCKS, (1, 3)), refused(), part_lock.hold(job, BLOCKS, (0, 2)):
    raise AssertionError
  with part_lock.hold(job, BLOCKS, (0, 1)), refused(), part_lock.hold(job, BLOCKS, (1, 3)):
    raise AssertionError
  (tmp_path / "parts" / "map.json").write_text("[")
  with part_lock.hold(job, BLOCKS, (1, 3)):
    pass


def test_parts_that_start_at_the_same_time_all_run(tmp_path):
  together = threading.Barrier(4, timeout=30)

  def run(number):
    with part_lock.hold(job_in(tmp_path), BLOCKS, (number, 4)):
      together.wait()
    return number

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert list(pool.map(run, range(4))) == [0, 1, 2, 3]

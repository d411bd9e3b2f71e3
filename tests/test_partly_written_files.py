"""Files that are written in parts: a full disk is an error; with a memory map it would be a crash."""

import os
import pathlib
import re
import subprocess

import numpy as np
import pytest
import shapely
from affine import Affine

from lgag_jax.geo.grid import Grid
from lgag_jax.labelling import features
from lgag_jax.mapping.terrain_filter import TerrainFilter
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import files

FREE = 64 << 10  # Bytes of the small disk.


@pytest.fixture
def disk(tmp_path):
  """A full disk of its own but for some bytes."""
  place = tmp_path / "disk"
  place.mkdir()
  command = ["mount", "-t", "tmpfs", "-o", f"size={FREE}", "tmpfs", place]
  if subprocess.run(command, capture_output=True).returncode:
    pytest.skip("a tmpfs cannot be mounted")
  yield place
  subprocess.run(["umount", place], check=True)


def flat_regions(folder, side):
  return TerrainFilter(
    None, pathlib.Path("a.tif"), Grid(side, side, None, Affine.identity()),
    Options(dem="d.tif", min_slope=5.0), folder,
  )


def mark_all(folder):
  flat_regions(folder, 2000)._mark(shapely.box(0, 0, 2000, 2000))


def look_at_all(folder):
  known = features.TileFeatures(folder / ".features-a.npy", 1000)
  known.write(np.arange(1000), np.ones((1000, features.feature_width())))


def write_far(folder):
  with (folder / "a").open("wb", buffering=0) as file:
    files.write_at(file, bytes(2 * FREE), 10)


@pytest.mark.parametrize("write", [mark_all, look_at_all, write_far])
def test_a_full_disk_is_an_error_that_names_the_file(disk, write):
  with pytest.raises(OSError, match=r"No space left on device: '.*/disk/\S+'"):
    write(disk)


def test_short_writes_are_completed(tmp_path, monkeypatch):
  real = os.pwrite
  monkeypatch.setattr(os, "pwrite", lambda file, content, offset: real(file, content[:3], offset))
  with (tmp_path / "a").open("wb", buffering=0) as file:
    files.write_at(file, b"0123456789", 2)
  assert (tmp_path / "a").read_bytes() == b"\0\x000123456789"


def test_no_file_is_written_through_a_memory_map():
  code = {path: path.read_text() for path in pathlib.Path("lgag_jax").rglob("*.py")}
  maps = re.compile(r"""memmap\([^()]*?["'](?:r\+|w\+)|mmap\.mmap\(""")
  assert maps.search('np.memmap(path, np.uint8, "r+")')
  assert [path for path, text in code.items() if maps.search(text)] == []


def test_marks_of_regions_that_interlock_are_kept(tmp_path):
  regions = flat_regions(tmp_path, 40)
  ring = shapely.box(2, 3, 30, 31).difference(shapely.box(6, 7, 26, 27))
  inner = shapely.box(10, 11, 20, 21)
  for region in (inner, ring):
    regions._mark(region)
  expected = np.zeros((40, 40), np.uint8)
  expected[3:31, 2:30] = 1
  expected[7:27, 6:26] = 0
  expected[11:21, 10:20] = 1
  mask = np.full((40, 40), 2, np.uint8)
  parts = [regions.without_flat(first, mask[first : first + 8]) for first in range(0, 40, 8)]
  np.testing.assert_array_equal(np.concatenate(parts), np.where(expected, 0, 2))


@pytest.mark.parametrize("unknown", [0.0, np.nan])
def test_features_of_an_earlier_release_go_on(tmp_path, unknown):
  path, width = tmp_path / ".features-a.npy", features.feature_width()
  old = np.full((5, width), unknown, np.float16)
  old[3] = np.linspace(0, 1, width)
  np.save(path, old)
  opened = features.TileFeatures(path, 5)
  assert opened.known().tolist() == [False, False, False, True, False]
  opened.write(np.array([4, 0]), np.stack([np.full(width, 7), np.full(width, 9)]))
  again = features.TileFeatures(path, 5)
  assert again.known().tolist() == [True, False, False, True, True]
  np.testing.assert_array_equal(again.read(np.array([0, 3, 4]))[:, 1], np.float16([9, old[3, 1], 7]))
  np.testing.assert_array_equal(np.load(path)[3], old[3])
  assert not features.TileFeatures(path, 6).known().any()  # Other tiles.


def test_a_link_in_place_of_the_features_is_replaced(tmp_path):
  path, other = tmp_path / ".features-a.npy", tmp_path / "mine.npy"
  np.save(other, np.ones((5, features.feature_width()), np.float16))
  path.symlink_to(other)
  before = other.read_bytes()
  opened = features.TileFeatures(path, 5)
  opened.write(np.array([1]), np.full((1, features.feature_width()), 2))
  assert other.read_bytes() == before and not path.is_symlink()

"""Small TIFFs whose tags share their bytes: GDAL copies each tag into memory when it opens the file."""

import json
import struct
import subprocess
import sys

import pytest
import rasterio
from rasterio.windows import Window

from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import reading
from lgag_jax.imagery.opening import ImageError
from tests.test_hostile_texts import PEAK
from tests.test_reading import pixels, write_tiff

SIDE, TAG_BYTES = 64, 2 << 20
TYPES = {"bytes": (7, 1), "words": (3, 2), "doubles": (12, 8)}


def write(path, count, kind="bytes", form="I", directories=1):
  """Writes a TIFF with `count` unknown tags in each directory, all of the same TAG_BYTES bytes."""
  number, width = TYPES[kind]
  big, word = form == "Q", struct.calcsize(form)
  data = bytearray(b"II" + (struct.pack("<HHHQ", 43, 8, 0, 0) if big else struct.pack("<HI", 42, 0)))
  image, shared = len(data), len(data) + SIDE * SIDE
  data += bytes([7]) * SIDE * SIDE + b"a" * TAG_BYTES
  tags = [
    (256, 3, 1, SIDE), (257, 3, 1, SIDE), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
    (273, 4, 1, image), (277, 3, 1, 1), (278, 3, 1, SIDE), (279, 4, 1, SIDE * SIDE),
    *((40_000 + i, number, TAG_BYTES // width, shared) for i in range(count)),
  ]
  link = 8 if big else 4
  for i in range(directories):
    struct.pack_into(f"<{form}", data, link, len(data))
    rows = [(254, 4, 1, 1), *tags] if i else tags  # The others are overviews.
    data += struct.pack("<Q" if big else "<H", len(rows))
    data += b"".join(struct.pack(f"<HH{form}{form}", *row) for row in rows)
    link = len(data)
    data += bytes(word)
  path.write_bytes(data)
  return path


@pytest.mark.parametrize(("kind", "form", "count", "directories"), [
  ("bytes", "I", 60, 1), ("words", "Q", 60, 1), ("doubles", "I", 60, 1), ("bytes", "I", 10, 6),
])
def test_tags_are_limited_all_together(tmp_path, kind, form, count, directories):
  path = write(tmp_path / "a.tif", count, kind, form, directories)
  assert path.stat().st_size < 3 << 20
  run = subprocess.run(
    [sys.executable, "-W", "ignore", "-c", PEAK, path], capture_output=True, text=True, check=True
  )
  assert json.loads(run.stdout) > 70  # MiB: the attack is real.
  words = r"a\.tif cannot be opened .*its tags claim (80|120) MiB, more than the 64 MiB.*gdal_translate"
  for read in (lambda: reading.read_image(path, 1), lambda: open_scene(path, 1)):
    with pytest.raises(ImageError, match=words):
      read()


@pytest.mark.parametrize(("kind", "form"), [("bytes", "I"), ("words", "Q"), ("doubles", "I")])
def test_tags_of_some_mebibytes_are_read(tmp_path, kind, form):
  path = write(tmp_path / "a.tif", 10, kind, form, directories=3)
  assert (reading.read_image(path, 1) == 7).all()


@pytest.mark.parametrize("options", [
  {"BIGTIFF": "YES"}, {"BIGTIFF": "NO"}, {"BIGTIFF": "YES", "tiled": True, "COMPRESS": "DEFLATE"},
])
def test_large_metadata_is_read(tmp_path, options):
  path = write_tiff(tmp_path / "a.tif", pixels(64, 64), **options)
  with rasterio.open(path, "r+") as raster:
    raster.update_tags(notes="x" * (8 << 20))
  assert reading.read_image(path, 3).shape == (64, 64, 3)


def test_millions_of_tiles_are_read(tmp_path):
  profile = {"height": 3 << 16, "width": 3 << 16, "count": 1, "dtype": "uint8", "driver": "GTiff"}
  options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "sparse_ok": True, "BIGTIFF": "YES"}
  path = tmp_path / "a.tif"
  rasterio.open(path, "w", **profile, **options).close()
  assert path.stat().st_size > 64 << 20  # Of the offsets and sizes of 9 million.
  with open_scene(path, 1) as scene:
    assert scene.read(Window(0, 0, 8, 8))[0].shape == (8, 8, 1)

"""Small TIFFs of one gigantic block, also of a mask or an overview: GDAL decodes it for any window."""

import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import rasterio

from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import opening, reading
from lgag_jax.imagery.opening import ImageError
from tests.test_reading import pixels, write_png, write_tiff
from tests.test_scene import vrt_of

SIDE = 24_000  # A block of so many bytes on a side is larger than any that is allowed.
IMAGE, OVERVIEW, MASK, MASK_OF_OVERVIEW = 0, 1, 4, 5  # Kinds of directories.
PEAK = """
import json, sys, rasterio
from rasterio.enums import Resampling
from rasterio.windows import Window
peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) >> 10
with rasterio.open(sys.argv[1]) as raster:
  before = peak()
  if "mask" in sys.argv[2]:
    raster.read_masks(1, window=Window(0, 0, 8, 8))
  else:
    options = {"window": Window(0, 0, 800, 800), "out_shape": (100, 100)}
    raster.read(1, resampling=Resampling.average, **options)
  print(json.dumps(peak() - before))
"""


def write_sparse(path, side):
  """Writes a TIFF of one band in small tiles, with no data."""
  profile = {"height": side, "width": side, "count": 1, "dtype": "uint8", "driver": "GTiff"}
  with rasterio.open(path, "w", tiled=True, sparse_ok=True, **profile):
    pass
  return path


def add_directory(path, kind, side, bits, *, sub=False):
  """Appends a directory of one tile of zeros to a TIFF; with `sub` a tag of its first names it."""
  data = bytearray(path.read_bytes())
  (first,) = struct.unpack_from("<I", data, 4)
  (count,) = struct.unpack_from("<H", data, first)
  entries = data[first + 2 : first + 2 + 12 * count]
  packer = zlib.compressobj(1)
  tile = b"".join(packer.compress(bytes(side * bits // 8)) for _ in range(side)) + packer.flush()
  start = len(data)
  data += tile + bytes(len(tile) % 2)
  at = len(data)
  tags = [
    (254, 4, 1, kind), (256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, bits), (259, 3, 1, 8),
    (262, 3, 1, 4 if kind & MASK else 1), (277, 3, 1, 1), (284, 3, 1, 1), (322, 4, 1, side),
    (323, 4, 1, side), (324, 4, 1, start), (325, 4, 1, len(tile)),
  ]
  data += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
  if sub:
    rows = [entries[i : i + 12] for i in range(0, len(entries), 12)]
    rows = [*rows, struct.pack("<HHII", 330, 4, 1, at)]
    rows.sort(key=lambda row: struct.unpack_from("<H", row))
    data[4:8] = struct.pack("<I", len(data))
    data += struct.pack("<H", len(rows)) + b"".join(rows) + bytes(4)
  else:
    struct.pack_into("<I", data, first + 2 + 12 * count, at)
  path.write_bytes(data)
  return path


def write_hostile(folder, kind, side):
  path = write_sparse(folder / "a.tif", 2 * side if "overview" in kind else side)
  directory = {
    "image": IMAGE, "mask": MASK, "mask of overview": MASK_OF_OVERVIEW
  }.get(kind, OVERVIEW)
  add_directory(path, directory, side, 1 if "mask" in kind else 8, sub=kind == "sub overview")
  if kind == "image":  # Makes the new directory the first.
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    data[4:8] = data[first + 2 + 12 * count :][:4]
    path.write_bytes(data)
  return path


@pytest.mark.parametrize("kind", ["image", "mask", "overview", "sub overview"])
def test_blocks_are_limited(tmp_path, kind):
  path = write_hostile(tmp_path, kind, SIDE)
  assert path.stat().st_size < 8_000_000
  command = [sys.executable, "-W", "ignore", "-c", PEAK, path, kind]
  run = subprocess.run(command, capture_output=True, text=True, check=True)
  assert json.loads(run.stdout) > 500  # MiB: the attack is real.
  with pytest.raises(ImageError, match=r"a\.tif is .* too large to read one of its blocks \(549 of"):
    open_scene(path, 1)
  with pytest.raises(ImageError, match="too large to read one of its blocks"):
    reading.read_image(path, 1)


@pytest.mark.parametrize("kind", ["mask", "overview", "sub overview", "mask of overview"])
def test_blocks_of_masks_and_overviews_in_a_mosaic_are_limited_more(tmp_path, kind):
  path = write_hostile(tmp_path, kind, 6000)
  open_scene(path, 1).close()
  side = 12_000 if "overview" in kind else 6000
  mosaic = vrt_of(tmp_path / "a.vrt", [("a.tif", 0, 0, side, side)], side, side, nodata=(None,))
  with pytest.raises(ImageError, match=r"a\.vrt refers to .*one of its blocks \(34 of at most 32"):
    open_scene(mosaic, 1)


def test_blocks_of_a_mask_beside_an_image_are_limited(tmp_path):
  image = write_png(tmp_path / "a.png", pixels(8, 8))
  write_hostile(tmp_path, "overview", SIDE).rename(tmp_path / "a.png.msk")
  with pytest.raises(ImageError, match=r"a\.png\.msk is .* too large to read one of its blocks"):
    reading.read_image(image, 3)


def test_usual_masks_and_overviews_are_read(tmp_path):
  path = write_tiff(tmp_path / "a.tif", pixels(600, 600), tiled=True, BIGTIFF="YES")
  with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
    raster.write_mask(np.ones((600, 600), bool))
    raster.build_overviews([2, 4])
  assert len(opening.tiff.directories(path)) == 6
  assert reading.read_image(path, 3).shape == (600, 600, 3)


def test_the_number_of_directories_is_limited(tmp_path):
  path = write_tiff(tmp_path / "a.tif", pixels(8, 8, 1))
  data = bytearray(path.read_bytes())
  (first,) = struct.unpack_from("<I", data, 4)
  (count,) = struct.unpack_from("<H", data, first)
  directory, size = bytes(data[first : first + 2 + 12 * count]), 6 + 12 * count
  struct.pack_into("<I", data, first + 2 + 12 * count, len(data))
  for _ in range(300):
    data += directory + struct.pack("<I", len(data) + size)
  path.write_bytes(data)
  with pytest.raises(ImageError, match=r"a\.tif cannot be opened.*more than 256 images, masks"):
    reading.read_image(path, 1)
  struct.pack_into("<I", data, first + 2 + 12 * count, first)  # A loop.
  path.write_bytes(data)
  assert opening.tiff.directories(path) == [first]

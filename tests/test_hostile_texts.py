"""Small PNGs whose compressed texts take much memory as soon as the file is opened."""

import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import png, reading
from lgag_jax.imagery.opening import ImageError

PEAK = """
import json, sys, rasterio
peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) >> 10
before = peak()
with rasterio.open(sys.argv[1]) as raster:
  raster.read()
print(json.dumps(peak() - before))
"""
TEXT = zlib.compress(b"a" * (7 << 20), 9)
KINDS = {"zTXt": b"Comment\0\0", "iTXt": b"Comment\0\1\0\0\0"}


def write(path, kind, count):
  """Writes a PNG with `count` compressed texts of 7 MiB after its header."""
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
  data, body = path.read_bytes(), KINDS[kind] + TEXT
  chunk = struct.pack(">I", len(body)) + kind.encode() + body
  chunk += struct.pack(">I", zlib.crc32(kind.encode() + body))
  path.write_bytes(data[:33] + chunk * count + data[33:])
  return path


@pytest.mark.parametrize("kind", KINDS)
def test_compressed_texts_are_limited(tmp_path, kind):
  path = write(tmp_path / "a.png", kind, 20)
  assert path.stat().st_size < 200_000
  command = [sys.executable, "-W", "ignore", "-c", PEAK, path]
  run = subprocess.run(command, capture_output=True, text=True, check=True)
  assert json.loads(run.stdout) > 100  # MiB: the attack is real.
  for read in (lambda: reading.read_image(path, 3), lambda: open_scene(path, 3)):
    with pytest.raises(ImageError, match=r"a\.png cannot be opened .*more than 16 compressed texts"):
      read()


def test_usual_texts_and_a_colour_profile_are_read(tmp_path):
  notes = PngImagePlugin.PngInfo()
  for number in range(40):
    notes.add_text(f"key {number}", "value")
  notes.add_itxt("XML:com.adobe.xmp", "<x/>", zip=True)
  image = Image.fromarray(np.full((8, 8, 3), 7, np.uint8))
  image.save(tmp_path / "a.png", pnginfo=notes, icc_profile=b"\0" * 128)
  assert (reading.read_image(tmp_path / "a.png", 3) == 7).all()


def test_the_number_of_parts_is_limited(tmp_path, monkeypatch):
  path = write(tmp_path / "a.png", "zTXt", 3)
  png.check_texts(path)
  monkeypatch.setattr(png, "_MAX_CHUNKS", 4)
  with pytest.raises(ImageError, match=r"a\.png cannot be opened as an image: it has more parts"):
    reading.read_image(path, 3)

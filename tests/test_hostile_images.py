"""Untrusted images: references to other files, decompression bombs, and misleading suffixes."""

import contextlib
import http.server
import io
import json
import os
import re
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window

from lgag_jax.config import DataConfig
from lgag_jax.imagery import opening, reading, scaling
from lgag_jax.imagery.reading import ImageError
from lgag_jax.inputs import patches
from tests.test_patches import make_data, source, write_manifest
from tests.test_reading import mask_of, pixels, write_png, write_tiff


@pytest.fixture
def server():
  """A web server that has every file, and records each request."""
  requests = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      requests.append(self.path)
      self.send_response(200)
      self.end_headers()
      self.wfile.write(png_of())

    do_HEAD = do_GET

    def log_message(self, *_):
      pass

  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
    threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{service.server_port}", requests
    service.shutdown()


def png_of():
  buffer = io.BytesIO()
  Image.fromarray(pixels(12, 10)).save(buffer, "png")
  return buffer.getvalue()


def vrt(target):
  band = "".join(
    f'<VRTRasterBand dataType="Byte" band="{k}"><SimpleSource><SourceFilename relativeToVRT="0">'
    f"{target}</SourceFilename><SourceBand>{k}</SourceBand></SimpleSource></VRTRasterBand>"
    for k in (1, 2, 3)
  )
  # As a side file, the flag makes the first band a mask of the whole data set.
  flag = '<Metadata><MDI key="INTERNAL_MASK_FLAGS_1">2</MDI></Metadata>'
  return f'<VRTDataset rasterXSize="10" rasterYSize="12">{flag}{band}</VRTDataset>'


def wms(url):
  return (
    f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>'
    "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>12</UpperLeftY><LowerRightX>10</LowerRightX>"
    "<LowerRightY>0</LowerRightY><SizeX>10</SizeX><SizeY>12</SizeY><TileLevel>0</TileLevel>"
    "</DataWindow><BlockSizeX>16</BlockSizeX><BlockSizeY>16</BlockSizeY><BandsCount>3</BandsCount>"
    "<Cache/></GDAL_WMS>"
  )


@pytest.mark.parametrize("kind", ["file", "url", "wms", "prefixed"])
def test_references_to_other_files_are_refused_unread(tmp_path, server, kind, monkeypatch):
  url, requests = server
  monkeypatch.chdir(tmp_path)  # GDAL's WMS driver keeps a cache there.
  secret = write_png(tmp_path / "secret.png", pixels())
  path = tmp_path / "x.png"
  text = wms(url) if kind == "wms" else vrt(secret if kind == "file" else f"/vsicurl/{url}/a.png")
  path.write_text(text)
  read = None
  with contextlib.suppress(RasterioError), rasterio.open(path) as raster:
    read = raster.read()
  assert requests if kind != "file" else read.shape == (3, 12, 10)  # The attack is real.
  requests.clear()
  if kind == "prefixed":
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + text.encode())
  readers = (lambda path: reading.read_image(path, 3)), reading.image_size, mask_of
  for read in readers:
    with pytest.raises(ImageError, match=r"x\.png cannot be opened as an image"):
      read(path)
  assert not requests


@pytest.mark.parametrize("side", [".msk", ".ovr", ".aux.xml"])
def test_side_files_of_an_image_are_not_opened(tmp_path, server, side):
  url, requests = server
  path = write_png(tmp_path / "x.png", pixels())
  content = f"<PAMDataset><Metadata domain='OVERVIEWS'><MDI key='OVERVIEW_FILE'>/vsicurl/{url}/o.tif"
  content += "</MDI></Metadata></PAMDataset>"
  text = content if side == ".aux.xml" else vrt(f"/vsicurl/{url}/a.png")
  (tmp_path / f"x.png{side}").write_text(text)
  if side == ".msk":
    with contextlib.suppress(RasterioError), rasterio.open(path) as raster:
      raster.dataset_mask()
    assert requests  # The attack is real.
  requests.clear()
  if side == ".msk":
    with pytest.raises(ImageError, match=r"x\.png\.msk cannot be opened as an image"):
      reading.read_image(path, 3)
  else:
    np.testing.assert_array_equal(reading.read_image(path, 3), pixels())
    assert reading.read_image(path, 3, Window(1, 1, 2, 2)).shape == (2, 2, 3)
  assert not requests


@pytest.mark.parametrize(("text", "reason"), [
  ("<!DOCTYPE x [<!ENTITY a 'b'>]><PAMDataset/>", "document type"), ("<PAMDataset>", "no element"),
  ("<PAMDataset><SRS>/etc/passwd</SRS></PAMDataset>", "neither plain WKT"),
  ("<PAMDataset><SRS>http://x/y</SRS></PAMDataset>", "neither plain WKT"),
  ('<PAMDataset><SRS>LOCAL_CS["a",EXTENSION["PROJ4","+nadgrids=/x"]]</SRS></PAMDataset>',
   "names other files"),
  ("<PAMDataset><GeoTransform>1, 2</GeoTransform></PAMDataset>", "missing"),
  ("<PAMDataset><GeoTransform>0, 0, 0, 0, 0, 0</GeoTransform></PAMDataset>", "without area"),
  ("<PAMDataset>" + " " * (9 << 20) + "</PAMDataset>", "more than 8 MiB"),
  ('<PAMDataset><PAMRasterBand band="2"><Scale>0.5</Scale></PAMRasterBand></PAMDataset>', "scale 0.5"),
])
def test_notes_beside_an_image_are_parsed_within_bounds(tmp_path, text, reason):
  path = write_png(tmp_path / "x.png", pixels())
  (tmp_path / "x.png.aux.xml").write_text(text)
  with pytest.raises(ImageError, match=rf"x\.png\.aux\.xml .*{reason}"):
    reading.read_image(path, 3)


def rows_of(root, image, mask="masks/a.png", **more):
  write_manifest(root / "manifest.csv", [{"image": image, "mask": mask, "split": "train", **more}])


@pytest.mark.parametrize("column", ["image", "mask", "file"])
@pytest.mark.parametrize(
  "name", ["../out.png", "images/../../out.png", "/etc/passwd", "/vsicurl/{url}/a.png", "/vsizip/x.zip"]
)
def test_a_manifest_cannot_name_files_outside_the_data(tmp_path, server, column, name):
  url, requests = server
  root, name = tmp_path / "data", name.format(url=url)
  make_data(root, {"a": np.ones((4, 4))})
  write_png(tmp_path / "out.png", pixels(4, 4))
  row = {"file": "", "image": "images/a.png", "mask": "masks/a.png", column: name}
  if column == "file":  # A row names an image in one of two ways.
    row |= {"image": "", "mask": ""}
  write_manifest(root / "manifest.csv", [row])
  message = r"manifest\.csv, row \d names '.*', which is outside .*data: .*data\.directory"
  with pytest.raises(ValueError, match=message) as caught:
    source(root)
  assert name in str(caught.value)
  assert not requests


@pytest.mark.parametrize(
  "name", ["vsicurl/{url}/a.png", "zip://a.zip!a.png", "{url}/a.png", "GTIFF_DIR:1:a"]
)
def test_names_that_gdal_would_follow_are_read_as_files(tmp_path, server, name):
  url, requests = server
  make_data(tmp_path, {"a": np.ones((4, 4))})
  rows_of(tmp_path, name.format(url=url))
  with pytest.raises(ImageError, match="cannot be opened as an image"):
    source(tmp_path)
  assert not requests


def test_a_pipe_is_refused_at_once(tmp_path):
  os.mkfifo(tmp_path / "x.png")
  with pytest.raises(ImageError, match=r"^\S+x\.png cannot be opened as an image: it is not a regular"):
    reading.image_size(tmp_path / "x.png")


@pytest.mark.parametrize("content", [
  b"file\na\0b.png\n", b"file\n\xff\xfe.png\n", b'file\n"' + b"x" * 200_000, b"image,mask\nx.png\n",
  b"file,row_start,row_stop\na.png,1\n", b"file,row_start\na.png," + b"9" * 5000, b"", b"\xff" * 9,
])
def test_a_damaged_manifest_is_named(tmp_path, content):
  make_data(tmp_path, {"a": np.ones((4, 4))})
  (tmp_path / "manifest.csv").write_bytes(content)
  with pytest.raises(ValueError, match=r"manifest\.csv|no example|Split") as caught:
    source(tmp_path)
  assert not isinstance(caught.value, UnicodeDecodeError)


def png_header(width, height, *, depth=8, colour=2):
  def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

  head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
  parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(1 << 20))), chunk(b"IEND", b"")
  return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def write_bomb(path, kind):
  if kind == "png":
    path.write_bytes(png_header(60_000, 60_000, depth=16, colour=6))
  elif kind == "png-line":  # libpng allows a million.
    path.write_bytes(png_header(2**31 - 1, 2**31 - 1))
  elif kind == "jpeg":
    buffer = io.BytesIO()
    Image.fromarray(pixels(16, 16)).save(buffer, "jpeg")
    data = buffer.getvalue()
    at = data.index(b"\xff\xc0") + 5
    path.write_bytes(data[:at] + struct.pack(">HH", 65500, 65500) + data[at + 4 :])
  else:
    side, profile = 40_000, {"sparse_ok": True, "compress": "deflate", "BIGTIFF": "YES"}
    if kind == "block":
      profile |= {"tiled": True, "blockxsize": side, "blockysize": side}
    if kind == "float":
      profile |= {"tiled": True}
    side, dtype = (9000, "float64") if kind == "float" else (side, "uint8")
    with rasterio.open(path, "w", driver="GTiff", width=side, height=side, count=3, dtype=dtype,
                       **profile):
      pass
  return path


MEASURE = """
import json, os, pathlib, sys
from rasterio.windows import Window
from lgag_jax.imagery import reading
peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
for path in map(pathlib.Path, sys.argv[1:]):
  if os.fork():  # One process per file, since each has its own peak.
    assert os.wait()[1] == 0
    continue
  before, messages = peak(), []
  for window in (None, Window(0, 0, 16, 16)):
    try:
      messages.append(str(reading.read_image(path, 3, window).shape))
    except reading.ImageError as error:
      messages.append(str(error))
    try:
      with reading.open_raster(path) as raster:
        reading.read_valid_mask(raster, window)
        if window:
          reading.read_mask(raster, classes=1, ignore=-1, window=window)
    except reading.ImageError:
      pass
  print(json.dumps([path.parent.name, messages, (peak() - before) / 1024]), flush=True)
  os._exit(0)
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  """Maps each bomb to the messages for the whole image and a window, and the growth in MiB."""
  folder, paths = tmp_path_factory.mktemp("bombs"), []
  for kind in ("png", "png-line", "jpeg", "block", "strips", "float"):
    (folder / kind).mkdir()
    suffix = "tif" if kind in ("block", "strips", "float") else "png"
    paths.append(write_bomb(folder / kind / f"x.{suffix}", kind))
    assert paths[-1].stat().st_size < 3_000_000
  run = subprocess.run(
    [sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True, timeout=120
  )
  return {kind: values for kind, *values in map(json.loads, run.stdout.splitlines())}


@pytest.mark.parametrize(("kind", "whole", "window"), [
  ("png", "60000 x 60000.*too large to read whole", "is damaged"),
  ("png-line", "cannot be opened", "cannot be opened"),
  ("jpeg", "65500 x 65500.*too large to read whole", r"\(16, 16, 3\)|damaged"),
  ("block", "40000 x 40000.*too large to read one of its blocks", "one of its blocks"),
  ("strips", "40000 x 40000.*too large to read whole", r"\(16, 16, 3\)"),
  # The limit counts bytes, not values.
  ("float", r"9000 x 9000.*\(1853 of at most 1024 MiB\).*data\.tile_size", r"\(16, 16, 3\)"),
])
def test_bombs_are_refused_before_they_allocate_memory(measured, kind, whole, window):
  messages, growth = measured[kind]
  for text, expected in zip(messages, (whole, window), strict=True):
    assert re.search(expected, text), text
  assert growth < 200  # MiB


def test_the_number_of_tiles_is_limited(tmp_path):
  make_data(tmp_path, {})
  for folder in ("images", "masks"):
    with rasterio.open(tmp_path / folder / "a.tif", "w", driver="GTiff", width=20_000, height=20_000,
                       count=1, dtype="uint8", sparse_ok=True, tiled=True):
      pass
  with pytest.raises(ImageError, match=r"a\.tif is 20000 x 20000, which makes more than 1048576 tiles"):
    source(tmp_path, tile_size=16, channels=1)


def test_reading_the_masks_of_many_bands_is_limited(tmp_path, monkeypatch):
  path = write_tiff(tmp_path / "a.tif", pixels(64, 64, 12))
  monkeypatch.setattr(opening, "MAX_BYTES", 64 * 64 * 11)
  with reading.open_raster(path) as raster, pytest.raises(ImageError, match="12 channels, too large"):
    reading.read_valid_mask(raster)


def test_the_content_decides_and_not_the_suffix(tmp_path):
  array = pixels()
  write_png(tmp_path / "a.png", array).rename(tmp_path / "a.jpg")
  np.testing.assert_array_equal(reading.read_image(tmp_path / "a.jpg", 3), array)
  Image.fromarray(array).save(tmp_path / "b.gif")
  (tmp_path / "b.gif").rename(tmp_path / "b.png")
  with pytest.raises(ImageError, match=r"b\.png cannot.*begins with b'GIF8.*only PNG, JPEG, TIFF and"):
    reading.read_image(tmp_path / "b.png", 3)


def test_an_animated_png_is_read_as_its_default_image(tmp_path):
  first = pixels()
  frames = [Image.fromarray(pixels(seed=1))]
  Image.fromarray(first).save(tmp_path / "a.png", save_all=True, append_images=frames)
  assert b"acTL" in (tmp_path / "a.png").read_bytes()
  np.testing.assert_array_equal(reading.read_image(tmp_path / "a.png", 3), first)


def test_a_tiff_of_several_pages_is_refused(tmp_path):
  frames = [Image.fromarray(pixels(seed=1))]
  Image.fromarray(pixels()).save(tmp_path / "a.tif", save_all=True, append_images=frames)
  with pytest.raises(ImageError, match=r"a\.tif has 2 pages: save each"):
    reading.read_image(tmp_path / "a.tif", 3)
  # Overviews and masks inside a file are not pages.
  path = write_tiff(tmp_path / "b.tif", pixels(64, 64), photometric="RGB")
  with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
    raster.write_mask(np.ones((64, 64), bool))
    raster.build_overviews([2])
  assert reading.read_image(path, 3).shape == (64, 64, 3)


def test_a_cmyk_jpeg_is_read_in_colours(tmp_path):
  array = np.full((16, 16, 3), (200, 100, 50), np.uint8)
  Image.fromarray(array).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
  value = reading.read_image(tmp_path / "a.jpg", 3)
  assert np.abs(value.astype(int) - array).max() < 6


def test_sixteen_bits_scale_to_the_same_values_as_eight(tmp_path):
  array = pixels()
  write_tiff(tmp_path / "a.tif", array.astype(np.uint16) * 257)
  with rasterio.open(tmp_path / "a.png", "w", driver="PNG", width=10, height=12, count=3,
                     dtype="uint16") as file:
    file.write(np.moveaxis(array.astype(np.uint16) * 257, -1, 0))
  for name in ("a.png", "a.tif"):
    value = reading.read_image(tmp_path / name, 3)
    assert value.dtype == np.uint16
    np.testing.assert_allclose(scaling.normalise(value, DataConfig()), array / 255, atol=1e-6)


def test_errors_of_gdal_name_the_file(tmp_path, monkeypatch):
  """A damaged list of tags, for example, raises when the colours of the bands are read."""
  path = write_tiff(tmp_path / "a.tif", pixels())

  class Raster:
    count = 3

    @property
    def colorinterp(self):
      raise CPLE_BaseError(1, 1, "IO error during reading of StripOffsets")

  monkeypatch.setattr(reading, "open_raster", lambda _: contextlib.nullcontext(Raster()))
  with pytest.raises(ImageError, match=r"a\.tif is damaged: .*StripOffsets.*data\.on_bad_image"):
    reading.read_image(path, 2)


def test_complex_numbers_are_refused(tmp_path):
  with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", width=4, height=4, count=1,
                     dtype="complex_int16"):
    pass
  with pytest.raises(ImageError, match=r"a\.tif holds complex numbers"):
    reading.read_image(tmp_path / "a.tif", 1)


def test_bad_images_are_skipped_where_masks_give_the_labels(tmp_path, caplog):
  make_data(tmp_path, {f"i{n}": np.full((4, 4), n % 2) for n in range(10)})
  (tmp_path / "images" / "i3.png").write_bytes(b"")
  (tmp_path / "masks" / "i6.png").write_bytes(b"GIF89a")
  write_png(tmp_path / "masks" / "i7.png", np.zeros((4, 5), np.uint8))
  with pytest.raises(ImageError, match=r"i3\.png"):
    source(tmp_path)
  data = source(tmp_path, on_bad_image="skip", max_bad_images=3)
  assert data.ids == [f"i{n}.png" for n in range(10) if n not in (3, 6, 7)]
  for number, reason in ((3, "is empty"), (6, "GIF89a"), (7, "in the same size")):
    path = str(tmp_path / "images" / f"i{number}.png")
    assert reason in data.skipped[path]
    assert sum(f"Skipped {path}" in r.message and reason in r.message for r in caplog.records) == 1
  with pytest.raises(ImageError, match=r"data\.max_bad_images=2.*i7\.png"):
    source(tmp_path, on_bad_image="skip", max_bad_images=2)


def test_a_bad_scene_that_a_manifest_uses_twice_counts_once(tmp_path, caplog):
  make_data(tmp_path, {"a": np.ones((8, 8)), "b": np.zeros((8, 8))})
  (tmp_path / "images" / "a.png").write_bytes(b"")
  parts = [{"row_start": r, "row_stop": r + 4, "col_start": 0, "col_stop": 8} for r in (0, 4)]
  rows = [{"file": f"{name}.png", **part} for name in "ab" for part in parts]
  write_manifest(tmp_path / "manifest.csv", rows)
  data = source(tmp_path, on_bad_image="skip", max_bad_images=1)
  assert data.ids == ["b.png[0:0]", "b.png[4:0]"]
  assert sum("Skipped" in record.message for record in caplog.records) == 1


def test_a_bad_image_does_not_affect_another_split(tmp_path):
  make_data(tmp_path, {f"i{n}": np.full((4, 4), n % 2) for n in range(10)})
  (tmp_path / "images" / "i9.png").write_bytes(b"")
  assert len(source(tmp_path, validation_fraction=0.2).ids) == 8
  with pytest.raises(ImageError, match=r"i9\.png"):
    source(tmp_path, "validation", validation_fraction=0.2)


def test_the_limit_counts_bad_masks_and_bad_images(tmp_path):
  from lgag_jax.inputs.pipeline import Reader

  make_data(tmp_path, {f"i{n}": np.full((64, 64), n % 2) for n in range(6)})
  (tmp_path / "images" / "i0.png").write_bytes(b"")
  whole = (tmp_path / "images" / "i1.png").read_bytes()
  (tmp_path / "images" / "i1.png").write_bytes(whole[: len(whole) // 2])
  options = {"directory": str(tmp_path), "source": "patches", "on_bad_image": "skip"}
  for limit in (1, 2):
    config = DataConfig(**options, max_bad_images=limit, validation_fraction=0.0)
    data = patches.PatchSource(config, "train")
    read = Reader(data, config)
    refused = pytest.raises(ImageError, match="max_bad_images=1")
    with refused if limit == 1 else contextlib.nullcontext():
      read(data.ids.index("i1.png"))

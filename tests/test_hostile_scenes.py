"""Untrusted scenes: unsafe mosaics, JPEG 2000 bombs, truncated files."""

import contextlib
import struct

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.errors import RasterioError
from rasterio.windows import Window

from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import reading
from lgag_jax.imagery.reading import ImageError
from tests.test_hostile_images import server  # noqa: F401
from tests.test_reading import pixels, write_tiff
from tests.test_scene import H, W, vrt_of


def hostile(folder, kind, url):
  """Returns a VRT's text, and a pattern of the error message."""
  secret = write_tiff(folder / "secret.tif", pixels(H, W))
  text = vrt_of(folder / "a.vrt", [(secret.name, 0, 0, H, W)], H, W).read_text()
  entities = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)) + "]>"
  derived = '<VRTRasterBand subClass="VRTDerivedRasterBand"'
  return {
    "vsicurl": (text.replace("secret.tif", f"/vsicurl/{url}/a.png"), "vsicurl.*not a plain file"),
    "slashes": (text.replace("secret.tif", f"//vsicurl/{url}/a.png"), "vsicurl.*not a plain file"),
    "url": (text.replace("secret.tif", f"{url}/a.png"), "http.*not a plain file"),
    "nested": (text.replace("secret.tif", f"vrt://{secret}"), "vrt://.*not a plain file"),
    "query": (text.replace("secret.tif", "secret.tif?a=b"), "not a plain file"),
    "bomb": (entities + text.replace("secret.tif", "&i;"), "document type"),
    "entity": ('<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + text, "document type"),
    "pixel function": (text.replace("<VRTRasterBand", derived), "VRTDerivedRasterBand.*gdalbuildvrt"),
    "raw": (text.replace("<VRTRasterBand", '<VRTRasterBand subClass="VRTRawRasterBand"'), "VRTRaw"),
    "warped": (text.replace("<VRTDataset", '<VRTDataset subClass="VRTWarpedDataset"'), "VRTWarped"),
    "options": (text.replace("<SourceBand>", "<OpenOptions/><SourceBand>"), "OpenOptions"),
    "overview": (text.replace("<ComplexSource>", "<Overview/><ComplexSource>", 1), "<Overview>"),
    "crs": (text.replace('41">', f'41"><SRS>{url}</SRS>', 1), "the CRS"),
    "text": (text.replace("secret.tif", "/etc/passwd"), "/etc/passwd cannot be opened"),
    "missing": (text.replace("secret.tif", "gone.tif"), "gone.tif cannot be opened"),
    "itself": (text.replace("secret.tif", "a.vrt"), "a.vrt is a VRT.*name its parts"),
    "band": (text.replace("<SourceBand>3", "<SourceBand>9"), "band '9' of .*secret.tif, which has 3"),
    "no bands": ('<VRTDataset rasterXSize="9" rasterYSize="9"/>', "no bands|cannot be opened"),
    "zero-sized": (text.replace('rasterXSize="57"', 'rasterXSize="0"'), "cannot be opened"),
    "endless": (text.replace('rasterXSize="57"', 'rasterXSize="2000000000"'), "1048576 on a side"),
    "html": ("<html>404</html>", "not a VRT"), "cut": (text[:-40], "not a valid VRT"),
    "utf-16": (text, "cannot be opened"), "one error": (text.replace("57", "five"), "cannot be opened"),
  }[kind]


@pytest.mark.parametrize("kind", [
  "vsicurl", "slashes", "url", "nested", "query", "bomb", "entity", "pixel function", "raw", "warped",
  "options", "overview", "crs", "text", "missing", "itself", "band", "no bands", "zero-sized",
  "endless", "html", "cut", "utf-16", "one error",
])
def test_an_unsafe_or_invalid_mosaic_is_refused(tmp_path, server, kind):  # noqa: F811
  url, requests = server
  text, message = hostile(tmp_path, kind, url)
  path = tmp_path / "a.vrt"
  path.write_text(text, "utf-16" if kind == "utf-16" else "utf-8")
  with pytest.raises(ImageError, match=rf"a\.vrt.*({message})") as error:
    open_scene(path, 3)
  assert not requests and len(str(error.value)) < 1200
  with pytest.raises(ImageError, match=r"a\.vrt cannot be opened as an image"):  # No VRT.
    reading.read_image(path, 3)


def test_the_first_bytes_of_a_mosaics_file_decide_its_driver(tmp_path, server):  # noqa: F811
  """The comment of a JPEG can hold a VRT, which GDAL would open instead."""
  url, requests = server
  Image.fromarray(pixels(H, W)).save(tmp_path / "p.jpg")
  data = (tmp_path / "p.jpg").read_bytes()
  inner = vrt_of(tmp_path / "i.vrt", [(f"/vsicurl/{url}/a.png", 0, 0, H, W)], H, W).read_bytes()
  comment = b"\xff\xfe" + struct.pack(">H", 2 + 256 + len(inner)) + inner + b" " * 256
  (tmp_path / "p.jpg").write_bytes(data[:2] + comment + data[2:])
  path = vrt_of(tmp_path / "a.vrt", [("p.jpg", 0, 0, H, W)], H, W)
  with open_scene(path, 3) as opened:
    value, valid = opened.read(Window(0, 0, W, H))
  assert valid.all() and not requests
  np.testing.assert_array_equal(value, reading.read_image(tmp_path / "p.jpg", 3))


def resampled(folder, source, result, resampling="lanczos"):
  """Writes a mosaic that resamples (width, height) of a sparse file to another size."""
  with rasterio.open(
    folder / "s.tif", "w", driver="GTiff", width=65536, height=65536, count=1, dtype="uint8",
    tiled=True, blockxsize=512, blockysize=512, SPARSE_OK="TRUE",
  ):
    pass
  rects = "".join(
    f'<{tag} xOff="0" yOff="0" xSize="{size[0]}" ySize="{size[1]}"/>'
    for tag, size in (("SrcRect", source), ("DstRect", result)) if size
  )
  path = folder / "a.vrt"
  path.write_text(
    '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1">'
    f'<SimpleSource resampling="{resampling}"><SourceFilename relativeToVRT="1">s.tif</SourceFilename>'
    f"<SourceBand>1</SourceBand>{rects}</SimpleSource></VRTRasterBand></VRTDataset>"
  )
  return path


@pytest.mark.parametrize(("source", "result"), [
  ((65536, 65536), (1, 1)), (None, None), ((65536, 65536), (64, 64)), ((65536, 65536), (0, 0)),
  (("nan", 4), (4, 4)), (("x", 4), (4, 4)),
])
def test_a_mosaic_that_shrinks_too_much_at_once_is_refused(tmp_path, source, result):
  with pytest.raises(ImageError, match=r"a\.vrt shrinks .* too many to read at once.*gdalbuildvrt"):
    open_scene(resampled(tmp_path, source, result), 1)


@pytest.mark.parametrize(("source", "result", "resampling"), [
  ((128, 128), (64, 64), "average"), ((2048, 2048), (64, 64), "average"), ((8, 8), (64, 64), "cubic"),
  ((65536, 65536), (64, 64), "nearest"),
])
def test_a_mosaic_may_resample(tmp_path, source, result, resampling):
  with open_scene(resampled(tmp_path, source, result, resampling), 1) as scene:
    assert scene.read(Window(0, 0, 64, 64))[0].shape == (64, 64, 1)


@pytest.mark.parametrize("name", ["secret.tif", "a.vrt"])
def test_side_files_of_a_scene_or_its_parts_are_not_opened(tmp_path, server, name):  # noqa: F811
  url, requests = server
  vrt_of(tmp_path / "a.vrt", [("secret.tif", 0, 0, H, W)], H, W)
  write_tiff(tmp_path / "secret.tif", pixels(H, W))
  mask = vrt_of(tmp_path / "m.vrt", [(f"/vsicurl/{url}/a.png", 0, 0, H, W)], H, W).read_text()
  flag = '<Metadata><MDI key="INTERNAL_MASK_FLAGS_1">2</MDI></Metadata><VRTRasterBand'
  mask = mask.replace("<VRTRasterBand", flag, 1).replace('VRT="1', 'VRT="0')
  for side in (".msk", ".ovr"):
    (tmp_path / f"{name}{side}").write_text(mask)
  if name == "secret.tif":
    with contextlib.suppress(RasterioError), rasterio.open(tmp_path / name) as raster:
      raster.dataset_mask()
    assert requests  # The attack is real.
  requests.clear()
  if name == "secret.tif":  # A mask that is not a TIFF.
    with open_scene(tmp_path / name, 3) as opened:
      for read in (lambda w: opened.read(w), lambda w: opened.read(w, (4, 5)), opened.valid):
        with pytest.raises(ImageError, match=r"secret\.tif\.msk cannot be opened as an image"):
          read(Window(0, 0, W, H))
    with pytest.raises(ImageError, match=r"secret\.tif\.msk is not read in a mosaic"):
      open_scene(tmp_path / "a.vrt", 3)
  else:
    with open_scene(tmp_path / name, 3) as opened:
      np.testing.assert_array_equal(opened.read(Window(0, 0, W, H))[0], pixels(H, W))
      opened.read(Window(0, 0, W, H), (4, 5))
      assert opened.valid(Window(0, 0, 2, 2)).all()
  assert not requests


@pytest.mark.parametrize("suffix", ["tif", "jp2", "png", "vrt"])
def test_a_truncated_scene_is_an_error_that_names_it(tmp_path, suffix):
  path = tmp_path / ("p.tif" if suffix == "vrt" else f"p.{suffix}")
  with rasterio.open(path, "w", height=200, width=200, count=3, dtype="uint8") as file:
    file.write(np.moveaxis(pixels(200, 200), -1, 0))
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  if suffix == "vrt":
    path = vrt_of(tmp_path / "a.vrt", [("p.tif", 0, 0, 200, 200)], 200, 200)
  with pytest.raises(ImageError, match=path.name), open_scene(path, 3) as opened:
    opened.read(Window(0, 0, 200, 200))


@pytest.mark.parametrize("content", [b"", b"no scene", None])
def test_an_invalid_scene_is_named(tmp_path, content):
  if content is not None:
    (tmp_path / "a.tif").write_bytes(content)
  with pytest.raises(ImageError, match=r"a\.tif"):
    open_scene(tmp_path / "a.tif", 3)


def jp2_of(path, side, tile, style=b""):
  """Writes a small JP2 with headers that claim another size, other tiles and other precincts."""
  lossless = {"QUALITY": "100", "REVERSIBLE": "YES", "BLOCKXSIZE": 64, "BLOCKYSIZE": 64}
  data = write_tiff(path, pixels(64, 64), driver="JP2OpenJPEG", **lossless).read_bytes()
  at = data.index(b"ihdr") + 4
  data = data[:at] + struct.pack(">II", side, side) + data[at + 8 :]
  at = data.index(b"\xff\x51") + 6
  data = data[:at] + struct.pack(">6I", side, side, 0, 0, tile, tile) + data[at + 24 :]
  at = data.index(b"\xff\x52") if style == b"main" else data.index(b"\xff\x93")
  coding = b"\xff\x52\0\x0d\x01\0\0\x01\0\0\x04\x04\0\x01\0"  # Precincts of one pixel.
  return path.write_bytes(data[:at] + (coding if style else b"") + data[at:])


@pytest.mark.parametrize(("side", "tile", "style", "message"), [
  (60_000, 60_000, b"", "10800000000 values in more than 524288 code blocks"),
  (400_000, 1024, b"", "152881 tiles of 3 bands"), (2**31, 2**31 - 1, b"", "tiles|code blocks"),
  (1024, 1024, b"main", "3145728 values"), (1024, 1024, b"tile", "3145728 values"),
  (0, 64, b"", "damaged"), (64, 0, b"", "damaged"),
])
def test_jpeg_2000_bombs_are_refused_by_their_headers(tmp_path, side, tile, style, message):
  jp2_of(tmp_path / "a.jp2", side, tile, style)
  with pytest.raises(ImageError, match=rf"a\.jp2 cannot be opened as an image.*({message})"):
    open_scene(tmp_path / "a.jp2", 3)


@pytest.mark.parametrize(("height", "width"), [(1 << 20,) * 2, (1 << 19, 1 << 18), (1 << 17, 1 << 20)])
def test_a_scene_of_too_many_pixels_is_refused(tmp_path, height, width):
  write_tiff(tmp_path / "p.tif", pixels(8, 8, 1))
  path = vrt_of(tmp_path / "a.vrt", [("p.tif", 0, 0, height, width)], height, width, nodata=(None,))
  with pytest.raises(ImageError, match=rf"a\.vrt is {height} x {width}, more than .* pixels.*-srcwin"):
    open_scene(path, 1)


def test_the_files_of_a_mosaic_are_checked_again_when_they_change(tmp_path):
  part = write_tiff(tmp_path / "p.tif", pixels(8, 8, 1))
  path = vrt_of(tmp_path / "a.vrt", [("p.tif", 0, 0, 8, 8)], 8, 8, nodata=(None,))
  open_scene(path, 1).close()
  part.write_bytes(b"<OGRVRT/>")
  with pytest.raises(ImageError, match=r"p\.tif is a VRT or other XML"):
    open_scene(path, 1)
  part.write_bytes(b"GIF89a")
  with pytest.raises(ImageError, match=r"p\.tif cannot be opened as an image"):
    open_scene(path, 1)

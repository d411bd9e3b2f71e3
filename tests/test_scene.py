"""Scenes of every format: windows against the whole array, georeferences against GDAL's."""

import os
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from PIL import Image
from rasterio.windows import Window

from lgag_jax.geo.placement import read_world_file
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import opening, reading
from lgag_jax.imagery.reading import ImageError
from tests.test_reading import pixels, write_png, write_tiff

NORTH_UP = Affine(2, 0, 500_000, 0, -2, 3_100_000)
H, W = 41, 57


def windows(height=H, width=W):
  """Returns windows: the whole, a part, one pixel, across each border, around all, and outside."""
  return [
    Window(0, 0, width, height), Window(5, 7, 20, 16), Window(width - 1, height - 1, 1, 1),
    Window(-6, -9, 20, 20), Window(width - 8, height - 3, 20, 20),
    Window(-3, -4, width + 8, height + 7), Window(width, 0, 5, 5), Window(-30, 4, 10, 10),
  ]


def reference(array, valid, window):
  """Returns what `read` should return, computed pixel by pixel."""
  inside = np.zeros((window.height, window.width), bool)
  result = np.zeros((window.height, window.width, array.shape[-1]), array.dtype)
  for r in range(window.height):
    for c in range(window.width):
      row, col = r + window.row_off, c + window.col_off
      if 0 <= row < array.shape[0] and 0 <= col < array.shape[1] and valid[row, col]:
        inside[r, c], result[r, c] = True, array[row, col]
  if inside.any():
    for k in range(array.shape[-1]):
      values = [float(v) for v in result[..., k][inside]]
      mean = sum(values) / len(values)
      result[..., k][~inside] = round(mean) if array.dtype.kind in "iu" else mean
  return result, inside


def check(path, array, valid=None, **options):
  valid = np.ones(array.shape[:2], bool) if valid is None else valid
  with open_scene(path, array.shape[-1], **options) as opened:
    assert opened.dtype == array.dtype
    assert (opened.grid.height, opened.grid.width) == array.shape[:2]
    for window in windows(*array.shape[:2]):
      value, where = opened.read(window)
      expected, inside = reference(array, valid, window)
      np.testing.assert_array_equal(where, inside)
      assert value.dtype == array.dtype
      np.testing.assert_allclose(value, expected, rtol=1e-6)
      np.testing.assert_array_equal(opened.valid(window), inside)
    return opened.grid


PLACES = {
  "north-up": ("EPSG:32644", NORTH_UP), "rotated": ("EPSG:32644", NORTH_UP @ Affine.rotation(30)),
  "not-square": ("EPSG:32644", NORTH_UP @ Affine.scale(1, 3)),
  "degrees": ("EPSG:4326", Affine(1e-4, 0, 85.1, 0, -1e-4, 27.9)),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", ["tiff", "bigtiff", "cog", "jp2", "vrt"])
def test_a_scene_keeps_its_pixels_and_its_georeference(tmp_path, form, place):
  crs, transform = PLACES[place]
  array = pixels(H, W, 4, np.uint16)
  options = {"crs": crs, "transform": transform}
  path = write_tiff(tmp_path / "a.tif", array, **options, photometric="MINISBLACK", alpha="NO", **(
    {"BIGTIFF": "YES", "tiled": True, "blockxsize": 16, "blockysize": 16} if form == "bigtiff" else {}))
  if form != "tiff" and form != "bigtiff":
    target = tmp_path / f"b.{form}"
    with rasterio.open(path) as raster:
      drivers = {"cog": "COG", "jp2": "JP2OpenJPEG", "vrt": "VRT"}
      more = {"QUALITY": "100", "REVERSIBLE": "YES", "YCC": "NO"} if form == "jp2" else {}
      rasterio.shutil.copy(raster, target, driver=drivers[form], **more)
    path = target
  grid = check(path, array)
  assert grid.crs == rasterio.crs.CRS.from_user_input(crs)
  np.testing.assert_allclose(grid.transform[:6], transform[:6], rtol=1e-9)
  check(path, array[..., [3, 1, 0]], bands=(4, 2, 1))
  with pytest.raises(ImageError, match=rf"{path.name} has 4 channels, but the model needs 3.*--bands"):
    open_scene(path, 3)


@pytest.mark.parametrize("bands", [(1, 2), (1, 2, 5), (0, 1, 2)])
def test_invalid_bands_are_named(tmp_path, bands):
  path = write_tiff(tmp_path / "a.tif", pixels(channels=4))
  with pytest.raises(ImageError, match=r"a\.tif has 4 channels.*not name 3 of them.*--bands=4,3,2"):
    open_scene(path, 3, bands=bands)


def with_mask(path, mask, **options):
  with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, **options), rasterio.open(path, "r+") as raster:
    raster.write_mask(mask)


@pytest.mark.parametrize("kind", [
  "nodata", "nan", "infinite", "alpha", "alpha as data", "mask", "mask and nodata", "alpha and nodata",
])
def test_invalid_pixels_are_filled_with_the_mean(tmp_path, kind):
  random = np.random.default_rng(3)
  array, invalid = pixels(H, W, 3) // 2 + 9, random.random((H, W)) < 0.3
  invalid[10:, 20:] = True  # Some windows have no valid pixel.
  path, valid = tmp_path / "a.tif", ~invalid
  if kind == "nodata":
    for k in range(3):  # In one of the bands.
      array[invalid & (random.integers(0, 3, invalid.shape) == k), k] = 7
    valid = (array != 7).all(-1)
    write_tiff(path, array, nodata=7)
  elif kind in ("nan", "infinite"):
    array = array.astype(np.float32)
    array[invalid, 1] = np.nan if kind == "nan" else -np.inf
    write_tiff(path, array)
  elif kind.startswith("alpha"):
    alpha = np.where(invalid, 0, 1 + array[..., :1].max(-1) % 255).astype(np.uint8)
    if kind == "alpha and nodata":
      array[:5, :5] = 7
      valid = valid & (array != 7).all(-1)
    write_tiff(path, np.dstack([array, alpha]), photometric="RGB", alpha="YES",
               **({"nodata": 7} if kind == "alpha and nodata" else {}))
    if kind == "alpha as data":
      check(path, np.dstack([array, alpha]), np.ones_like(invalid))
      return
  else:
    if kind == "mask and nodata":
      array[3, :, 2] = 7
      valid = valid & (array != 7).all(-1)
    write_tiff(path, array, **({"nodata": 7} if kind == "mask and nodata" else {}))
    with_mask(path, ~invalid)
  check(path, array, valid)
  if array.dtype == np.uint8:  # Training reads the same values.
    value = reading.read_image(path, 3, Window(5, 7, 20, 16))
    np.testing.assert_array_equal(value, reference(array, valid, Window(5, 7, 20, 16))[0])


def test_only_the_bands_used_decide_validity(tmp_path):
  array = pixels(H, W, 3) | 1
  array[:9, :, 0] = 0
  path = write_tiff(tmp_path / "a.tif", array, nodata=0)
  check(path, array[..., [2, 1]], bands=(3, 2))
  check(path, array, (array > 0).all(-1))


def test_bands_of_a_mosaic_may_differ_in_type_and_a_band_may_be_used_twice(tmp_path):
  array = pixels(H, W)
  write_tiff(tmp_path / "p.tif", array)
  path = vrt_of(tmp_path / "a.vrt", [("p.tif", 0, 0, H, W)], H, W)
  path.write_text(path.read_text().replace('"Byte" band="2"', '"Int16" band="2"'))
  check(path, array.astype(np.int16))
  check(path, array[..., [2, 2, 0]], bands=(3, 3, 1))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_palette_is_expanded(tmp_path, suffix):
  picture = Image.fromarray(pixels(H, W)).quantize(40)
  picture.save(tmp_path / f"a.{suffix}")
  check(tmp_path / f"a.{suffix}", np.asarray(picture.convert("RGB")))
  check(tmp_path / f"a.{suffix}", np.asarray(picture)[..., None], bands=(1,))


def test_a_palette_of_sixteen_bits_is_expanded(tmp_path):
  array = pixels(H, W, 1, np.uint16) % 1000
  colours = {i: (i % 256, i // 4, 5, 255) for i in range(1000)}
  with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", height=H, width=W, count=1,
                     dtype="uint16", photometric="palette") as file:
    file.write(array[..., 0], 1)
    file.write_colormap(1, colours)
  table = np.uint8([colours[i][:3] for i in range(1000)])
  check(tmp_path / "a.tif", table[array[..., 0]])
  np.testing.assert_array_equal(reading.read_image(tmp_path / "a.tif", 3), table[array[..., 0]])


@pytest.mark.parametrize("name", [
  "a.png a.pgw", "a.png a.pngw", "a.png a.PGW", "a.jpg a.jgw", "a.jpg a.JPGW", "a.jpeg a.jgw",
  "a.tif a.tfw", "a.TIF a.TFW", "a.png a.wld", "a.jp2 a.j2w", "a.png none.wld",
])
def test_world_files_agree_with_gdal(tmp_path, name):
  image, world = (tmp_path / part for part in name.split())
  kind = {".tif": "GTiff", ".jp2": "JP2OpenJPEG", ".png": "PNG"}.get(image.suffix.lower(), "JPEG")
  with rasterio.open(tmp_path / "m.tif", "w", driver="GTiff", height=H, width=W, count=3,
                     dtype="uint8") as file:
    file.write(np.moveaxis(pixels(H, W), -1, 0))
  with rasterio.open(tmp_path / "m.tif") as raster:
    rasterio.shutil.copy(raster, image, driver=kind)
  for side in tmp_path.glob("*.aux.xml"):
    side.unlink()
  world.write_text("1.5\n0.25\n-0.5 \n-2\n500000.25\r\n3100000.125\n")
  with rasterio.open(image) as theirs, open_scene(image, 3) as ours:
    if kind != "JP2OpenJPEG":  # Of which GDAL reads no world file.
      assert ours.grid.transform.almost_equals(theirs.transform, 1e-9)
    expected = Affine(1.5, -0.5, 499_999.75, 0.25, -2, 3_100_001.0)
    assert ours.grid.transform == (Affine.identity() if "none" in name else expected)


def test_a_files_own_georeference_takes_precedence(tmp_path):
  path = write_tiff(tmp_path / "a.tif", pixels(), crs="EPSG:32644", transform=NORTH_UP)
  (tmp_path / "a.tfw").write_text("broken")
  with open_scene(path, 3) as opened:
    assert opened.grid.transform == NORTH_UP


@pytest.mark.parametrize("text", [
  "", "1 0 0 -1 5", "1 0 0 -1 5 6 7", "1 0 0 -1 5 nan", "1 0 0 -1 inf 6", "0 0 0 -1 5 6",
  "1,5 0 0 -1 5 6", "1 2 2 4 0 0", "<a/>", "1 0 0 -1 5 6" + " " * 2000, None,
])
def test_an_invalid_world_file_is_named(tmp_path, text):
  write_png(tmp_path / "a.png", pixels())
  world = tmp_path / "a.pgw"
  os.mkfifo(world) if text is None else world.write_text(text)
  with pytest.raises(ImageError, match=r"a\.pgw"):
    open_scene(tmp_path / "a.png", 3)
  with pytest.raises(ImageError, match=r"a\.pgw"):
    read_world_file(world)


def vrt_of(path, sources, height, width, *, nodata=(None,) * 3, mask=False, head=""):
  """Writes a mosaic of (name, row, col, height, width)."""
  def band(number, source_band, extra):
    parts = "".join(
      f'<ComplexSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
      f"<SourceBand>{source_band}</SourceBand>"
      f'<SrcRect xOff="0" yOff="0" xSize="{w}" ySize="{h}"/>'
      f'<DstRect xOff="{c}" yOff="{r}" xSize="{w}" ySize="{h}"/></ComplexSource>'
      for name, r, c, h, w in sources
    )
    return f'<VRTRasterBand dataType="Byte" band="{number}">{extra}{parts}</VRTRasterBand>'

  bands = "".join(
    band(k, k, "" if value is None else f"<NoDataValue>{value}</NoDataValue>")
    for k, value in enumerate(nodata, 1)
  )
  if mask:
    bands += f"<MaskBand>{band(1, 'mask,1', '')}</MaskBand>"
  size = f'rasterXSize="{width}" rasterYSize="{height}"'
  path.write_text(f"{head}<VRTDataset {size}>{bands}</VRTDataset>")
  return path


@pytest.mark.parametrize("kind", ["plain", "per-band nodata", "masked", "gap", "four types"])
def test_a_mosaic_equals_its_parts(tmp_path, kind):
  array, valid = pixels(H, W) | 1, np.ones((H, W), bool)
  (tmp_path / "tiles & 100%").mkdir()
  sources = []
  random = np.random.default_rng(1)
  for n, (r, c) in enumerate([(0, 0), (0, 30), (25, 0), (25, 30)]):
    part = array[r : r + (25 if r == 0 else H), c : c + (30 if c == 0 else W)]
    name, invalid = f"tiles & 100%/{n}.tif", random.random(part.shape[:2]) < 0.3
    if kind == "gap" and n == 2:
      valid[r:, :c + 30] = False
      continue
    if kind == "four types" and n:
      name = name.replace("tif", ("", "png", "jp2", "png")[n])
      more = {"QUALITY": "100", "REVERSIBLE": "YES"} if n == 2 else {}
      with rasterio.open(tmp_path / name, "w", height=part.shape[0], width=part.shape[1], count=3,
                         dtype="uint8", **more) as file:
        file.write(np.moveaxis(part, -1, 0))
    else:
      write_tiff(tmp_path / name, part)
    if kind == "masked":
      with_mask(tmp_path / name, ~invalid)
      valid[r : r + part.shape[0], c : c + part.shape[1]] = ~invalid
    sources.append((name.replace("&", "&amp;"), r, c, *part.shape[:2]))
  nodata = {"per-band nodata": (3, 5, None), "gap": (0, 0, 0)}.get(kind, (None,) * 3)
  if kind == "per-band nodata":
    valid = (array[..., 0] != 3) & (array[..., 1] != 5)
    assert 0 < np.sum(~valid) < H * W
  path = vrt_of(tmp_path / "a.vrt", sources, H, W, nodata=nodata, mask=kind == "masked",
                head='\ufeff<?xml version="1.0"?>\n<!-- by hand -->')
  check(path, array, valid)


def test_the_size_of_a_window_is_limited(tmp_path, monkeypatch):
  path = write_tiff(tmp_path / "a.tif", pixels(H, W))
  monkeypatch.setattr(opening, "MAX_BYTES", 20 * 20 * 3)
  with open_scene(path, 3) as opened:
    assert opened.read(Window(-5, -5, 20, 20))[0].shape == (20, 20, 3)
    assert opened.read(Window(0, 0, W, H), (10, 10))[0].shape == (10, 10, 3)
    for read in (opened.read, opened.valid):
      with pytest.raises(ImageError, match=r"a\.tif is 41 x 57.*a window of 20 x 21.*smaller windows"):
        read(Window(0, 0, 21, 20))


def test_a_coarse_read_is_the_mean_of_valid_pixels(tmp_path):
  array, invalid = pixels(60, 80, 2, np.uint16), np.zeros((60, 80), bool)
  invalid[:30, :40] = np.random.default_rng(0).random((30, 40)) < 0.7
  invalid[40:50, 60:] = True
  path = write_tiff(tmp_path / "a.tif", array, tiled=True, blockxsize=16, blockysize=16)
  with_mask(path, ~invalid)
  nodata = write_tiff(tmp_path / "b.tif", np.where(invalid[..., None], 0, array | 1), nodata=0)
  for name in (path, nodata):
    data = array if name == path else array | 1
    with open_scene(name, 2) as opened:
      value, valid = opened.read(Window(-20, 0, 120, 60), (6, 12))
    assert not valid[:, :2].any() and not valid[:, 10:].any()
    for r in range(6):
      for c in range(8):
        block = ~invalid[10 * r : 10 * r + 10, 10 * c : 10 * c + 10]
        assert valid[r, c + 2] == block.any()
        if block.any():
          mean = data[10 * r : 10 * r + 10, 10 * c : 10 * c + 10][block].mean(axis=0)
          np.testing.assert_allclose(value[r, c + 2], mean, atol=1)


MEASURE = """
import json, sys
from rasterio.windows import Window
from lgag_jax.geo.scene import open_scene
peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before = peak()
with open_scene(sys.argv[1], 3) as scene:
  for row in range(0, 4000, 500):
    scene.read(Window(0, row, 500, 500))
  scene.read(Window(0, 0, 40_000, 4000), (40, 400))
print((peak() - before) / 1024)
"""


def test_a_wide_scene_in_strips_takes_little_memory(tmp_path):
  path = tmp_path / "a.tif"
  profile = {"height": 4000, "width": 40_000, "count": 3, "dtype": "uint8"}
  with rasterio.open(path, "w", driver="GTiff", compress="deflate", blockysize=16, sparse_ok=True,
                     interleave="pixel", **profile) as file:
    file.write(np.ones((3, 16, 40_000), np.uint8), window=Window(0, 3984, 40_000, 16))
  run = subprocess.run(
    [sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True, timeout=60
  )
  assert float(run.stdout) < 250  # MiB; the whole scene takes 458.


@pytest.mark.parametrize(("scale", "offset"), [(0.0001, 0.0), (1.0, -0.1), (2.0, 5.0)])
def test_scales_and_offsets_are_refused(tmp_path, scale, offset):
  path = write_tiff(tmp_path / "a.tif", pixels(5, 6, 3, np.uint16))
  rasterio.shutil.copy(path, tmp_path / "plain.vrt", driver="VRT")
  with rasterio.open(path, "r+") as raster:
    raster.scales, raster.offsets = (1.0, scale, 1.0), (0.0, offset, 0.0)
  rasterio.shutil.copy(path, tmp_path / "scaled.vrt", driver="VRT")
  words = f"band 2 the scale {scale:g} and the offset {offset:g}.*gdal_translate -unscale.*gdal_edit"
  for name in ("a.tif", "plain.vrt", "scaled.vrt"):
    with pytest.raises(ImageError, match=words):
      open_scene(tmp_path / name, 3)
  with pytest.raises(ImageError, match=words):
    reading.read_pixels(path, 3)
  write_tiff(path, pixels(5, 6, 3, np.uint16))
  with pytest.raises(ImageError, match=r"scaled\.vrt gives " + words):
    open_scene(tmp_path / "scaled.vrt", 3)

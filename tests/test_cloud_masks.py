"""Cloud masks that ukis-csmask makes: their grid, blocks and values, and that --clouds takes them."""

import contextlib
import importlib.util

import numpy as np
import pytest
import rasterio
from affine import Affine

from lgag_jax.geo.companions import SceneFiles
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery.opening import ImageError
from lgag_jax.mapping import cloud_masks
from lgag_jax.options.clouds import Settings
from lgag_jax.runtime import lock
from tests.test_reading import write_tiff

PLACE = Affine(10, 0, 500000, 0, -10, 5200000)
_BRIGHT, _DARK = 6000, 900


def write(path, pixels, *, place=PLACE, crs="EPSG:32633", nodata=0):
  return write_tiff(path, pixels, crs=crs, transform=place, nodata=nodata)


def scene(height=210, width=300, bands=4):
  """Returns dark ground with two bright squares, and a corner without data."""
  pixels = np.full((height, width, bands), _DARK, np.uint16)
  pixels[30:90, 60:150] = pixels[150:180, 210:270] = _BRIGHT
  pixels[:30, :30] = 0
  return pixels


def settings(folder, source, **options):
  return Settings(str(source), str(folder / "clouds"), **{"bands": (1, 2, 3, 4), **options})


def mask_of(path):
  with rasterio.open(path) as raster:
    return raster.read(1), Grid.from_raster(raster, path)


@pytest.fixture
def bright(monkeypatch):
  """Replaces the network: what is bright is a cloud. Returns the shapes that it saw."""
  shapes = []

  def find(reflectances):
    assert reflectances.dtype == np.float32
    shapes.append(reflectances.shape)
    return reflectances.mean(-1) > 0.3

  monkeypatch.setattr(cloud_masks, "finder", lambda _: find)
  return shapes


@pytest.mark.parametrize("block", [1020, 32])
def test_a_mask_has_pixels_of_30_m_and_shows_no_blocks(tmp_path, bright, monkeypatch, block):
  monkeypatch.setattr(cloud_masks, "_BLOCK", block)
  pixels = scene()
  (path,) = cloud_masks.write(settings(tmp_path, write(tmp_path / "a.tif", pixels)))
  mask, grid = mask_of(path)
  assert path == tmp_path / "clouds/a.tif" and grid.transform == PLACE @ Affine.scale(3)
  expected = (pixels[::3, ::3, 0] == _BRIGHT).astype(np.uint8)
  expected[:10, :10] = 255
  np.testing.assert_array_equal(mask, expected)
  side = block + 2 * cloud_masks._MARGIN
  assert len(bright) == (1 if block == 1020 else 3 * 4) and max(bright) <= (side, side, 4)


@pytest.mark.parametrize("block", [1020, 32])
@pytest.mark.parametrize(("height", "width"), [(211, 300), (210, 302), (212, 301), (2, 2)])
def test_ground_at_the_border_is_no_nodata(tmp_path, bright, monkeypatch, block, height, width):
  """A pixel of the mask that the border cuts shows what lies in the scene."""
  monkeypatch.setattr(cloud_masks, "_BLOCK", block)
  pixels = np.full((height, width, 4), _DARK, np.uint16)
  pixels[3 * (height // 3) :, 30:60] = pixels[60:90, 3 * (width // 3) :] = _BRIGHT
  cloud_masks.write(settings(tmp_path, write(tmp_path / "a.tif", pixels)))
  mask, grid = mask_of(tmp_path / "clouds/a.tif")
  assert mask.shape == (grid.height, grid.width) == (-(-height // 3), -(-width // 3))
  np.testing.assert_array_equal(mask, (pixels[::3, ::3, 0] == _BRIGHT).astype(np.uint8))


def test_the_mask_hides_its_scene(tmp_path, bright):
  source = write(tmp_path / "a.tif", scene())
  cloud_masks.write(settings(tmp_path, source))
  _, grid = mask_of(source)
  cover = SceneFiles(source, clouds=tmp_path / "clouds/a.tif").cover(grid)
  assert cover.kind == "mask" and cover.unknown == pytest.approx(30 * 30 / (210 * 300))
  assert cover.clouded == pytest.approx((60 * 90 + 30 * 60) / (210 * 300))


def test_a_mask_is_made_once_and_no_other_file_is_replaced(tmp_path, bright):
  source = write(tmp_path / "a.tif", scene())
  cloud_masks.write(settings(tmp_path, source))
  cloud_masks.write(settings(tmp_path, source))
  assert len(bright) == 1
  with pytest.raises(ValueError, match=r"clouds/a\.tif would be replaced, .* move it, or use another"):
    cloud_masks.write(settings(tmp_path, source, level="l1c"))
  write(source, scene() + 1)
  with pytest.raises(ValueError, match=r"a\.tif would be replaced"):
    cloud_masks.write(settings(tmp_path, source))


def test_two_runs_never_write_one_output(tmp_path, bright):
  source = write(tmp_path / "a.tif", scene())
  with (
    contextlib.closing(lock.acquire(tmp_path / "clouds", "output")),
    pytest.raises(ValueError, match=r"clouds is in use by process \d+.* use another --output"),
  ):
    cloud_masks.write(settings(tmp_path, source))
  assert not bright and [path.name for path in (tmp_path / "clouds").iterdir()] == ["lock"]
  (tmp_path / "clouds" / ".rows-a.tif").write_bytes(b"")  # Of a killed run.
  cloud_masks.write(settings(tmp_path, source))
  assert {path.name for path in (tmp_path / "clouds").iterdir()} == {"lock", "a.tif"}


@pytest.mark.parametrize(("options", "message"), [
  ({"quantification": 1.0}, r"a\.tif has reflectances up to 6e\+03 with --quantification=1 and --add_"),
  ({"quantification": 1e6}, r"reflectances up to 0\.006 .* Set both as the product's metadata say"),
])
def test_values_that_are_no_reflectances_are_refused(tmp_path, bright, options, message):
  source = write(tmp_path / "a.tif", scene())
  with pytest.raises(ImageError, match=message):
    cloud_masks.write(settings(tmp_path, source, **options))
  assert not bright and not list((tmp_path / "clouds").glob("*.tif"))


def test_scale_and_offset_of_landsat_give_reflectances():
  pixels = np.array([7273, 43636], np.uint16)
  found = cloud_masks._reflectances(
    pixels, Settings("a", "b", (1, 2, 3, 4), quantification=1 / 2.75e-5, add_offset=-0.2 / 2.75e-5))
  np.testing.assert_allclose(found, [0, 1], atol=1e-4)


def test_scenes_without_a_place_or_data_are_refused(tmp_path, bright):
  for name, options, message in (
    ("a.tif", {"crs": None}, "has no place on the Earth"), ("b.tif", {"nodata": _DARK}, "has no data"),
  ):
    source = write(tmp_path / name, np.full((60, 60, 4), _DARK, np.uint16), **options)
    with pytest.raises(ImageError, match=rf"{name} {message}"):
      cloud_masks.write(settings(tmp_path, source))


def test_the_flags_are_checked(tmp_path):
  for bands in ((), (1, 2, 3), (0, 1, 2, 3), (1, 2, 3, 3)):
    with pytest.raises(ValueError, match=r"--bands=.*: must be 4 or 6 different numbers from 1: the"):
      settings(tmp_path, "a.tif", bands=bands)
  with pytest.raises(ValueError, match="--level=l3: must be l1c or l2a"):
    settings(tmp_path, "a.tif", level="l3")


@pytest.mark.skipif(bool(importlib.util.find_spec("ukis_csmask")), reason="ukis-csmask is installed")
def test_without_the_package_the_remedy_is_named(tmp_path):
  with pytest.raises(ImportError, match=r"ukis-csmask: pip install 'lgag_jax\[clouds\]'"):
    cloud_masks.write(settings(tmp_path, write(tmp_path / "a.tif", scene())))


def fractal(side, seed):
  """Returns noise f64[side, side] with a spectrum like that of clouds, mean 0 and deviation 1."""
  frequencies = np.fft.fftfreq(side)
  size = np.hypot(*np.meshgrid(frequencies, frequencies))
  size[0, 0] = 1
  noise = np.random.default_rng(seed).normal(size=(side, side))
  field = np.fft.ifft2(np.fft.fft2(noise) / size**1.5).real
  return (field - field.mean()) / field.std()


@pytest.mark.longest
@pytest.mark.parametrize(("bands", "level"), [(4, "l2a"), (6, "l1c")])
def test_the_networks_find_clouds_in_blocks_as_in_the_whole(tmp_path, monkeypatch, bands, level):
  csmask = pytest.importorskip(
    "ukis_csmask.mask", reason="ukis-csmask is not installed: pip install .[clouds]")
  monkeypatch.setattr(cloud_masks, "_BLOCK", 204)
  soil = np.array([0.08, 0.11, 0.15, 0.24, 0.3, 0.25])[:bands]
  white = np.array([0.55, 0.55, 0.55, 0.58, 0.45, 0.33])[:bands]
  thick = np.clip((fractal(510, 3) - 0.3) * 1.2, 0, 1)
  share, texture = thick[..., None], fractal(510, 1)[..., None]
  reflectances = soil * (1 - share) + white * (0.8 + 0.25 * texture) * share
  pixels = (1e4 * reflectances).clip(50, 12_000).astype(np.uint16)
  source = write(tmp_path / "a.tif", pixels, place=PLACE @ Affine.scale(3))
  (path,) = cloud_masks.write(
    settings(tmp_path, source, bands=tuple(range(1, bands + 1)), level=level))
  mask, _ = mask_of(path)
  names = ["blue", "green", "red", "nir", "swir16", "swir22"][:bands]
  whole = csmask.CSmask(pixels.astype(np.float32) / 1e4, names, product_level=level).valid[..., 0]
  assert (mask[thick > 0.8] == 1).mean() > 0.8 and (mask == 0).any()
  assert (mask == 1 - whole).mean() > 0.999

"""Small files far finer than the grid that they are read on take little memory, and are read right."""


import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from lgag_jax.catalogues import composites
from lgag_jax.catalogues.images import Band, Image
from lgag_jax.geo import clouds, pair, windows
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.pair import open_pair
from lgag_jax.geo.reference import open_reference
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery.opening import ImageError
from lgag_jax.options.area import Imagery
from tests.peak_memory import growths

UTM = CRS.from_epsg(32633)
SIDE = 256.0  # Metres.
MEASURE = """
import pathlib, sys
from rasterio.windows import Window
from lgag_jax.geo import clouds
from lgag_jax.geo.pair import open_pair
from lgag_jax.geo.scene import open_scene
from tests import peak_memory, test_hostile_grids as here
folder = pathlib.Path(sys.argv[1])
scene = folder / "scene.tif"
def cover(name):
  with open_scene(scene, 3) as opened:
    mask = clouds.Clouds(open_scene(folder / name, 1, bands=(1,)), opened.grid, scene)
  return mask.count()
def both(name):
  with open_pair(scene, folder / name, 3) as opened:
    opened.read(Window(0, 0, 64, 64))
uses = {
  "plain": lambda: open_scene(folder / "corner.tif", 1).read(Window(0, 0, 12000, 12000)),
  "clouds": lambda: cover("clouds.tif"), "clouds in a corner": lambda: cover("corner.tif"),
  "before": lambda: both("strip.tif"), "before, standing": lambda: both("tall.tif"),
  "mask": lambda: here.label(folder / "fine.tif"), "area": lambda: here.read(folder / "fine.tif"),
}
peak_memory.print_growths(uses)
"""


def write(path, height, width, bands=3, side=SIDE, values=None, **options):
  """Writes a TIFF over `side` metres, without data or with `values` [bands, H, W]."""
  transform = Affine(side / width, 0, 5e5, 0, -side / height, 5e6)
  dtype = "uint8" if values is None else values.dtype
  profile = {"height": height, "width": width, "count": bands, "dtype": dtype, "crs": UTM}
  if values is None:
    options |= {"tiled": True, "blockxsize": 2048, "blockysize": 512, "compress": "deflate"}
  profile |= {"driver": "GTiff", "transform": transform, "sparse_ok": True}
  with rasterio.open(path, "w", **profile, **options) as raster:
    if values is not None:
      raster.write(values)
  return path


def grid(pixels):
  return Grid(pixels, pixels, UTM, Affine(SIDE / pixels, 0, 5e5, 0, -SIDE / pixels, 5e6))


def read(path, pixels=64):
  """Returns a file's pixels [H, W, 3] as an image of an area."""
  image = Image("a", tuple(Band(str(path), band) for band in (1, 2, 3)), shapely.box(0, 0, 1, 1))
  return composites.read_composite([image], grid(pixels), 3, Imagery())[0]


def label(path, pixels=64):
  """Returns the classes u8[H, W] that a mask gives a scene."""
  with open_reference(path, grid(pixels), ("landslide",)) as reference:
    return reference.read(Window(0, 0, pixels, pixels))


@pytest.mark.longest
def test_finer_grids_take_little_memory(tmp_path):
  write(tmp_path / "scene.tif", 64, 64, values=np.ones((3, 64, 64), np.uint8))
  write(tmp_path / "clouds.tif", 1 << 13, 1 << 13, bands=1)
  write(tmp_path / "corner.tif", 1 << 15, 1 << 15, bands=1, side=4.0)  # In one pixel of the scene.
  write(tmp_path / "strip.tif", 64, 1 << 19)
  write(tmp_path / "tall.tif", 1 << 17, 64)
  write(tmp_path / "fine.tif", 6000, 6000)
  assert all(path.stat().st_size < 50_000 for path in tmp_path.iterdir())
  peaks = growths(MEASURE, tmp_path)
  assert len(peaks) == 7 and peaks.pop("plain") > 400  # MiB: the attack is real.
  assert max(peaks.values()) < 350, peaks


def test_a_grid_of_parts_is_read_as_one(tmp_path, monkeypatch):
  values = np.random.default_rng(0).integers(1, 12, (3, 350, 750), np.uint8)
  fine = write(tmp_path / "fine.tif", 350, 750, values=values)
  scene = write(tmp_path / "scene.tif", 50, 50, values=np.ones((3, 50, 50), np.uint8))

  def all_of():
    with open_scene(fine, 1, bands=(1,)) as opened, open_pair(scene, fine, 3) as both:
      mask = clouds.Clouds(opened, grid(50), scene)
      return (
        mask._values(grid(50).transform, (50, 50)), both.read(Window(0, 0, 50, 50))[0], read(fine, 50)
      )

  whole = all_of()
  monkeypatch.setattr(clouds, "_MOST_PIXELS", 3000)
  monkeypatch.setattr(pair, "_MOST_PIXELS", 30_000)
  monkeypatch.setattr(composites, "_WARP_BYTES", 300_000)
  parts = all_of()
  np.testing.assert_array_equal(whole[0], values[0, 3::7, 7::15])
  np.testing.assert_array_equal(parts[0], whole[0])
  mean = values.reshape(3, 50, 7, 50, 15).mean((2, 4)).transpose(1, 2, 0)
  assert np.abs(whole[2] - mean).max() <= 0.5 + 1e-6
  np.testing.assert_array_equal(parts[2], whole[2])
  assert np.abs(parts[1][..., 3:].astype(int) - whole[1][..., 3:]).max() <= 1  # Borders of parts.


def test_strips_before_are_averaged_along_their_fine_axis(tmp_path):
  scene = write(tmp_path / "scene.tif", 64, 64, values=np.ones((3, 64, 64), np.uint8))
  row, col = np.mgrid[:64, :64]
  ground = np.stack([20 + 3 * row, 20 + 3 * col, 200 - row - col])
  for name, shape in (("strip", (1, 1000)), ("tall", (1000, 1))):
    values = np.kron(ground, np.ones((1, *shape))).astype(np.uint8)
    before = write(tmp_path / f"{name}.tif", *values.shape[1:], values=values)
    with open_pair(scene, before, 3) as opened:
      found = opened.read(Window(0, 0, 64, 64))[0][..., 3:].astype(int)
    np.testing.assert_allclose(found, np.moveaxis(ground, 0, -1), atol=2)


@pytest.mark.parametrize("most", [25, 100, 1000])
def test_parts_cover_a_grid_once(most):
  file = Grid(3000, 2000, CRS.from_epsg(4326), Affine(1e-6, 0, 15.0, 0, -1e-6, 45.16))
  to_file = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
  counts = np.zeros((30, 20), int)
  for rows, cols, below in windows.parts_below(
    "a.tif", grid(30).transform, (30, 20), to_file, file, most, centres=True
  ):
    counts[rows, cols] += 1
    assert sum(window.height * window.width for window, _ in below) <= most
  assert (counts == 1).all()


def test_a_pixel_over_too_many_is_refused(tmp_path):
  scene = write(tmp_path / "scene.tif", 2, 2, values=np.ones((3, 2, 2), np.uint8))
  write(tmp_path / "fine.tif", 16384, 16384)
  message = r"fine\.tif has \d{8} pixels in 1 x 1 of the grid .*more than \d{8}: reduce it first"
  with open_pair(scene, tmp_path / "fine.tif", 3) as opened, pytest.raises(ImageError, match=message):
    opened.read(Window(0, 0, 2, 2))
  with pytest.raises(ImageError, match=message):
    read(tmp_path / "fine.tif", 2)
  write(tmp_path / "mask.tif", 16384, 16384, bands=1)
  with pytest.raises(ImageError, match=r"mask\.tif has \d{9} pixels in 64 x 64 of the grid"):
    label(tmp_path / "mask.tif")
  assert not label(tmp_path / "mask.tif", 256).any()
  with open_scene(tmp_path / "fine.tif", 1, bands=(1,)) as opened:  # The nearest pixel is known.
    assert clouds.Clouds(opened, grid(2), scene).count()[1] == 4

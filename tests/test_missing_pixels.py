"""All that says "missing" counts in a map of an area, as it does in a map of a scene."""

import dataclasses

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from lgag_jax.catalogues import composites, image_lists
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scene import open_scene
from lgag_jax.options.area import Imagery
from tests.area_data import EPSG, NORTH, WEST

SIDE = 128
TRANSFORM = Affine(10, 0, WEST, 0, -10, NORTH)
RGB = Imagery(assets=("1", "2", "3"))


def write(path, ways, hidden=SIDE // 2):
  """Writes an image whose left quarter is 0, and whose first rows a mask or an alpha band hides."""
  values = np.random.default_rng(1).integers(1, 255, (SIDE, SIDE, 3), np.uint8)
  values[:, : SIDE // 4] = 0
  shown = np.full((SIDE, SIDE), 255, np.uint8)
  shown[:hidden] = 0
  bands = 4 if "alpha" in ways else 3
  with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
    path, "w", driver="GTiff", height=SIDE, width=SIDE, count=bands, dtype="uint8", crs=f"EPSG:{EPSG}",
    transform=TRANSFORM, nodata=0 if "nodata" in ways else None, photometric="RGB",
    **{"alpha": "YES"} if bands == 4 else {},
  ) as raster:
    raster.write(np.moveaxis(values, -1, 0), [1, 2, 3])
    if bands == 4:
      raster.write(shown, 4)
      raster.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    if "mask" in ways:
      raster.write_mask(shown > 0)
  return values


def valid_in_map(path, nodata=None, gsd=10.0):
  (image,) = image_lists.read_images([str(path)], 3, RGB)
  bands = tuple(dataclasses.replace(band, nodata=nodata) for band in image.bands)
  side = round(SIDE * 10 / gsd)
  grid = Grid(side, side, rasterio.crs.CRS.from_epsg(EPSG), Affine(gsd, 0, WEST, 0, -gsd, NORTH))
  return composites.read_image(dataclasses.replace(image, bands=bands), grid, RGB)


@pytest.mark.parametrize("ways", ["nodata", "mask", "alpha", "nodata mask", "nodata alpha"])
def test_pixels_are_missing_in_a_map_as_in_a_scene(tmp_path, ways):
  write(tmp_path / "a.tif", ways)
  with open_scene(tmp_path / "a.tif", 3, bands=(1, 2, 3)) as scene:
    expected = scene.read(Window(0, 0, SIDE, SIDE))[1]
  hidden = 0.5 if "mask" in ways or "alpha" in ways else 1.0
  assert expected.mean() == hidden * (0.75 if "nodata" in ways else 1.0)
  np.testing.assert_array_equal(valid_in_map(tmp_path / "a.tif")[1], expected)


@pytest.mark.parametrize("nodata", [300.0, float("nan"), -9999.0, 7.0])
def test_a_catalogues_nodata_adds_to_the_files(tmp_path, nodata):
  values = write(tmp_path / "a.tif", "nodata mask")
  expected = (values != 0).all(axis=-1) & (values != nodata).all(axis=-1)
  expected[: SIDE // 2] = False
  np.testing.assert_array_equal(valid_in_map(tmp_path / "a.tif", nodata)[1], expected)


@pytest.mark.parametrize(("share", "hidden"), [(2, 64), (2, 63), (4, 65)])
def test_a_hidden_pixel_changes_no_average(tmp_path, share, hidden):
  values = write(tmp_path / "a.tif", "nodata mask", hidden).astype(float)
  pixels, valid = valid_in_map(tmp_path / "a.tif", gsd=10.0 * share)
  side = SIDE // share
  expected = np.ones((side, side), bool)
  expected[: -(-hidden // share)] = False  # With a row that is hidden in part.
  expected[:, : side // 4] = False
  np.testing.assert_array_equal(valid, expected)
  means = values.reshape(side, share, side, share, 3).mean(axis=(1, 3))
  np.testing.assert_allclose(pixels[valid], means[valid], atol=0.51)

"""Images before and cloud masks on both sides of the 180th meridian are read whole."""

import logging

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from lgag_jax.geo import clouds, pair
from lgag_jax.geo.companions import SceneFiles
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery.opening import ImageError
from lgag_jax.mapping import scene_plans
from lgag_jax.options.mapping import Options

SIDE = 64
WINDOW = Window(0, 0, SIDE, SIDE)
STEP = 0.2 / SIDE  # Degrees.
BEYOND = Affine(STEP, 0, 179.9, 0, -STEP, -16.0)
SCENES = {
  "degrees beyond 180": ("EPSG:4326", BEYOND),
  "degrees beyond -180": ("EPSG:4326", Affine.translation(-360, 0) @ BEYOND),
  "UTM": ("EPSG:32760", Affine(300, 0, 810000, 0, -300, 8222000)),
  "Mercator": ("EPSG:3832", Affine(300, 0, 3328000, 0, -300, -1805000)),
}
FILES = {
  "world": ("EPSG:4326", Affine(0.1, 0, -180, 0, -0.1, -15), (25, 3600)),
  "world from 0 to 360": ("EPSG:4326", Affine(0.1, 0, 0, 0, -0.1, -15), (25, 3600)),
  "beyond 180": ("EPSG:4326", Affine(0.01, 0, 179.5, 0, -0.01, -15.5), (120, 120)),
  "beyond -180": ("EPSG:4326", Affine(0.01, 0, -180.5, 0, -0.01, -15.5), (120, 120)),
  "Web Mercator": (
    "EPSG:3857", Affine(10018.754171394622, 0, -20037508.342789244, 0, -10000, -1750000), (16, 4000)),
  "UTM": ("EPSG:32760", Affine(500, 0, 790000, 0, -500, 8270000), (220, 180)),
}
# All scenes with two files, and a scene in degrees and one in metres with the others.
CASES = [
  *((scene, file) for scene in SCENES for file in ("world", "beyond 180")),
  *(("degrees beyond 180", file) for file in ("world from 0 to 360", "beyond -180", "UTM")),
  *(("UTM", file) for file in ("world from 0 to 360", "beyond -180", "Web Mercator")),
]


def write(path, values, crs, transform):
  values = np.atleast_3d(values)
  with rasterio.open(
    path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=values.shape[2],
    dtype=values.dtype, crs=crs, transform=transform, photometric="MINISBLACK",
  ) as raster:
    raster.write(np.moveaxis(values, -1, 0))
  return path


def east_of_180(crs, transform, shape):
  """Returns how many degrees the centres of pixels lie east of the 180th meridian, f64[h, w]."""
  cols, rows = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
  x, y = transform @ (cols, rows)
  to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
  return np.asarray(to_degrees.transform(x, y)[0]) % 360 - 180


def images(tmp_path, scene, file):
  """Writes a scene, and an image whose values grow with the longitude around the meridian."""
  after = write(tmp_path / "after.tif", np.full((SIDE, SIDE, 1), 9, np.uint8), *SCENES[scene])
  crs, transform, shape = FILES[file]
  values = np.clip(100 + 100 * east_of_180(crs, transform, shape), 1, 250).astype(np.uint8)
  return after, write(tmp_path / "before.tif", values, crs, transform)


@pytest.mark.parametrize(("scene", "file"), CASES)
def test_an_image_before_reaches_both_sides(tmp_path, scene, file):
  after, before = images(tmp_path, scene, file)
  expected = 100 + 100 * east_of_180(*SCENES[scene], (SIDE, SIDE))
  with pair.open_pair(after, before, 1) as both:
    pixels, valid = both.read(WINDOW)
    assert valid.all() and both.covered() == 1.0
    assert np.abs(pixels[..., 1] - expected).max() < 8  # The pixels of the world are 10 values wide.
    half = Window(SIDE // 2, 0, SIDE // 2, SIDE)
    assert np.abs(both.read(half)[0][..., 1].astype(float) - expected[:, SIDE // 2:]).max() < 8


@pytest.mark.parametrize(("scene", "file"), CASES)
def test_a_cloud_mask_reaches_both_sides(tmp_path, scene, file):
  after, mask = images(tmp_path, scene, file)
  with rasterio.open(mask, "r+") as raster:
    values = raster.read(1)
    raster.write((values > 105).astype(np.uint8), 1)  # Cloud more than 0.05 degrees east of it.
  with open_scene(after, 1) as opened:
    found, cover = clouds.open_clouds(mask, after, opened.grid, "mask")
  hidden, east = found.hidden(WINDOW, (SIDE, SIDE)), east_of_180(*SCENES[scene], (SIDE, SIDE))
  found.close()
  assert cover.unknown == 0.0 and cover.clouded == pytest.approx(hidden.mean())
  assert hidden[east > 0.11].all() and not hidden[east < -0.01].any()


def test_files_on_the_other_side_of_the_earth_are_refused(tmp_path):
  crs, place = SCENES["degrees beyond 180"]
  after = write(tmp_path / "after.tif", np.full((SIDE, SIDE, 1), 9, np.uint8), crs, place)
  for turn in (-180, 180):
    other = write(tmp_path / "before.tif", np.full((SIDE, SIDE, 1), 9, np.uint8), crs,
                  Affine.translation(turn, 0) @ place)
    with pytest.raises(ImageError, match="does not overlap"):
      pair.open_pair(after, other, 1)


@pytest.mark.parametrize(("columns", "text"), [(-SIDE // 2, "50 %"), (SIDE * 3 // 4, "25 %"), (0, "")])
@pytest.mark.parametrize("scene", ["UTM", "degrees beyond 180"])
def test_an_image_before_that_covers_less_is_named(tmp_path, caplog, scene, columns, text):
  crs, place = SCENES[scene]
  pixels = np.random.default_rng(0).integers(1, 250, (SIDE, SIDE, 3), np.uint8)
  after = write(tmp_path / "after.tif", pixels, crs, place)
  before = write(tmp_path / "before.tif", pixels, crs, place @ Affine.translation(columns, 0))
  files = SceneFiles(after, before)
  with files.open(3) as both, caplog.at_level(logging.WARNING):
    warnings = scene_plans._date_warnings(both, Options())
  found = [line for line in warnings if "covers" in line]
  assert found == ([line for line in found if f"covers {text} of the image after" in line])
  assert len(found) == bool(text)

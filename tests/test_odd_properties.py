"""What a TIFF says of itself beside its pixels: errors in it name the file."""

import struct

import numpy as np
import pytest
import rasterio
from affine import Affine

from lgag_jax.catalogues import image_lists
from lgag_jax.geo import clouds, dem, reference
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scene import band_count, open_scene
from lgag_jax.imagery.opening import ImageError
from lgag_jax.options import tiling
from lgag_jax.options.area import Imagery
from lgag_jax.tiling import tile
from tests.test_reading import write_tiff

PLACE = {"crs": "EPSG:32633", "transform": Affine(2.0, 0, 5e5, 0, -2.0, 5e6)}
_SAMPLE_FORMAT, _FIRST, _ENTRY = 339, 4, 12  # A tag, and bytes of a TIFF.


def odd_tag(path):
  """Moves the last tags of a TIFF by two bytes: GDAL tells of it when colours are asked for."""
  data = path.read_bytes()
  start = struct.unpack_from("<I", data, _FIRST)[0] + 2
  at = next(
    at for at in range(start, len(data), _ENTRY)
    if struct.unpack_from("<H", data, at)[0] == _SAMPLE_FORMAT
  )
  path.write_bytes(data[:at] + b"\0\0" + data[at:])


def odd_name(path):
  with rasterio.open(path, "r+") as raster:
    raster.set_band_description(1, "BandName")
    raster.units = ["BandName"]
  path.write_bytes(path.read_bytes().replace(b"BandName", b"\xff\xfendName"))


READERS = {
  "clouds": lambda path: clouds.open_clouds(path, path, Grid(30, 30, **GRID), "auto"),
  "dem": lambda path: dem.open_dem(path).__enter__(),
  "count": band_count,
  "notes": lambda path: open_scene(path, 1).notes,
  "alpha": lambda path: tile.alpha_warning(path, tiling.Settings("x", "x")),
  "list": lambda path: image_lists.read_images([str(path)], 1, Imagery()),
  "reference": lambda path: reference.open_reference(
    path, Grid(30, 30, **GRID), ("landslide",)).__enter__(),
}
GRID = {"crs": rasterio.CRS.from_epsg(32633), "transform": PLACE["transform"]}


@pytest.mark.parametrize(("reader", "change"), [
  *((name, odd_tag) for name in ("clouds", "dem", "count", "notes", "alpha")),
  *((name, odd_name) for name in ("clouds", "dem", "notes", "list", "reference")),
])
def test_odd_properties_name_the_file(tmp_path, reader, change):
  path = write_tiff(tmp_path / "x.tif", np.eye(30, dtype=np.uint8), **PLACE)
  change(path)
  with pytest.raises(ImageError, match=r"x\.tif is damaged"):
    READERS[reader](path)


@pytest.mark.parametrize("width", [5e-324, 6.95e-310, 1e-307])
def test_transforms_that_cannot_be_turned_round_are_refused(tmp_path, width):
  transform = Affine(width, 0, 5e5, 0, -width, 5e6)
  array = np.eye(30, dtype=np.uint8)
  path = write_tiff(tmp_path / "x.tif", array, crs="EPSG:32633", transform=transform)
  for reader in ("clouds", "dem", "notes", "list", "reference"):
    with pytest.raises(ImageError, match=r"x\.tif cannot be placed: its transform .* without area"):
      READERS[reader](path)

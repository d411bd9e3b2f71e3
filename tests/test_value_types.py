"""One map of an area does not mix images whose types the network scales differently."""

import functools

import numpy as np
import pytest
import rasterio
from affine import Affine

from lgag_jax.blocks import area_job, map_block
from lgag_jax.blocks.plan import Block, BlockSize
from lgag_jax.catalogues import composites, image_lists, search
from lgag_jax.config import DataConfig
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery import scaling
from lgag_jax.imagery.opening import ImageError
from lgag_jax.options.area import Imagery
from tests import area_data
from tests.area_data import EPSG, NORTH, WEST
from tests.untrained import GSD

BOTH = Grid(40, 80, rasterio.crs.CRS.from_epsg(EPSG), Affine(GSD, 0, WEST, 0, -GSD, NORTH))
BY_TYPE = functools.partial(scaling.divisor, config=DataConfig())
BY_MEAN = functools.partial(
  scaling.divisor, config=DataConfig(normalise="given", mean=(1.0,) * 3, std=(1.0,) * 3)
)
BY_VALUE = functools.partial(scaling.divisor, config=DataConfig(max_value=255.0))
MIXTURES = [
  (np.uint8, np.uint16, "divides uint8 by 255 and uint16 by 65535"),
  (np.uint16, np.float32, "divides uint16 by 65535 and float32 by 1"),
  (np.int16, np.uint16, "divides int16 by 32767 and uint16 by 65535"),
]


def neighbours(folder, one, other):
  """Writes two images side by side, of two types; returns their paths."""
  array = np.random.default_rng(0).integers(1, 120, (40, 40, 3))
  return [
    area_data.write_cog(folder / f"{name}.tif", array.astype(dtype), west=WEST + round(start * GSD))
    for name, dtype, start in (("a", one, 0), ("b", other, 40))
  ]


@pytest.mark.parametrize("composite", ["first", "median"])
@pytest.mark.parametrize(("one", "other", "message"), MIXTURES)
def test_a_composite_of_two_types_names_both_images(tmp_path, one, other, message, composite):
  neighbours(tmp_path, one, other)
  settings = Imagery(composite=composite)
  images = search.find_images(str(tmp_path), None, 3, settings)
  with pytest.raises(ImageError, match=rf"a\.tif holds .*b\.tif holds .*{message}.*two calls"):
    composites.read_composite(images, BOTH, 3, settings, BY_TYPE)
  for divisor in (BY_MEAN, BY_VALUE):  # These do not look at types.
    assert composites.read_composite(images, BOTH, 3, settings, divisor)[1].all()
  alone = Grid(40, 40, BOTH.crs, BOTH.transform)  # The other image has no pixel there.
  assert composites.read_composite(images, alone, 3, settings, BY_TYPE)[0].dtype == one


@pytest.mark.parametrize(("one", "other", "message"), MIXTURES)
def test_two_types_in_a_block_are_refused_before_it_is_read(tmp_path, one, other, message):
  paths = neighbours(tmp_path, one, other)
  images = image_lists.read_images([str(path) for path in paths], 3, Imagery())
  job = map_block.AreaJob(
    tmp_path / "out", tuple(images), Imagery(), 2.0, BlockSize(96, 64, 4), 3, ("landslide",), "uint8",
    "", BY_TYPE,
  )
  for path in paths:
    path.unlink()
  with pytest.raises(ImageError, match=message):
    area_job.refuse_mixed_types(job, [Block(EPSG, 0, 0, (0,)), Block(EPSG, 0, 1, (0, 1))])
  area_job.refuse_mixed_types(job, [Block(EPSG, 0, 0, (0,)), Block(EPSG, 0, 1, (1,))])


@pytest.mark.parametrize("scaled", [False, True])
def test_the_bands_of_an_item_are_of_one_type(tmp_path, scaled):
  """Bands of two types, or with a scale in one of them only."""
  array = np.full((40, 80), 7, np.uint8)
  write = area_data.write_cog
  if scaled:
    nir = write(tmp_path / "nir.tif", array, scale=0.5, offset=0.0)
  else:
    nir = write(tmp_path / "nir.tif", array.astype(np.uint16))
  paths = {"red": write(tmp_path / "red.tif", array), "nir": nir}
  source = str(area_data.write_catalogue(tmp_path, [area_data.item("i", paths, tmp_path)]))
  settings = Imagery(assets=("red", "nir"))
  (image,) = search.find_images(source, None, 2, settings)
  with pytest.raises(ImageError, match=r"i\.json, band 1 of the model holds uint8.*i\.json, band 2"):
    composites.read_image(image, BOTH, settings, BY_TYPE)
  values, valid = composites.read_image(image, BOTH, settings, BY_MEAN)
  assert valid.all() and values[0, 0].tolist() == [7, 3.5 if scaled else 7]


def test_types_are_those_after_scale_and_offset(tmp_path):
  array = np.full((40, 80, 3), 7, np.uint16)
  paths = [
    area_data.write_cog(tmp_path / "a.tif", array, scale=1e-4, offset=0.0),
    area_data.write_cog(tmp_path / "b.tif", array.astype(np.float32)),
  ]
  for values, types in (("scaled", ["float32", "float32"]), ("raw", ["uint16", "float32"])):
    images = image_lists.read_images([str(path) for path in paths], 3, Imagery(values=values))
    assert [str(image.types[0]) for image in images] == types


@pytest.mark.parametrize("composite", ["first", "median"])
@pytest.mark.parametrize(("dtype", "refused"), [(np.uint16, 1), (np.uint8, 1), (np.float32, 0)])
def test_scaled_and_stored_values_are_not_mixed(tmp_path, composite, dtype, refused):
  """The network does not look at types, so that nothing else would tell. Floats may be reflectances."""
  paths = neighbours(tmp_path, np.uint16, dtype)
  with rasterio.open(paths[0], "r+", IGNORE_COG_LAYOUT_BREAK="YES") as raster:
    raster.scales = [1e-4] * 3
  read = lambda **fields: composites.read_composite(
    search.find_images(str(tmp_path), None, 3, Imagery()), BOTH, 3,
    Imagery(composite=composite, **fields), BY_MEAN)
  assert read(values="raw")[1].all()
  if not refused:
    assert read()[1].all()
    return
  with pytest.raises(ImageError, match=r"a\.tif has a scale .* band 1 .*b\.tif has none.*--values=raw"):
    read()

"""Of a map's rasters only the mask is one, where masks are asked for, in place as in copies."""

import json

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from lgag_jax.geo import mask_place
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.reference import open_reference
from lgag_jax.imagery.opening import ImageError
from lgag_jax.mapping import density, rasters

GRID = Grid(24, 30, CRS.from_epsg(32644), Affine(2, 0, 5e5, 0, -2, 3e6))
PLAIN = Grid(24, 30, None, Affine.identity())
SCORES = np.linspace(0.0, 1.0, 24 * 30, dtype=np.float32).reshape(24, 30, 1)
MASK = (SCORES > 0.5).astype(np.uint8)


def write(folder, product, values, names, grid=GRID, stem="s"):
  path = folder / "maps" / product / stem
  path.parent.mkdir(parents=True, exist_ok=True)
  with rasters.write_and_open(
    path, grid, values.shape[-1], values.dtype, iter([(0, values)]), names, averaged=False,
    product=product,
  ) as raster:
    return raster.path


def probability(folder, dtype="uint8", grid=GRID):
  valid = np.ones((24, 30), bool)
  valid[:3] = False
  values = rasters.encode(SCORES, valid, np.dtype(dtype))
  return write(folder, "probability", values, ("landslide",), grid)


def record(path):
  """Writes the record that mapping leaves beside a product."""
  file = path.parent.parent / "scenes" / f"{path.stem}.json"
  file.parent.mkdir()
  file.write_text(json.dumps({"stem": path.stem, "files": [f"{path.parent.name}/{path.name}"]}))
  return path


def without_tags(path):
  """As an earlier release has written it."""
  with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as raster:
    raster.update_tags(LGAG_PRODUCT="")
  return path


def read(path, grid=GRID):
  with open_reference(path, grid, ("landslide",)) as reference:
    return reference.read(Window(0, 0, grid.width, grid.height))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("form", ["in place", "copied", "of an earlier release"])
def test_a_probability_is_no_mask(tmp_path, dtype, form):
  path = probability(tmp_path, dtype)
  if form == "in place":
    path = record(without_tags(path))
  elif form == "copied":
    rasterio.shutil.copy(path, tmp_path / "mine.tif", driver="GTiff", compress="lzw")
    path = tmp_path / "mine.tif"
  else:
    path = without_tags(path).rename(tmp_path / "mine.tif")
  words = f"{path.name} is no mask: it comes from the folder probability .*unsetmd"
  with pytest.raises(ImageError, match=words if form == "copied" else words.split(" .*")[0]):
    read(path)


def test_a_probability_without_a_place_is_no_mask(tmp_path):
  path = record(probability(tmp_path, grid=PLAIN))
  assert path.suffix == ".png"
  with pytest.raises(ImageError, match=r"s\.png is no mask"):
    read(path, PLAIN)


@pytest.mark.parametrize("tagged", [True, False])
def test_a_density_is_no_mask(tmp_path, tagged):
  values = np.full((24, 30, 2), 0.25, np.float32)
  path = write(tmp_path, "density", values, density.BANDS)
  if not tagged:
    without_tags(path)
  with pytest.raises(ImageError, match="comes from the folder density"):
    read(path)


def test_the_mask_of_a_map_is_one(tmp_path):
  path = record(write(tmp_path, "mask", MASK, ("class",)))
  with rasterio.open(path) as raster:
    assert raster.tags()["LGAG_PRODUCT"] == "mask"
  np.testing.assert_array_equal(read(path), MASK[..., 0])


@pytest.mark.parametrize(("values", "name", "nodata"), [
  (MASK, "landslide", 255), (MASK * 255, "landslide", None),
  (MASK.astype(np.float32), "landslide", np.nan),
  (MASK * 37, "landslide", None), (MASK * 37, "slide", 255),
  (MASK.astype(np.int16) * 37, "landslide", -1),
])
def test_masks_of_other_programs_are_taken(tmp_path, values, name, nodata):
  """Also a band with the name of the class, if its values and its nodata are not those of percent."""
  path = tmp_path / "mine.tif"
  with rasterio.open(
    path, "w", driver="GTiff", height=24, width=30, count=1, dtype=values.dtype, nodata=nodata,
    crs=GRID.crs, transform=GRID.transform,
  ) as raster:
    raster.write(values[..., 0], 1)
    raster.set_band_description(1, name)
  np.testing.assert_array_equal(read(path), MASK[..., 0])


def test_whoever_has_made_a_mask_of_a_probability_removes_the_tag(tmp_path):
  path = write(tmp_path, "probability", MASK, ("landslide",))
  with pytest.raises(ImageError, match="is no mask"):
    read(path)
  np.testing.assert_array_equal(read(without_tags(path)), MASK[..., 0])


def test_training_refuses_a_probability_beside_its_image(tmp_path):
  image = write(tmp_path, "image", np.ones((24, 30, 3), np.uint8), ("r", "g", "b"))
  mask = write(tmp_path, "mask", MASK, ("class",))
  with mask_place.open_with_mask(image, mask) as (_, raster):
    np.testing.assert_array_equal(raster.read(1), MASK[..., 0])
  with (
    pytest.raises(ImageError, match="comes from the folder probability"),
    mask_place.open_with_mask(image, probability(tmp_path)),
  ):
    pass

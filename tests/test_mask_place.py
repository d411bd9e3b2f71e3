"""Masks that training reads pixel by pixel: those that lie elsewhere than their images are refused."""

import numpy as np
import pytest
from affine import Affine

from lgag_jax.config import DataConfig
from lgag_jax.imagery.reading import ImageError
from lgag_jax.inputs import sources
from tests.test_patches import source
from tests.test_reading import pixels, write_tiff

UTM, SIDE = "EPSG:32633", 16
PLACE = Affine(10, 0, 5e5, 0, -10, 5e6)
DEGREES = Affine(1.27e-4, 0, 15.0, 0, -9e-5, 45.153)  # The same place in degrees, up to some pixels.
MASK = np.repeat(np.eye(2, dtype=np.uint8)[0], SIDE // 2)[:, None] * np.ones((1, SIDE), np.uint8)


def write(root, transform, crs, *, image=PLACE, image_crs=UTM, folder=False):
  """Writes a pair whose mask has another georeference, and an image that is background."""
  names = ("landslide", "masks") if folder else ("images", "masks")
  for name in (*names, "non-landslide"):
    (root / name).mkdir(exist_ok=True)
  write_tiff(root / names[0] / "a.tif", pixels(SIDE, SIDE), transform=image, crs=image_crs)
  write_tiff(root / names[1] / "a.tif", MASK, transform=transform, crs=crs)
  write_tiff(root / "non-landslide/b.tif", pixels(SIDE, SIDE))


def read(root, folder):
  if not folder:
    return source(root).read(0)[1]
  config = DataConfig(source="folder", directory=str(root), validation_fraction=0.0)
  examples = sources.FolderSource(config, "train")
  return examples.read(examples.ids.index("landslide/a.tif"))[1]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize(("transform", "crs"), [
  (Affine(10, 0, 5e5, 0, 10, 5e6 - 160), UTM), (Affine(10, 0, 9e5, 0, -10, 5e6), UTM),
  (PLACE @ Affine.translation(0, 1), UTM), (Affine(5, 0, 5e5, 0, -5, 5e6), None),
  (DEGREES, "EPSG:4326"),
])
def test_a_mask_that_lies_elsewhere_than_its_image_is_refused(tmp_path, folder, transform, crs):
  write(tmp_path, transform, crs, folder=folder)
  with pytest.raises(ImageError, match=r"masks/a\.tif lies elsewhere than its image .*tif: .* apart"):
    read(tmp_path, folder)


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize(("transform", "crs", "image", "image_crs"), [
  (PLACE, UTM, PLACE, UTM), (None, None, PLACE, UTM), (PLACE, UTM, None, None),
  (Affine.identity(), UTM, PLACE, UTM), (Affine(1, 0, 0, 0, -1, SIDE), None, PLACE, UTM),
  (PLACE @ Affine.translation(1e-9, 0), UTM, PLACE, UTM),
  (PLACE @ Affine.translation(-0.5, -0.5), UTM, PLACE, UTM),  # A writer's pixels are points.
  (PLACE, "EPSG:32634", PLACE, UTM), (PLACE, None, PLACE, UTM),
])
def test_other_masks_are_read_pixel_by_pixel(tmp_path, folder, transform, crs, image, image_crs):
  write(tmp_path, transform, crs, image=image, image_crs=image_crs, folder=folder)
  np.testing.assert_array_equal(read(tmp_path, folder), MASK)


def test_a_place_in_notes_counts(tmp_path):
  write(tmp_path, PLACE, UTM)
  place = ", ".join(map(str, (PLACE @ Affine.translation(40, 0)).to_gdal()))
  notes = tmp_path / "masks/a.tif.aux.xml"
  notes.write_text(f"<PAMDataset><GeoTransform>{place}</GeoTransform></PAMDataset>")
  with pytest.raises(ImageError, match="up to 40 pixels apart"):
    source(tmp_path)

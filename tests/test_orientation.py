"""Images with an orientation tag are read as Pillow shows them, by every reader."""

import io

import numpy as np
import pytest
import rasterio
from PIL import Image, ImageOps
from rasterio.windows import Window

from lgag_jax.config import DataConfig
from lgag_jax.doctor import image_checks, survey
from lgag_jax.geo import placement
from lgag_jax.geo.reference import open_reference
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import listing, mask_values, orientation, reading
from lgag_jax.imagery.reading import ImageError
from lgag_jax.inputs.patches import PatchSource
from lgag_jax.inputs.sources import FolderSource
from tests.test_reading import mask_of, pixels, write_png, write_tiff

H, W = 24, 40
FORMATS = ["png", "tif", "big.tif", "late.png"]


def write_turned(path, array, number):
  """Writes an array as it is stored, with an orientation tag."""
  exif = Image.Exif()
  exif[274] = number
  image = Image.fromarray(array)
  if path.suffix == ".tif":
    image.save(path, tiffinfo={274: number}, big_tiff="big" in path.name)
  else:
    image.save(path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {}))
  if "late" in path.name:  # The chunk may follow the pixels.
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(content[start : start + 4])
    path.write_bytes(content[:start] + content[stop:-12] + content[start:stop] + content[-12:])
  return path


def shown(array, number):
  """Returns an array as Pillow shows it."""
  image = Image.fromarray(array)
  image.getexif()[274] = number
  return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("number", range(1, 9))
def test_pixels_windows_and_sizes_are_those_of_the_turned_image(tmp_path, number, name):
  array = pixels(H, W)
  path = write_turned(tmp_path / f"a.{name}", array, number)
  expected = shown(array, number)
  np.testing.assert_array_equal(reading.read_image(path, 3), expected)
  assert reading.image_size(path) == expected.shape[:2]
  assert (listing.file_key(path).rpartition(" orientation ")[2] == str(number)) == (number != 1)
  window = Window(3, 5, 9, 14)
  np.testing.assert_array_equal(reading.read_image(path, 3, window), expected[5:19, 3:12])
  with open_scene(path, 3) as scene:
    assert (scene.grid.height, scene.grid.width) == expected.shape[:2]
    values, valid = scene.read(Window(-2, -4, 12, 10))
    np.testing.assert_array_equal(values[4:, 2:], expected[:6, :10])
    assert valid[4:, 2:].all() and valid.sum() == 60
    reduced = scene.read(Window(0, 0, 16, 8), (2, 4))[0]
    means = expected[:8, :16].reshape(2, 4, 4, 4, 3).mean(axis=(1, 3))
    assert np.abs(reduced - means).max() <= 1
    texts = placement.warnings(scene.grid, path)
  assert ("turns it as viewers do" in "".join(texts)) == (number != 1)


@pytest.mark.parametrize("number", [2, 3, 6])
def test_a_jpeg_is_turned(tmp_path, number):
  array = np.zeros((16, 32, 3), np.uint8)
  array[:8, :16] = 200
  path = write_turned(tmp_path / "a.jpg", array, number)
  assert np.abs(reading.read_image(path, 3) - shown(array, number).astype(float)).max() < 8


@pytest.mark.parametrize("number", [3, 5, 8])
def test_missing_data_are_turned_too(tmp_path, number):
  valid = np.arange(H * W).reshape(H, W) % 7 != 0
  array = np.dstack([pixels(H, W), np.where(valid, 255, 0).astype(np.uint8)])
  path = write_turned(tmp_path / "alpha.png", array, number)
  expected = shown(valid.astype(np.uint8), number) > 0
  np.testing.assert_array_equal(reading.read_pixels(path, 3)[1], expected)
  path = write_turned(tmp_path / "beside.tif", array[..., :3].copy(), number)
  write_tiff(tmp_path / "beside.tif.msk", np.where(valid, 255, 0).astype(np.uint8))
  np.testing.assert_array_equal(reading.read_pixels(path, 3)[1], expected)
  with reading.open_raster(path) as raster:
    part = reading.read_valid_mask(raster, Window(1, 2, 8, 9))
  np.testing.assert_array_equal(part, expected[2:11, 1:9])


@pytest.mark.parametrize("number", [1, 4, 6])
def test_a_mask_is_turned_by_its_own_tag(tmp_path, number):
  mask = pixels(H, W, 1)[..., 0] % 2
  path = write_turned(tmp_path / "m.png", mask, number)
  np.testing.assert_array_equal(mask_of(path), shown(mask, number))
  assert mask_values.decide([path], classes=1, ignore=mask_values.BY_VALUES).threshold == 0
  upright = write_png(tmp_path / "a.png", shown(pixels(H, W), number))
  with open_scene(upright, 3) as scene, open_reference(path, scene.grid, ("a",)) as reference:
    np.testing.assert_array_equal(reference.read(Window(0, 0, 9, 7)), shown(mask, number)[:7, :9])


@pytest.mark.parametrize("number", [2, 3, 7])
def test_training_images_fit_masks_drawn_in_a_viewer(tmp_path, number):
  array, mask = pixels(H, W), pixels(H, W, 1)[..., 0] % 2
  for folder in ("landslide", "non-landslide", "images", "masks"):
    (tmp_path / folder).mkdir()
  for i in range(4):
    for name in ("landslide", "non-landslide", "images"):
      write_turned(tmp_path / name / f"{name[0]}{i}.png", array, number)
    for name in ("l", "i"):
      write_png(tmp_path / f"masks/{name}{i}.png", shown(mask, number))
  config = DataConfig(directory=str(tmp_path), validation_fraction=0.25)
  source = FolderSource(config, "train")
  image, values = source.read(int(np.argmax(source.labels)))
  np.testing.assert_array_equal(image, shown(array, number))
  np.testing.assert_array_equal(values, shown(mask, number))
  found = image_checks._check_orientation(survey.read(config))
  assert found[0].count == 8 and "turned as the orientation tag" in found[0].what
  patches = PatchSource(
    DataConfig(directory=str(tmp_path), source="patches", tile_size=16, train_split="train",
               validation_split="validation", validation_fraction=0.25), "train")
  for index, name in enumerate(patches.ids):
    tile, values = patches.read(index)
    row, col = map(int, name.rpartition("[")[2][:-1].split(":"))
    part = slice(row, row + 16), slice(col, col + 16)
    np.testing.assert_array_equal(tile, shown(array, number)[part])
    known = values != reading.UNKNOWN
    np.testing.assert_array_equal(values[known], shown(mask, number)[part][known])


def test_a_mask_of_the_stored_image_is_refused_with_the_reason(tmp_path):
  for folder in ("images", "masks"):
    (tmp_path / folder).mkdir()
  write_turned(tmp_path / "images/a.png", pixels(H, W), 6)
  write_png(tmp_path / "masks/a.png", pixels(H, W, 1)[..., 0] % 2)
  config = DataConfig(directory=str(tmp_path), source="patches")
  with pytest.raises(ImageError, match=r"masks/a\.png is \(24, 40\).*turned by its orientation tag"):
    PatchSource(config, "train")


def place_in_file(path):
  scale, corner = {33550: (1.0, 1.0, 0.0)}, {33922: (0.0, 0.0, 0.0, 5e5, 4e6, 0.0)}
  Image.fromarray(pixels(H, W)).save(path, tiffinfo={274: 3, **scale, **corner})


def place_by_world_file(path):
  write_turned(path, pixels(H, W), 3)
  path.with_suffix(".tfw").write_text("1\n0\n0\n-1\n500000\n4000000\n")


def place_by_notes(path):
  write_turned(path, pixels(H, W), 3)
  crs = rasterio.CRS.from_epsg(32644).to_wkt()
  path.with_name(f"{path.name}.aux.xml").write_text(f"<PAMDataset><SRS>{crs}</SRS></PAMDataset>")


@pytest.mark.parametrize("place", [place_in_file, place_by_world_file, place_by_notes])
def test_a_turned_image_with_a_place_on_the_ground_is_refused(tmp_path, place):
  path = tmp_path / "a.tif"
  place(path)
  with pytest.raises(ImageError, match=r"a\.tif has a place .* orientation tag 3.*gdal_translate"):
    open_scene(path, 3)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_a_mosaic_of_turned_images_is_refused(tmp_path, name):
  write_turned(tmp_path / name, pixels(H, W), 3)
  band = "".join(
    f'<VRTRasterBand dataType="Byte" band="{k}"><SimpleSource><SourceFilename relativeToVRT="1">'
    f"{name}</SourceFilename><SourceBand>{k}</SourceBand></SimpleSource></VRTRasterBand>"
    for k in (1, 2, 3)
  )
  (tmp_path / "m.vrt").write_text(
    f'<VRTDataset rasterXSize="{W}" rasterYSize="{H}">{band}</VRTDataset>')
  with pytest.raises(ImageError, match=f"m.vrt refers to .*{name} has the orientation tag 3"):
    open_scene(tmp_path / "m.vrt", 3)


def test_invalid_tags_leave_the_image_as_it_is(tmp_path):
  array = pixels(H, W)
  content = io.BytesIO()
  exif = Image.Exif()
  exif[274] = 6
  Image.fromarray(array).save(content, "jpeg", exif=exif)
  path, start = tmp_path / "a.jpg", content.getvalue().index(b"Exif")
  for offset in range(60):  # Any byte of the tags may be damaged.
    damaged = bytearray(content.getvalue())
    damaged[start + offset] ^= 0xFF
    path.write_bytes(damaged)
    orientation._read.cache_clear()
    assert orientation.of_file(path) in range(1, 9)
  for number in (0, 9, 65535):
    path = write_turned(tmp_path / f"{number}.png", array, number)
    np.testing.assert_array_equal(reading.read_image(path, 3), array)
  assert orientation.of_file(tmp_path / "missing.png") == 1

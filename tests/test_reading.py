"""Reading images and masks of each file format; errors name the file. Listing folders and tables."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.windows import Window

from lgag_jax.imagery import listing, reading, tables
from lgag_jax.imagery.reading import UNKNOWN, ImageError


def pixels(height=12, width=10, channels=3, dtype=np.uint8, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def write_tiff(path, array, *, driver="GTiff", **options):
  array = array if array.ndim == 3 else array[..., None]
  height, width, count = array.shape
  profile = {"height": height, "width": width, "count": count, "dtype": array.dtype}
  with rasterio.open(path, "w", driver=driver, **profile, **options) as file:
    file.write(np.moveaxis(array, -1, 0))
  return path


def write_png(path, array, mode=None):
  image = Image.fromarray(array)
  (image.convert(mode) if mode else image).save(path)
  return path


def mask_of(path, *, classes=1, ignore=-1, window=None):
  with reading.open_raster(path) as raster:
    return reading.read_mask(raster, classes=classes, ignore=ignore, window=window)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jp2"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_keep_their_values_and_type(tmp_path, suffix, dtype):
  array = pixels(channels=1 if dtype == np.uint16 else 3, dtype=dtype)
  path = tmp_path / f"a{suffix}"
  if suffix == ".tif":
    write_tiff(path, array)
  elif suffix == ".jp2":
    write_tiff(path, array, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
  else:
    write_png(path, array[..., 0] if dtype == np.uint16 else array)
  value = reading.read_image(path, array.shape[-1])
  assert value.dtype == dtype
  np.testing.assert_array_equal(value, array)


def test_a_jpeg_keeps_its_values_approximately(tmp_path):
  array = np.full((32, 32, 3), (200, 100, 50), np.uint8)
  Image.fromarray(array).save(tmp_path / "a.jpg", quality=95)
  value = reading.read_image(tmp_path / "a.jpg", 3)
  assert np.abs(value.astype(int) - array).max() < 6


def test_a_window_is_read(tmp_path):
  array = pixels(30, 20, 4, np.uint16)
  path = write_tiff(tmp_path / "a.tif", array)
  value = reading.read_image(path, 4, Window(3, 5, 7, 11))
  np.testing.assert_array_equal(value, array[5:16, 3:10])


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 3), ("LA", 1)])
def test_alpha_is_skipped(tmp_path, mode, channels):
  array = pixels(channels=len(mode)) | 1  # No pixel is transparent.
  path = write_png(tmp_path / "a.png", array)
  np.testing.assert_array_equal(reading.read_image(path, channels), array[..., :channels])


def test_alpha_is_read_if_it_is_one_of_the_channels(tmp_path):
  array = pixels(channels=4) | 1
  path = write_png(tmp_path / "a.png", array)
  np.testing.assert_array_equal(reading.read_image(path, 4), array)


def test_a_fourth_band_other_than_alpha_is_an_error(tmp_path):
  path = write_tiff(tmp_path / "a.tif", pixels(channels=4), photometric="MINISBLACK")
  with rasterio.open(path, "r+") as file:
    file.colorinterp = [rasterio.enums.ColorInterp.gray] * 4
  with pytest.raises(ImageError, match=r"a\.tif has 4 channels"):
    reading.read_image(path, 3)


@pytest.mark.parametrize("colours", [2, 16, 200])
def test_a_palette_becomes_colours(tmp_path, colours):
  picture = Image.fromarray(pixels(16, 16)).quantize(colours)
  picture.save(tmp_path / "a.png")
  value = reading.read_image(tmp_path / "a.png", 3)
  np.testing.assert_array_equal(value, np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize(("count", "channels"), [(1, 3), (3, 1), (3, 4), (4, 2)])
def test_a_wrong_number_of_channels_names_file_and_remedy(tmp_path, count, channels):
  array = pixels(channels=count)
  path = write_png(tmp_path / "odd.png", array[..., 0] if count == 1 else array)
  message = rf"odd\.png has {count} channels.*data\.channels={channels}.*change data\.channels"
  with pytest.raises(ImageError, match=message):
    reading.read_image(path, channels)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_truncated_image_is_an_error_that_names_it(tmp_path, suffix, fraction):
  path = tmp_path / f"whole{suffix}"
  Image.fromarray(pixels(64, 64)).save(path)
  broken = tmp_path / f"broken{suffix}"
  broken.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
  with pytest.raises(ImageError, match="broken"):
    reading.read_image(broken, 3)


def test_a_truncated_mask_is_an_error_that_names_it(tmp_path):
  path = write_png(tmp_path / "whole.png", pixels(64, 64, 1)[..., 0] // 128)
  broken = tmp_path / "broken.png"
  broken.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(ImageError, match="broken"):
    mask_of(broken)


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_an_invalid_image_is_named(tmp_path, content):
  path = tmp_path / "thing.png"
  if content is not None:
    path.write_bytes(content)
  for read in (lambda: reading.read_image(path, 3), lambda: reading.image_size(path)):
    with pytest.raises(ImageError, match=r"thing\.png"):
      read()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_invalid(tmp_path, value):
  array = np.float32([[[1, -4], [3, 8]], [[2, -6], [5, 9]]])
  array[1, 1, 0] = value
  path = write_tiff(tmp_path / "a.tif", array)
  value, valid = reading.read_pixels(path, 2)
  np.testing.assert_array_equal(valid, [[True, True], [True, False]])
  np.testing.assert_allclose(value[1, 1], [2, -2 / 3], rtol=1e-6)
  np.testing.assert_array_equal(value[valid], array[valid])
  with reading.open_raster(path) as raster:
    np.testing.assert_array_equal(reading.read_valid_mask(raster), valid)


@pytest.mark.parametrize("nodata", [-9999.0, np.nan])
def test_nodata_pixels_are_filled(tmp_path, nodata):
  array = np.full((4, 4, 1), 0.5, np.float32)
  array[0] = nodata
  path = write_tiff(tmp_path / "a.tif", array, nodata=nodata)
  np.testing.assert_array_equal(reading.read_image(path, 1), np.full((4, 4, 1), 0.5, np.float32))
  np.testing.assert_array_equal(reading.read_image(path, 1, Window(0, 0, 4, 1)), np.zeros((1, 4, 1)))
  with reading.open_raster(path) as raster:
    np.testing.assert_array_equal(reading.read_valid_mask(raster), [[False] * 4] + [[True] * 4] * 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_invalid_pixels_get_the_mean_of_each_band(dtype):
  array = np.array([[[1, 200], [2, 3]], [[7, 9], [100, 100]]], dtype)
  valid = np.array([[True, True], [True, False]])
  reading.fill_invalid(array, valid)
  expected = (10 / 3, 212 / 3) if dtype in (np.float32, np.float64) else (3, 71)
  np.testing.assert_allclose(array[1, 1], expected, rtol=1e-6)
  np.testing.assert_array_equal(array[valid], [[1, 200], [2, 3], [7, 9]])
  reading.fill_invalid(array, np.zeros((2, 2), bool))
  np.testing.assert_array_equal(array, np.zeros((2, 2, 2)))
  if dtype == np.float64:
    array = np.array([[[1e308], [1e308], [np.nan]]])
    reading.fill_invalid(array, np.array([[True, True, False]]))
    assert array[0, 2, 0] == 0


def test_a_pixel_with_nodata_in_any_band_is_invalid(tmp_path):
  array = pixels(channels=3) | 1
  array[2, 3, 1] = 0
  with reading.open_raster(write_tiff(tmp_path / "a.tif", array, nodata=0)) as raster:
    assert np.argwhere(~reading.read_valid_mask(raster)).tolist() == [[2, 3]]


def test_a_huge_image_is_refused_before_memory_is_allocated(tmp_path):
  path = tmp_path / "huge.tif"
  profile = {"height": 20000, "width": 20000, "count": 3, "dtype": "uint8", "sparse_ok": True}
  with rasterio.open(path, "w", driver="GTiff", tiled=True, **profile):
    pass
  with pytest.raises(ImageError, match=r"huge\.tif is 20000 x 20000.*data\.tile_size"):
    reading.read_image(path, 3)
  assert reading.read_image(path, 3, Window(0, 0, 8, 8)).shape == (8, 8, 3)


def test_masks_of_one_class(tmp_path):
  array = np.array([[0, 1, 255], [7, 0, 0]], np.uint8)
  path = write_png(tmp_path / "m.png", array)
  np.testing.assert_array_equal(mask_of(path), [[0, 1, 1], [1, 0, 0]])
  np.testing.assert_array_equal(mask_of(path, ignore=255), [[0, 1, UNKNOWN], [1, 0, 0]])
  np.testing.assert_array_equal(mask_of(path, ignore=0), [[UNKNOWN, 1, 1], [1, UNKNOWN, UNKNOWN]])
  np.testing.assert_array_equal(mask_of(path, window=Window(1, 0, 2, 1)), [[1, 1]])


def test_masks_of_several_classes(tmp_path):
  path = write_png(tmp_path / "m.png", np.array([[0, 1, 2], [3, 9, 0]], np.uint8))
  expected = [[0, 1, 2], [3, UNKNOWN, 0]]
  np.testing.assert_array_equal(mask_of(path, classes=3, ignore=9), expected)
  with pytest.raises(ImageError, match=r"m\.png holds class 9.*data\.classes names 3"):
    mask_of(path, classes=3)


@pytest.mark.parametrize("value", [0.5, 1.5, 0.999])
def test_values_between_classes_are_refused(tmp_path, value):
  values = np.float32([[0, 1, 2], [value, np.nan, 9]])
  path = write_tiff(tmp_path / "m.tif", values)
  message = rf"m\.tif holds {value:g} between classes.*nearest value"
  with pytest.raises(ImageError, match=message):
    mask_of(path, classes=2, ignore=9)
  write_tiff(path, np.where(values == np.float32(value), 2, values))
  np.testing.assert_array_equal(mask_of(path, classes=2, ignore=9), [[0, 1, 2], [2, 255, 255]])


def test_negative_mask_values_are_not_classes(tmp_path):
  array = np.array([[0, 1], [-5, 2]], np.int16)
  path = write_tiff(tmp_path / "m.tif", array)
  np.testing.assert_array_equal(mask_of(path, classes=2, ignore=-5), [[0, 1], [UNKNOWN, 2]])
  with pytest.raises(ImageError, match=r"m\.tif.*-5"):
    mask_of(path, classes=2)


def test_mask_values_that_are_not_finite_are_unknown(tmp_path):
  array = np.array([[0.0, 1.0], [np.nan, 0.0]], np.float32)
  path = write_tiff(tmp_path / "m.tif", array)
  np.testing.assert_array_equal(mask_of(path), [[0, 1], [UNKNOWN, 0]])


def test_alpha_marks_invalid_pixels(tmp_path):
  array = pixels(4, 4, 4)
  array[..., 3] = 255
  array[1, 2, 3] = 0
  with reading.open_raster(write_png(tmp_path / "a.png", array)) as raster:
    assert np.argwhere(~reading.read_valid_mask(raster)).tolist() == [[1, 2]]
    assert np.argwhere(~reading.read_valid_mask(raster, Window(1, 1, 3, 3))).tolist() == [[0, 1]]


def test_without_a_mask_file_an_image_is_background_or_unknown():
  assert np.all(reading.mask_without_file(np.array([0.0, 0.0]), (2, 3)) == 0)
  assert np.all(reading.mask_without_file(np.array([0.0, 1.0]), (2, 3)) == UNKNOWN)


def test_folders_are_listed_by_name_and_suffix(tmp_path):
  for name in ("b.png", "a.TIF", "c.JPEG", "notes.txt", "d.png.aux.xml"):
    (tmp_path / name).touch()
  assert [p.name for p in listing.image_files(tmp_path)] == ["a.TIF", "b.png", "c.JPEG"]
  with pytest.raises(FileNotFoundError, match="nowhere"):
    listing.image_files(tmp_path / "nowhere")


def test_tables_name_a_missing_column(tmp_path):
  path = tmp_path / "t.csv"
  path.write_bytes(b"\xef\xbb\xbffile,split\r\na.png,train\r\n")
  assert tables.read_table(path, ("file",)) == [(2, {"file": "a.png", "split": "train"})]
  with pytest.raises(ValueError, match=r"t\.csv lacks the column mask"):
    tables.read_table(path, ("file", "mask"))


@pytest.mark.parametrize("content", [
  b"image,split\nb/a 1.png,train\n", b"image;split\r\nb/a 1.png;train\r\n;\r\n",
  b"Path\tSplit\nb/a 1.png\ttrain\n",
  b'\xef\xbb\xbf"Filename","SPLIT"\n"b/a 1.png"," train "\n,,\n',
  b"sep=;\nimage;split\nb/a 1.png;train\n",
  "image;split\nb/a 1.png;train\n".encode("utf-16"),
])
def test_tables_of_spreadsheets_are_read(tmp_path, content):
  (tmp_path / "t.csv").write_bytes(content)
  ((_, line),) = tables.read_table(tmp_path / "t.csv", ("image", "split"))
  assert line == {"image": "b/a 1.png", "split": "train"}


@pytest.mark.parametrize(("content", "words"), [
  (b"image,split\na.png;train\n", "row 2 has 1 cells, but the header has 2 columns"),
  (b"image,split\n\na.png,train,b\n", "row 3 has 3 cells"),
  (b"image,Image\na,b\n", "the column image twice"), (b"i\0m\0", "zero bytes"), (b"\xe9,b\n", "UTF-8"),
])
def test_tables_that_would_be_half_read_are_refused(tmp_path, content, words):
  (tmp_path / "t.csv").write_bytes(content)
  with pytest.raises(ValueError, match=rf"t\.csv.*{words}"):
    tables.read_table(tmp_path / "t.csv", ())


@pytest.mark.parametrize(("header", "row", "words"), [
  (["image", *map(str, range(20_000))], ["a.png"] * 20_001, "row 1 has 20001 cells .*more than"),
  (["image", "split"], ["a.png", "x" * 500] * 600, "row 2 has 1200 cells .*more than the 1000 columns"),
  (["image", *map(str, range(998)), "Image"], ["a.png"], "the column image twice"),
])
def test_very_wide_tables_are_refused_in_few_words(tmp_path, header, row, words):
  (tmp_path / "t.csv").write_text(f"{','.join(header)}\n{','.join(row)}\n")
  with pytest.raises(ValueError, match=rf"t\.csv.*{words}") as error:
    tables.read_table(tmp_path / "t.csv", ("image",))
  assert len(str(error.value)) < 600 + len(str(tmp_path))


@pytest.mark.parametrize(("columns", "empty"), [(2, 0), (1000, 0), (2, 16_382)])
def test_wide_tables_are_read(tmp_path, columns, empty):
  names = ["image", *(f"c{i}" for i in range(columns - 1))]
  text = "".join(f"{','.join(cells)}{',' * empty}\n" for cells in (names, ["a.png"] * columns))
  (tmp_path / "t.csv").write_text(text)
  ((_, line),) = tables.read_table(tmp_path / "t.csv", ("image",))
  assert line == dict.fromkeys(names, "a.png")


@pytest.mark.parametrize(("columns", "padding", "limit"), [(1, 0, 20), (6, 0, 10), (1, 900, 20)])
def test_long_tables_are_read_up_to_a_limit(tmp_path, monkeypatch, columns, padding, limit):
  monkeypatch.setattr(tables, "_MAX_CELLS", 100)
  names, path = [f"c{i}" for i in range(columns)], tmp_path / "t.csv"

  def write(count):
    rows = [names, *[["a"] * columns] * count]
    path.write_text("\n".join(",".join(cells) + "," * padding for cells in rows))

  write(limit - 1)
  assert len(tables.read_table(path, ())) == limit - 1
  write(limit)
  with pytest.raises(ValueError, match=rf"t\.csv has too many cells, of which only {limit} rows"):
    tables.read_table(path, ())


def test_sizes_must_match(tmp_path):
  path = write_png(tmp_path / "m.png", pixels(7, 9))
  assert reading.image_size(path) == (7, 9)
  with pytest.raises(ImageError, match=r"m\.png is \(7, 9\), its image \(8, 9\)"):
    reading.check_same_size(path, (7, 9), (8, 9))

"""What the values of masks mean: each convention, alone and in a folder, for all that reads masks."""

import dataclasses
import itertools
import logging
import pathlib

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.windows import Window

from lgag_jax.config import DataConfig
from lgag_jax.doctor import survey
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.reference import open_reference
from lgag_jax.imagery import mask_counts, mask_values, reading
from lgag_jax.imagery.mask_values import MaskRule
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.inputs import sources
from lgag_jax.mapping.rasters import open_map_raster

AUTO = mask_values.BY_VALUES
SLIDES = np.zeros((64, 64), np.uint8)
SLIDES[10:30, 8:40] = SLIDES[45:60, 50:60] = 1
BINARY, UNKNOWN_255 = MaskRule(-1), MaskRule(255)


def write(path, values, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  array = np.asarray(values)
  if path.suffix != ".tif":
    Image.fromarray(array.astype(np.uint8)).save(path, **options)
    return path
  with rasterio.open(
    path, "w", driver="GTiff", height=array.shape[0], width=array.shape[1], count=1, dtype=array.dtype,
    **options,
  ) as file:
    file.write(array, 1)
  return path


def rule(*paths, classes=1, ignore=AUTO):
  return mask_values.decide(paths, classes=classes, ignore=ignore)


@pytest.mark.parametrize(("values", "dtype", "expected"), [
  ((0, 1), np.uint8, BINARY), ((0, 255), np.uint8, BINARY), ((0, 65535), np.uint16, BINARY),
  ((0,), np.uint8, BINARY), ((1,), np.uint8, BINARY), ((0, 7), np.int16, BINARY),
  ((0, 1, 255), np.uint8, UNKNOWN_255), ((1, 255), np.uint8, UNKNOWN_255),
  ((0, 1, 2, 255), np.int32, UNKNOWN_255), ((0.0, 1.0, 255.0, np.nan), np.float32, UNKNOWN_255),
  ((0, 1, -1), np.int16, BINARY),  # -1 is unknown in any case.
])
def test_values_with_a_clear_meaning(tmp_path, values, dtype, expected):
  path = write(tmp_path / "m.tif", np.array([values, values], dtype))
  assert rule(path) == expected


@pytest.mark.parametrize(("values", "dtype", "unknown"), [
  ((255,), np.uint8, 255), ((0, 128, 255), np.uint8, 255), ((0, 2, 255), np.uint8, 255),
  ((0, 254, 255), np.uint8, 255), ((0, 1, -9999), np.int16, -9999), ((0, 1, 65535), np.uint16, 65535),
  ((0.0, 0.25, 1.0), np.float32, 0.25), (range(256), np.uint8, 255), ((0, -1, 255), np.int16, 255),
])
def test_values_without_a_clear_meaning_are_a_question(tmp_path, values, dtype, unknown):
  path = write(tmp_path / "m.tif", np.array([list(values)] * 2, dtype))
  question = rf"m\.tif.*data\.mask_ignore=-1.*If {unknown} means unknown, set .*mask_ignore={unknown}"
  with pytest.raises(ValueError, match=question):
    rule(path)
  assert rule(path, ignore=-1) == BINARY
  if isinstance(unknown, int):
    assert rule(path, ignore=unknown) == MaskRule(unknown)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.float32])
@pytest.mark.parametrize("ignore", [AUTO, -1])
def test_minus_one_alone_is_not_taken_for_unknown_in_silence(tmp_path, dtype, ignore):
  path = write(tmp_path / "m.tif", -SLIDES.astype(dtype))
  message = "m.tif holds -1, .*no mask holds a landslide.*save 1 there.*gdal_edit.py -a_nodata -1 /"
  with pytest.raises(ValueError, match=message):
    rule(path, ignore=ignore)
  declared = write(tmp_path / "n.tif", -SLIDES.astype(dtype), nodata=-1)
  assert rule(declared, ignore=ignore) == BINARY
  assert rule(path, write(tmp_path / "o.tif", SLIDES), ignore=ignore) == BINARY  # Holds landslides.


@pytest.mark.parametrize(("values", "nodata"), [((1, 2), None), ((2, 1, 3), None), ((9, 1, 2), 9)])
def test_the_lowest_of_several_values_may_be_the_background(tmp_path, values, nodata):
  path = write(tmp_path / "m.tif", np.array([values, values], np.uint8), nodata=nodata)
  with pytest.raises(ValueError, match=r"no clear meaning.*If [23] means unknown.*0 for background"):
    rule(path)
  assert rule(path, write(tmp_path / "n.tif", SLIDES)) == BINARY  # Which holds the value 0.


def colours(name, values):
  """Returns SLIDES as an image that shows landslides in a colour, or in another unusual way."""
  zero, full = SLIDES * 0, SLIDES * 0 + 255
  bands = {
    "green": [zero, values, zero], "red on white": [full, 255 - values, 255 - values],
    "grey": [values, values, values], "transparent": [values, 255 * (values > 0)],
    "opaque": [values, full],
  }
  return Image.fromarray(np.stack(bands[name], axis=-1).astype(np.uint8).squeeze())


@pytest.mark.parametrize(("name", "words"), [
  ("green", "bands 1 and 2 differ"), ("red on white", "bands 1 and 2 differ"),
  ("transparent", "transparent pixels, which may mean background or unknown"),
  ("grey", ""), ("opaque", ""),
])
def test_masks_that_colours_were_drawn_into_are_refused(tmp_path, name, words):
  colours(name, SLIDES * 255).save(tmp_path / "m.png")
  if words:
    with pytest.raises(ValueError, match=rf"m\.png: its? .*{words}.*Save the mask with one band"):
      rule(tmp_path / "m.png")
  else:
    assert rule(tmp_path / "m.png") == BINARY


@pytest.mark.parametrize("kind", ["palette", "MINISWHITE", "fax"])
def test_masks_that_show_zero_as_white_are_refused(tmp_path, kind):
  path = tmp_path / ("m.png" if kind == "palette" else "m.tif")
  if kind == "palette":
    image = Image.fromarray(SLIDES, "P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(path)
  else:
    write(path, SLIDES, photometric="MINISWHITE", **({"nbits": 1} if kind == "fax" else {}))
  with pytest.raises(ValueError, match=r"m\.... ?: its colours show the value 0 as white"):
    rule(path)
  assert rule(path, classes=2) == UNKNOWN_255  # Numbers of classes stand for themselves.
  usual = Image.fromarray(SLIDES, "P")
  usual.putpalette([0, 0, 0, 255, 255, 255])
  usual.save(tmp_path / "usual.png")
  assert rule(tmp_path / "usual.png") == BINARY


@pytest.mark.parametrize("kind", ["inside", "beside", "notes", "notes on another grid"])
def test_what_a_mask_of_a_mask_excludes_is_unknown(tmp_path, kind):
  place, crs = rasterio.Affine(2, 0, 500000, 0, -2, 3000000), CRS.from_epsg(32644)
  known = np.arange(64) >= 20
  values = np.where(known, SLIDES, 9).astype(np.uint8) if "notes" in kind else SLIDES
  path = write(tmp_path / "m.tif", values, crs=crs, transform=place)
  if kind == "inside":
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
      raster.write_mask(np.broadcast_to(known, (64, 64)))
  elif kind == "beside":
    write(tmp_path / "mask.tif", np.broadcast_to(known * np.uint8(255), (64, 64)))
    (tmp_path / "mask.tif").rename(tmp_path / "m.tif.msk")
  else:
    (tmp_path / "m.tif.aux.xml").write_text(
      '<PAMDataset><PAMRasterBand band="1"><NoDataValue>9</NoDataValue></PAMRasterBand></PAMDataset>'
    )
  step = 2 if "grid" in kind else 1
  grid = Grid(64 // step, 64 // step, crs, place @ rasterio.Affine.scale(step))
  with open_reference(path, grid, ("landslide",)) as reference:
    expected = np.where(known, SLIDES, UNKNOWN)[step - 1 :: step, step - 1 :: step]
    np.testing.assert_array_equal(reference.read(Window(0, 0, *expected.shape)), expected)


def test_a_mask_beside_a_mask_on_another_grid_is_refused(tmp_path):
  place, crs = rasterio.Affine(2, 0, 500000, 0, -2, 3000000), CRS.from_epsg(32644)
  path = write(tmp_path / "m.tif", SLIDES, crs=crs, transform=place)
  write(tmp_path / "mask.tif", SLIDES).rename(tmp_path / "m.tif.msk")
  grid = Grid(32, 32, crs, place @ rasterio.Affine.scale(2))
  with (
    pytest.raises(ValueError, match=r"m\.tif\.msk is a mask of .*m\.tif, which lies on another grid"),
    open_reference(path, grid, ("landslide",)),
  ):
    pass


def test_a_declared_nodata_value_of_255_is_not_taken_for_landslides_nor_in_silence(tmp_path):
  path = write(tmp_path / "m.tif", SLIDES * 255, nodata=255)
  with pytest.raises(ValueError, match=r"m\.tif declares 255 as nodata.*-unsetnodata.*mask_ignore=255"):
    rule(path)
  other = write(tmp_path / "n.tif", SLIDES)
  assert rule(path, other) == BINARY
  with reading.open_raster(path) as raster:
    mask = reading.read_mask(raster, classes=1, ignore=-1)
  np.testing.assert_array_equal(mask, SLIDES * UNKNOWN)


@pytest.mark.parametrize(("nodata", "dtype"), [(-2147483648, np.int32), (255, np.uint8), (9, np.uint8)])
def test_masks_without_any_background_are_refused(tmp_path, nodata, dtype):
  """As a GIS rasterises polygons: all but the landslides is nodata."""
  path = write(tmp_path / "m.tif", np.where(SLIDES, 1, nodata).astype(dtype), nodata=nodata)
  with pytest.raises(ValueError, match=rf"m\.tif declares {nodata} as nodata.* no mask holds 0"):
    rule(path)
  assert rule(path, ignore=-1).ignore == -1
  assert rule(path, write(tmp_path / "n.tif", SLIDES)).ignore == -1  # Another one shows background.


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_jpeg_masks_are_split_at_half(tmp_path, caplog, quality, suffix):
  jpeg = write(tmp_path / "m.jpg", SLIDES * 255, quality=quality)
  values = np.asarray(Image.open(jpeg))
  path = jpeg if suffix == ".jpg" else write(tmp_path / f"m{suffix}", values)
  assert len(np.unique(values)) > 9
  caplog.set_level(logging.WARNING)
  assert rule(path) == rule(path, ignore=-1) == MaskRule(-1, 127)
  assert "Values above 127 count as landslide" in caplog.text
  grid = Grid(64, 64, None, rasterio.Affine.identity())
  with open_reference(path, grid, ("landslide",)) as reference:
    assert np.mean(reference.read(Window(0, 0, 64, 64)) != SLIDES) < 0.005
  with pytest.raises(ValueError, match=r"m\..*no single value means unknown.*mask_ignore=255"):
    rule(path, ignore=255)


def test_other_jpeg_masks_are_refused(tmp_path):
  rng = np.random.default_rng(0)
  for name, values in (
    ("ones", SLIDES), ("picture", rng.integers(0, 255, (64, 64))), ("gray", SLIDES * 120),
  ):
    path = write(tmp_path / f"{name}.jpg", values, quality=90)
    if not np.asarray(Image.open(path)).any():
      continue
    with pytest.raises(ValueError, match=rf"{name}\.jpg is compressed with loss.*PNG or TIFF"):
      rule(path)
  path = write(tmp_path / "full.jpg", np.full((64, 64), 255))
  with pytest.raises(ValueError, match=r"full\.jpg.*no clear meaning"):
    rule(path)
  assert rule(write(tmp_path / "none.jpg", SLIDES * 0)) == BINARY
  jpeg = write(tmp_path / "m.jpg", SLIDES * 255)
  with pytest.raises(ValueError, match=r"m\.jpg is compressed with loss, which changes class numbers"):
    rule(jpeg, classes=2)
  with pytest.raises(ValueError, match=r"m\.jpg is compressed with loss"):
    rule(jpeg, write(tmp_path / "ones.png", SLIDES))  # Half would lose the ones.


def test_masks_of_a_folder_decide_together(tmp_path):
  with_255 = write(tmp_path / "a.png", SLIDES * 255)
  with_1 = write(tmp_path / "b.png", SLIDES)
  assert rule(with_255) == BINARY
  with_both = write(tmp_path / "c.png", np.where(SLIDES, 255, np.eye(64)))
  for paths in itertools.permutations((with_255, with_1, with_both)):
    assert rule(*paths) == UNKNOWN_255
  assert rule(with_255, with_1, ignore=-1) == BINARY
  assert rule(with_255, classes=3) == UNKNOWN_255
  (tmp_path / "bad.png").write_bytes(b"nothing")
  assert rule(with_255, tmp_path / "bad.png") == BINARY
  write(with_255, SLIDES)  # A changed file counts anew.
  assert rule(with_255) == BINARY


@pytest.mark.parametrize(("one", "other", "dtype", "shown"), [
  (SLIDES, SLIDES * 255, np.uint8, 1), (SLIDES * 0 + 1, SLIDES * 255, np.uint8, 1),
  (SLIDES, SLIDES * 0 + 255, np.uint8, 1), (SLIDES, SLIDES * 255, np.float32, 1),
  (SLIDES + 3 * np.eye(64), SLIDES * 255, np.int16, 4),
  (SLIDES, np.where(SLIDES, 255, -1), np.int16, 1),
])
def test_masks_of_two_conventions_are_a_question(tmp_path, one, other, dtype, shown):
  ones, full = (
    write(tmp_path / f"{name}.tif", values.astype(dtype)) for name, values in (("a", one), ("b", other))
  )
  question = rf"b\.tif: .*a\.tif holds {shown}, and no mask holds both.*mask_ignore=-1.*mask_ignore=255"
  for paths in ((ones, full), (full, ones), (ones, full, ones)):
    with pytest.raises(ValueError, match=question):
      rule(*paths)
  assert rule(ones, full, ignore=-1) == BINARY
  assert rule(ones, full, ignore=255) == UNKNOWN_255
  assert rule(ones, full, classes=2) == UNKNOWN_255


def make_data(root, kind, masks):
  """Writes a data set with masks of positives `masks`, by name."""
  names = {"folder": ("landslide", "non-landslide"), "patches": ("images", "images")}[kind]
  picture = np.zeros((64, 64, 3))
  for name, mask in masks.items():
    write(root / names[0] / f"{pathlib.Path(name).stem}.png", picture)
    write(root / "masks" / name, mask)
  if kind == "folder":
    write(root / names[1] / "n.png", picture)
  return DataConfig(source=kind, directory=str(root), validation_fraction=0.0)


@pytest.mark.parametrize(("kind", "last"), list(itertools.product(["folder", "patches"], range(4))))
def test_training_follows_the_rule(tmp_path, kind, last):
  name, mask, expected = (
    ("b.png", SLIDES * 255, SLIDES), ("b.png", SLIDES, SLIDES), ("b.jpg", SLIDES * 255, SLIDES),
    ("b.png", np.where(SLIDES, 255, 1), np.where(SLIDES, UNKNOWN, 1)),
  )[last]
  first = SLIDES * (1 if last in (1, 3) else 255)
  config = make_data(tmp_path, kind, {"a.png": first, name: mask})
  source = sources.make_source(config, "train")
  values = source.read(next(i for i, key in enumerate(source.ids) if "b.png" in key))[1]
  assert np.mean(values != expected) < 0.005 if name == "b.jpg" else np.array_equal(values, expected)
  chosen = sources.make_source(dataclasses.replace(config, mask_ignore=-1), "train")
  values = chosen.read(next(i for i, key in enumerate(chosen.ids) if "b.png" in key))[1]
  assert UNKNOWN not in values


@pytest.mark.parametrize("kind", ["folder", "patches"])
def test_training_and_the_doctor_ask_about_unclear_masks(tmp_path, kind):
  config = make_data(tmp_path, kind, {"a.png": SLIDES * 0 + 255, "b.png": SLIDES * 0 + 255})
  with pytest.raises(ValueError, match=r"masks/a\.png.* values \(255\) have no clear meaning"):
    sources.make_source(config, "train")
  assert "no clear meaning" in survey.read(config).unopened_splits["train"]


def test_a_warped_mask_follows_the_rule_of_the_whole_file(tmp_path):
  place, crs = rasterio.Affine(2, 0, 500000, 0, -2, 3000000), CRS.from_epsg(32644)
  path = write(tmp_path / "m.tif", SLIDES * 255, crs=crs, transform=place)
  grid = Grid(32, 32, crs, place @ rasterio.Affine.scale(2))
  with open_reference(path, grid, ("landslide",)) as reference:
    np.testing.assert_array_equal(reference.read(Window(0, 0, 32, 32)), SLIDES[1::2, 1::2])
    # A window that shows only 255 is landslide all the same.
    assert reference.read(Window(6, 6, 4, 4)).tolist() == [[1] * 4] * 4


@pytest.mark.parametrize(("height", "width"), [(1 << 20, 1 << 20), (1 << 21, 16), (16, 1 << 21)])
def test_a_mask_without_an_end_is_refused(tmp_path, height, width):
  """A sparse file of a few bytes may claim any size."""
  path = tmp_path / "a.tif"
  place = {"crs": CRS.from_epsg(32633), "transform": Affine(10, 0, 5e5, 0, -10, 5e6)}
  with rasterio.open(
    path, "w", driver="GTiff", height=height, width=width, count=1, dtype="uint8", tiled=True,
    blockxsize=8192, blockysize=8192, SPARSE_OK="TRUE", BIGTIFF="YES", **place,
  ):
    pass
  grid = Grid(64, 64, place["crs"], place["transform"])
  with pytest.raises(reading.ImageError, match=r"a\.tif is \d+ x \d+, more than"), open_reference(
    path, grid, ("landslide",)
  ):
    pass
  with pytest.raises(reading.ImageError, match=r"a\.tif .*more than"), open_map_raster(path, 1):
    pass
  assert mask_values.decide([path], classes=1, ignore=AUTO) == BINARY  # Reading it reports it.


def test_a_mask_of_another_size_is_not_read(tmp_path, monkeypatch):
  path = write(tmp_path / "a.tif", SLIDES)
  monkeypatch.setattr(mask_counts, "of_file", None)
  with pytest.raises(reading.ImageError, match=r"a\.tif is \(64, 64\), its image \(32, 64\)"), (
    open_reference(path, Grid(32, 64, None, Affine.identity()), ("landslide",))
  ):
    pass

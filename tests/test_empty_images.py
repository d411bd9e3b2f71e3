"""Training images without data, with data in a part, and with values that fill little of the range."""

import numpy as np
import pytest
import rasterio
from PIL import Image

from lgag_jax.config import DataConfig
from lgag_jax.imagery.reading import UNKNOWN, ImageError
from lgag_jax.inputs import pipeline, sources

SIDE = 32


def write(path, pixels, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  with rasterio.open(
    path, "w", driver="GTiff", height=SIDE, width=SIDE, count=pixels.shape[2], dtype=pixels.dtype,
    photometric="MINISBLACK", **options,
  ) as file:
    file.write(np.moveaxis(pixels, -1, 0))


def pixels(dtype, low, high):
  return np.random.default_rng(2).uniform(low, high, (SIDE, SIDE, 3)).astype(dtype)


@pytest.fixture
def config(tmp_path):
  for i in range(5):
    write(tmp_path / f"landslide/p{i}.tif", pixels(np.uint8, 1, 250))
    write(tmp_path / f"non-landslide/n{i}.tif", pixels(np.uint8, 1, 250))
  (tmp_path / "masks").mkdir()
  for i in range(5):
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8:20, 8:20] = 1
    Image.fromarray(mask).save(tmp_path / f"masks/p{i}.png")
  return DataConfig(source="folder", directory=str(tmp_path), image_size=SIDE)


def reader(config):
  source = sources.open_source(config, "train")
  return source, pipeline.Reader(source, config)


def empty(kind, path):
  if kind == "nan":
    write(path, np.full((SIDE, SIDE, 3), np.nan, np.float32))
  elif kind == "nodata":
    write(path, np.zeros((SIDE, SIDE, 3), np.uint8), nodata=0)
  else:
    path.unlink()
    Image.fromarray(np.zeros((SIDE, SIDE, 4), np.uint8)).save(path.with_suffix(".png"))


@pytest.mark.parametrize("kind", ["nan", "nodata", "transparent"])
@pytest.mark.parametrize("name", ["landslide/p0", "non-landslide/n0"])
def test_an_image_without_data_is_refused_or_skipped(config, tmp_path, kind, name, caplog):
  empty(kind, tmp_path / f"{name}.tif")
  source, read = reader(config)
  index = next(i for i, text in enumerate(source.ids) if text.startswith(name))
  with pytest.raises(ImageError, match=rf"{name}\.\w+ has no data: every pixel.*on_bad_image='skip'"):
    read(index)
  config = DataConfig(**{**vars(config), "on_bad_image": "skip"})
  source, read = reader(config)
  assert [float(read(i)[2]) for i in range(len(source.ids))].count(0.0) == 1
  assert "has no data" in caplog.text


@pytest.mark.parametrize("nodata", [True, False])
@pytest.mark.parametrize("name", ["landslide/p0", "non-landslide/n0"])
def test_missing_pixels_of_an_image_are_unknown_in_its_mask(config, tmp_path, nodata, name):
  values = pixels(np.float32, 0.1, 0.9)
  values[:10] = -1 if nodata else np.nan
  write(tmp_path / f"{name}.tif", values, nodata=-1 if nodata else None)
  source, _ = reader(config)
  index = source.ids.index(f"{name}.tif")
  mask = source.read(index)[1]
  expected = np.zeros((SIDE, SIDE), np.uint8)
  expected[8:20, 8:20] = name.startswith("landslide")
  expected[:10] = UNKNOWN
  np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(("dtype", "high", "proposed"), [
  (np.uint16, 4000, "4095"), (np.uint16, 10000, "10000"), (np.float32, 0.1, ""),
])
def test_values_that_fill_little_of_their_range_are_told_once(
  config, tmp_path, caplog, dtype, high, proposed
):
  for name in ("non-landslide/n0", "landslide/p1"):
    write(tmp_path / f"{name}.tif", pixels(dtype, high / 3, high))
  source, read = reader(config)
  for index in range(len(source.ids)):
    read(index)
  told = [record.message for record in caplog.records if "almost black" in record.message]
  assert len(told) == 1 and told[0].startswith("non-landslide/n0.tif: its values reach ")
  assert f"data.max_value={proposed}" in told[0] and "--mode=doctor" in told[0]


def test_dark_images_of_bytes_and_images_of_their_range_are_not_told(config, tmp_path, caplog):
  write(tmp_path / "landslide/p0.tif", pixels(np.uint8, 1, 30))
  write(tmp_path / "landslide/p1.tif", pixels(np.uint16, 100, 60000))
  write(tmp_path / "landslide/p2.tif", pixels(np.float32, 0.1, 0.9))
  source, read = reader(config)
  for index in range(len(source.ids)):
    read(index)
  assert "almost black" not in caplog.text

"""Normalisation by the training images: measured exactly, saved and read back, for any bands."""

import contextlib
import dataclasses
import json
import logging
import re

import jax
import numpy as np
import pytest
import rasterio

from lgag_jax import config as configs
from lgag_jax.config import Config, DataConfig
from lgag_jax.imagery import scaling
from lgag_jax.imagery.reading import ImageError
from lgag_jax.inputs import normalisation, sources
from lgag_jax.runtime import sealed_json
from tests.commands import call, flags_of

BANDS = 14


class Memory:
  """A source of images of different sizes with nodata pixels; image number `bad` is damaged."""

  def __init__(self, count, bands, *, bad=-1, dtype=np.float32):
    rng = np.random.default_rng(count)
    self.ids = [f"image-{i}" for i in range(count)]
    self.images, self.valid, self._bad = [], [], bad
    scale, offset = 10.0 ** np.arange(bands), np.arange(bands) * 1e4 - 2e4
    for _ in self.ids:
      shape = tuple(rng.integers(3, 40, 2))
      values = rng.gamma(2.0, size=(*shape, bands)) * scale + offset
      self.images.append(values.astype(dtype))
      self.valid.append(rng.random(shape) < 0.7)

  def read_valid_pixels(self, index):
    if index == self._bad:
      raise ImageError(f"{self.ids[index]} is damaged")
    image, valid = self.images[index].copy(), self.valid[index]
    image[~valid] = 1e30
    return image, valid

  def all(self, without=()):
    return np.concatenate([
      image[valid].astype(np.float64)
      for i, (image, valid) in enumerate(zip(self.images, self.valid, strict=True)) if i not in without
    ])


@pytest.mark.parametrize("piece", [50, 1 << 20])
@pytest.mark.parametrize("processes", [1, 3])
def test_statistics_are_those_of_all_valid_pixels_at_once(monkeypatch, piece, processes):
  source, config = Memory(71, 4), DataConfig(channels=4, normalise="train")
  monkeypatch.setattr(normalisation, "_PIECE", piece)
  if processes > 1:
    parts = []
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    for process in range(processes):
      monkeypatch.setattr(jax, "process_index", lambda process=process: process)
      monkeypatch.setattr(normalisation.processes, "gather", lambda part: parts.append(part) or part)
      normalisation.measure(source, config)
    gathered = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    monkeypatch.setattr(normalisation.processes, "gather", lambda _: gathered)
  measured, pixels = normalisation.measure(source, config), source.all()
  assert (measured["bands"], measured["images"], measured["pixels"]) == (4, 71, len(pixels))
  np.testing.assert_allclose(measured["mean"], pixels.mean(axis=0), rtol=1e-11)
  np.testing.assert_allclose(measured["std"], pixels.std(axis=0), rtol=1e-9)


def test_bad_images_are_errors_or_skipped_and_constant_bands_give_warnings(caplog):
  source = Memory(5, 3, bad=2)
  config = DataConfig(normalise="train")
  with pytest.raises(ImageError, match="image-2 is damaged"):
    normalisation.measure(source, config)
  for image in source.images:
    image[..., 1] = 0.1
  skipping = dataclasses.replace(config, on_bad_image="skip")
  with caplog.at_level(logging.WARNING):
    measured = normalisation.measure(source, skipping)
  assert measured["images"] == 4
  np.testing.assert_allclose(measured["mean"], source.all(without=[2]).mean(axis=0), rtol=1e-6)
  assert measured["std"][1] == 1.0
  assert "Band 2 has the value 0.1" in caplog.text
  for valid in source.valid:
    valid[:] = False
  with pytest.raises(ValueError, match="no pixel of the training images has data"):
    normalisation.measure(source, skipping)


def test_saved_statistics_are_read_back_exactly_and_never_measured_again(tmp_path, monkeypatch):
  config = Config(data=DataConfig(normalise="train", channels=4), model=configs.ModelConfig())
  first = normalisation.measure_or_resolve(config, Memory(9, 4), tmp_path, started=False)
  assert first.data.normalise == "given"
  saved = json.loads((tmp_path / normalisation.FILE).read_text())
  assert (saved["bands"], saved["images"]) == (4, 9)
  del saved["sha256"]
  monkeypatch.setattr(normalisation, "measure", None)  # Resuming must not call it.
  again = normalisation.measure_or_resolve(config, Memory(3, 4), tmp_path, started=True)
  assert again == first == normalisation.resolve(config, tmp_path)
  plain = Config()
  assert normalisation.resolve(plain, tmp_path) is plain
  for change in (
    {"std": [1.0, 0.0, 1.0, 1.0]}, {"mean": [1.0]}, {"mean": "abcd"}, {"bands": 3},
    {"std": [1, 2, 3, float("nan")]},
  ):
    sealed_json.write(tmp_path / normalisation.FILE, {**saved, **change})
    with pytest.raises(ValueError, match=rf"normalisation\.json.* {next(iter(change))}.*restore it"):
      normalisation.resolve(config, tmp_path)
  (tmp_path / normalisation.FILE).write_text("{")
  with pytest.raises(ValueError, match=r"normalisation\.json is not valid JSON"):
    normalisation.resolve(config, tmp_path)
  (tmp_path / normalisation.FILE).unlink()
  with pytest.raises(FileNotFoundError, match=r"normalisation\.json is missing.*restore it"):
    normalisation.measure_or_resolve(config, Memory(3, 4), tmp_path, started=True)


def test_scaled_values_have_mean_zero_and_deviation_one():
  source = Memory(12, 3)
  saved = normalisation.measure(source, DataConfig(normalise="train"))
  data = DataConfig(normalise="given", mean=tuple(saved["mean"]), std=tuple(saved["std"]))
  values = np.concatenate([
    scaling.normalise(image, data)[valid]
    for image, valid in zip(source.images, source.valid, strict=True)
  ])
  assert values.dtype == np.float32
  np.testing.assert_allclose(values.mean(axis=0, dtype=float), 0, atol=1e-4)
  np.testing.assert_allclose(values.std(axis=0, dtype=float), 1, atol=1e-4)
  with pytest.raises(ValueError, match="not been measured"):
    scaling.normalise(source.images[0], DataConfig(normalise="train"))


@pytest.mark.parametrize(
  "fields",
  [{"normalise": "train", "mean": (1.0,) * 3}, {"normalise": "train", "std": (1.0,) * 3},
   {"normalise": "train", "max_value": 255.0}, {"normalise": "given"}, {"normalise": "both"},
   {"normalise": "given", "mean": (1.0,) * 3}],
)
def test_settings_that_contradict_are_refused(fields):
  with pytest.raises(ValueError, match=r"data\.normalise"):
    DataConfig(**fields)


@pytest.mark.parametrize(
  ("low", "high", "kind", "fields", "fits"),
  [(0, 1, np.float32, {}, True), (0, 1.6, np.float32, {}, True), (0, 255, np.float32, {}, False),
   (0, 255, np.float32, {"max_value": 255.0}, True), (-25, -3, np.float64, {}, False),
   (0, 4095, np.uint16, {}, True), (0, 4095, np.uint16, {"max_value": 255.0}, False),
   (900, 1100, np.float32, {"max_value": 1.0, "mean": (1000.0,) * 3, "std": (50.0,) * 3}, True)],
)
def test_values_far_from_the_assumed_range_name_file_values_and_remedy(low, high, kind, fields, fits):
  image = np.random.default_rng(0).uniform(low, high, (9, 9, 3)).astype(kind)
  refused = contextlib.nullcontext() if fits else pytest.raises(
    ImageError, match=r"a\.tif has values from .* in band 1.*max_value.*data\.normalise='train'"
  )
  with refused:
    scaling.check_range(image, None, DataConfig(**fields), "a.tif")
  # Nodata pixels do not count.
  scaling.check_range(image, np.zeros((9, 9), bool), DataConfig(**fields), "a.tif")


def test_a_scene_far_from_training_gives_one_warning(caplog):
  data = DataConfig(normalise="given", mean=(100.0, 0.0, 5.0), std=(10.0, 1.0, 1.0))
  image = np.full((4, 4, 3), (110.0, 0.1, 500.0), np.float32)
  with caplog.at_level(logging.WARNING):
    for _ in range(3):
      scaling.check_range(image, None, data, "elsewhere.tif")
  assert [r.getMessage().partition(" has")[0] for r in caplog.records] == ["elsewhere.tif: band 3"]


@pytest.mark.parametrize("kind", ["int32", "uint32", "int64"])
def test_integers_wider_than_their_values_are_refused_unless_the_full_scale_is_known(kind):
  image = np.full((4, 4, 3), 120, kind)
  with pytest.raises(ImageError, match=rf"a\.tif holds {kind}, .*gdal_translate -ot.*data\.max_value"):
    scaling.check_range(image, None, DataConfig(), "a.tif")
  scaling.check_range(image, None, DataConfig(max_value=255.0), "a.tif")


@pytest.mark.parametrize(("brightest", "kind", "fields", "words"), [
  (255, "int16", {}, "reach 255, 0.78% of the 32767 .*data.max_value=255"),
  (4095, "uint16", {}, "reach 4095, 6.25% of the 65535 .*data.max_value=4095"),
  (60, "uint8", {}, "reach 60, 23.53% of the 255 .*data.max_value=60[.]"),
  (0, "uint16", {}, "training images[.]$"),
  (250, "uint8", {"max_value": 10000.0}, "reach 250, 2.50% of the 10000 "),
  (0.02, "float32", {}, "reach 0.02, 2.00% of the 1 "),
  (255, "uint8", {}, ""), (20000, "uint16", {}, ""), (9000, "int16", {}, ""),
])
def test_values_that_fill_little_of_their_range_are_told(brightest, kind, fields, words):
  text = scaling.dark_warning(brightest, np.dtype(kind), DataConfig(**fields))
  assert re.search(words, text) and bool(text) == bool(words)


@pytest.mark.parametrize(("value", "expected"), [
  (1.99999, 2), (0.2, 0.2), (0.9, 1), (100, 255), (60, 60), (300, 1023), (2000, 4095), (9000, 10000),
  (20000, 65535), (70123.4, 71000), (1234567, 1.3e6), (0.0, 1), (-5, 1), (3e-7, 3e-7),
])
def test_a_likely_full_scale_is_reached_and_not_exceeded(value, expected):
  full = scaling.likely_full_scale(value)
  assert full == expected and float(f"{full:g}") == full
  config = DataConfig(max_value=full)
  assert value <= 0 or (value <= full and not scaling.dark_warning(value, np.dtype("f4"), config))


def test_pictures_show_the_named_bands_stretched():
  rng = np.random.default_rng(0)
  image = rng.normal(3000, 50, (40, 40, BANDS)) * np.arange(1, BANDS + 1)
  valid = rng.random((40, 40)) < 0.8
  image[~valid] = -1e9
  shown = scaling.picture(image.astype(np.float32), (4, 3, 2), valid)
  assert (shown.shape, shown.dtype) == ((40, 40, 3), np.uint8)
  for channel, band in enumerate((4, 3, 2)):
    low, high = np.percentile(image[valid][:, band - 1], (2, 98))
    expected = np.clip((image[..., band - 1] - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(shown[valid][:, channel], expected[valid], atol=1.1)
  grey = rng.integers(0, 256, (5, 5, 2), np.uint8)
  np.testing.assert_array_equal(scaling.picture(grey, (1, 2, 3)), grey[..., [0, 0, 0]])


def write_bands(path, dtype, seed, *, landslide, side=64, missing=True):
  """Writes reflectances, one band in decibels (floats) and the last in metres, with nodata pixels."""
  rng = np.random.default_rng(seed)
  image = rng.normal(1500, 200, (BANDS, side, side))
  image[BANDS - 1] = rng.uniform(300, 2500) + rng.normal(0, 3, (side, side))
  if landslide:
    top, left = rng.integers(0, side - 24, 2)
    image[1:5, top : top + 24, left : left + 24] += 1500
  if np.issubdtype(dtype, np.floating):
    image[0] = image[0] / 100 - 40
    image[5:9] /= 10000
    if missing:
      image[7, :4, :6] = np.nan
  profile = {
    "driver": "GTiff", "dtype": dtype, "count": BANDS, "height": side, "width": side,
    "crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
  }
  if dtype == np.uint16 and missing:
    profile["nodata"] = 0
    image[:, :4, :6] = 0
  path.parent.mkdir(parents=True, exist_ok=True)
  with rasterio.open(path, "w", **profile) as file:
    file.write(image.astype(dtype))


@pytest.mark.longest
def test_fourteen_bands_from_files_to_a_map(tmp_path, small_config):
  """Uses 16-bit files; `test_catalogue` trains on the same number of bands of floats."""
  dtype = np.uint16
  root = tmp_path / "data"
  for i in range(24):
    folder = root / ("landslide" if i % 2 else "non-landslide")
    write_bands(folder / f"{i:02d}.tif", dtype, i, landslide=bool(i % 2))
  write_bands(tmp_path / "scene.tif", dtype, 99, landslide=True, side=100)
  small_config.data.directory = str(root)
  small_config.data.channels = BANDS
  small_config.data.normalise = "train"
  small_config.model.rgb_bands = (4, 3, 2)
  small_config.model.method = "class_activation"
  small_config.train.epochs = 1
  small_config.train.evaluate_every = 0
  small_config.refine.method = "none"  # The filter for so many bands takes long to compile.
  config = configs.from_mapping(small_config)
  workdir, output = tmp_path / "run", tmp_path / "maps"
  settings = {"JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
  predict = ["--mode=predict", f"--input={tmp_path / 'scene.tif'}", f"--output={output}"]
  for flags in (flags_of(config), predict):
    result = call(*flags, f"--workdir={workdir}", **settings)
    assert result.returncode == 0, result.stderr
  saved = json.loads((workdir / "normalisation.json").read_text())
  source = sources.open_source(config.data, "train")
  pixels = np.concatenate([image[valid] for image, valid in map(source.pixels, range(len(source.ids)))])
  assert saved["images"] == len(source.ids) and saved["pixels"] == len(pixels) == len(source.ids) * 4072
  np.testing.assert_allclose(saved["mean"], pixels.mean(axis=0, dtype=float), rtol=1e-6)
  np.testing.assert_allclose(saved["std"], pixels.std(axis=0, dtype=float), rtol=1e-5)
  assert json.loads((workdir / "config.json").read_text())["data"]["mean"] == []
  with rasterio.open(next((output / "mask").glob("*.tif"))) as mask:
    assert (mask.height, mask.width) == (100, 100)
    assert np.all(mask.read(1)[:4, :6] == 255) and not np.any(mask.read(1)[5:, 7:] == 255)
  assert (output / "overlay").is_dir() and (workdir / "report.html").exists()

"""Maps of scenes: windows, blending, missing data, resuming and sharing out, with a known network.

In the network's place stands a function whose result for each pixel is known, so that a map can be
compared with the whole scene computed at once; a score that differs from window to window shows seams.
"""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
import rasterio
from PIL import Image

from lgag_jax.config import Config, DataConfig, LocalizeConfig
from lgag_jax.geo import scale
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import reading
from lgag_jax.mapping import cog, distribution, products, unfinished, window_pipeline
from lgag_jax.mapping.products import Plan
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import processes, sharding
from lgag_jax.runtime.preemption import Stopped

SIDE = 32
CONFIG = Config(
  data=DataConfig(image_size=SIDE, tile_size=SIDE), localize=LocalizeConfig(batch_size=4)
)
TRANSFORM = rasterio.Affine(2.0, 0.3, 500000.0, 0.1, -2.0, 5200000.0)


def brightness(pixels):
  """The score of a window that the network's stand-in gives: the mean of the colours, as a share."""
  return pixels.astype(np.float32).mean(-1, keepdims=True) / 255


@pytest.fixture
def looks(monkeypatch):
  """Puts `brightness` in the network's place; counts the windows that it looks at."""
  seen = []

  def make_look(network, config, mesh, view):
    def look(state, pixels):
      assert pixels.shape[1:3] == (view.side, view.side)
      seen.append(len(pixels))
      scores = brightness(pixels)
      return scores, scores.max((1, 2))

    return look

  monkeypatch.setattr(window_pipeline, "make_look", make_look)
  return seen


def write_scene(path, pixels, *, nodata=None, crs="EPSG:32633"):
  with rasterio.open(
    path, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1], count=3, dtype="uint8",
    crs=crs, transform=TRANSFORM, nodata=nodata,
  ) as raster:
    raster.write(np.moveaxis(pixels, -1, 0))
  return path


def picture(height, width, seed=0):
  """Smooth ground with some bright patches."""
  rng = np.random.default_rng(seed)
  small = rng.integers(20, 250, (height // 8 + 2, width // 8 + 2), np.uint8)
  whole = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
  return np.repeat(whole[..., None], 3, -1)


def predict(path, output, options=Options(), *, shared=False, key="key"):
  with open_scene(path, 3) as scene:
    grid = scene.grid
  view = scale.view(scale.Scale(SIDE, 2.0), CONFIG, grid.gsd(), options.tile_size)
  plan = Plan(path, path.stem, grid, view, key)
  left_out = []
  work = distribution.Share(
    output, CONFIG, options, [0.5], shared, lambda path, error: left_out.append(str(error))
  )
  work.map([plan], None, None, sharding.make_mesh())
  return plan, left_out


def read(path):
  with rasterio.open(path) as raster:
    return raster.read()


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("shape", [(100, 75), (32, 32), (20, 90), (33, 10)])
def test_a_map_is_that_of_the_scene_at_once(looks, tmp_path, shape, overlap):
  pixels = picture(*shape)
  path = write_scene(tmp_path / "scene.tif", pixels)
  plan, left_out = predict(path, tmp_path, Options(overlap=overlap, probability="float32"))
  assert not left_out and products.is_done(plan, tmp_path)
  expected = brightness(pixels)[..., 0]
  np.testing.assert_allclose(read(tmp_path / "probability/scene.tif")[0], expected, atol=1e-6)
  clear = np.abs(expected - 0.5) > 1e-5
  mask = read(tmp_path / "mask/scene.tif")[0]
  np.testing.assert_array_equal(mask[clear], (expected >= 0.5)[clear])
  for folder in ("probability", "mask"):
    with rasterio.open(tmp_path / folder / "scene.tif") as raster:
      assert (raster.crs.to_epsg(), raster.transform, raster.shape) == (32633, TRANSFORM, shape)
      assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    ".unfinished", "mask", "overlay", "polygons", "probability", "scene.tif", "scenes"
  ]
  assert not any((tmp_path / ".unfinished").iterdir())
  result = json.loads((tmp_path / "scenes/scene.json").read_text())
  assert result["classes"]["landslide"]["pixels"] == (mask == 1).sum()
  assert result["classes"]["landslide"]["probability"] == pytest.approx(expected.max(), abs=1e-4)
  for made in ("polygons/scene.gpkg", "polygons/scene.qml", "overlay/scene.png", "mask/scene.qml"):
    (tmp_path / made).rename(tmp_path / "away")  # Made again when it is asked for again.
    assert not products.is_done(plan, tmp_path)
    (tmp_path / "away").rename(tmp_path / made)
  assert products.is_done(plan, tmp_path)


def test_a_scene_that_loses_its_georeference_leaves_no_older_products(looks, tmp_path):
  pixels, names = picture(64, 64), lambda: {p.name for p in tmp_path.glob("[mp]*/scene.*")}
  predict(write_scene(tmp_path / "scene.tif", pixels), tmp_path)
  assert names() == {"scene.tif", "scene.qml", "scene.gpkg", "scene.geojson"}
  Image.fromarray(pixels).save(tmp_path / "scene.tif")
  predict(tmp_path / "scene.tif", tmp_path, key="other")
  assert names() == {"scene.png"}


def test_missing_data_is_neither_input_nor_output(looks, tmp_path):
  pixels = np.maximum(picture(90, 120), 1)
  pixels[10:70, 40:] = 0  # Windows within it are not looked at.
  path = write_scene(tmp_path / "scene.tif", pixels, nodata=0)
  predict(path, tmp_path, Options(overlap=0.0))
  missing = (pixels == 0).all(-1)
  for folder, rest in (("mask", {0, 1}), ("probability", set(range(101)))):
    values = read(tmp_path / folder / "scene.tif")[0]
    np.testing.assert_array_equal(values == cog.NO_DATA, missing)
    assert set(np.unique(values[~missing])) <= rest
  np.testing.assert_allclose(
    read(tmp_path / "probability/scene.tif")[0][~missing], 100 * brightness(pixels)[~missing][:, 0],
    atol=0.51,
  )
  assert json.loads((tmp_path / "scenes/scene.json").read_text())["windows"] == 10  # Of twelve.


@pytest.mark.parametrize("probability", ["percent", "float32"])
def test_a_scene_without_any_data_costs_no_window(looks, tmp_path, probability):
  path = write_scene(tmp_path / "scene.tif", np.zeros((70, 70, 3), np.uint8), nodata=0)
  predict(path, tmp_path, Options(probability=probability))
  assert not looks
  assert (read(tmp_path / "mask/scene.tif") == cog.NO_DATA).all()


@pytest.fixture
def seams(monkeypatch):
  """A network whose scores differ from window to window: a level of each window's own."""
  def make_look(network, config, mesh, view):
    def look(state, pixels):
      levels = np.random.default_rng(len(pixels)).random((len(pixels), 1, 1, 1), np.float32)
      return np.broadcast_to(levels, (*pixels.shape[:3], 1)), levels[:, :, 0, 0]
    return look
  monkeypatch.setattr(window_pipeline, "make_look", make_look)


@pytest.mark.parametrize(("overlap", "smooth"), [(0.0, False), (0.25, True), (0.5, True)])
def test_no_step_at_a_window_s_border(seams, tmp_path, overlap, smooth):
  path = write_scene(tmp_path / "scene.tif", picture(128, 128))
  predict(path, tmp_path, Options(overlap=overlap, probability="float32"))
  scores = read(tmp_path / "probability/scene.tif")[0]
  steps = max(np.abs(np.diff(scores, axis=axis)).max() for axis in (0, 1))
  # Between two levels a ramp as wide as the overlap; without one, all at once.
  assert (steps < 0.35) == smooth


def test_a_stopped_map_goes_on_to_the_same(looks, tmp_path, monkeypatch):
  path = write_scene(tmp_path / "scene.tif", picture(200, 60))
  predict(path, tmp_path / "whole", Options(overlap=0.3, probability="float32"))
  whole = len(looks)
  monkeypatch.setattr(unfinished, "_SAVE_EVERY", 0.0)
  calls = iter(range(100))

  def check():
    if next(calls) == 5:
      raise Stopped("Stopped")

  monkeypatch.setattr(window_pipeline.preemption, "check", check)
  with pytest.raises(Stopped):
    predict(path, tmp_path / "parts", Options(overlap=0.3, probability="float32"))
  assert not (tmp_path / "parts" / "mask").exists()
  before = len(looks)
  monkeypatch.setattr(window_pipeline.preemption, "check", lambda: None)
  predict(path, tmp_path / "parts", Options(overlap=0.3, probability="float32"))
  assert len(looks) - before < whole
  for name in ("probability/scene.tif", "mask/scene.tif"):
    np.testing.assert_array_equal(read(tmp_path / "parts" / name), read(tmp_path / "whole" / name))
  # What another network or option has left is not gone on with.
  left = unfinished.Store(tmp_path / "x", "a", (0, 10), 5, 1, "uint8")
  left.write(0, np.zeros((10, 5, 1), np.uint8), np.zeros((10, 5), np.uint8))
  left.save(3, np.zeros((4, 5, 1), np.float32), [0.5], now=True)
  assert left.resume()[0] == 3
  assert unfinished.Store(tmp_path / "x", "b", (0, 10), 5, 1, "uint8").resume() is None


@pytest.mark.parametrize("count", [2, 3, 9])
def test_processes_that_share_a_scene_draw_the_same_map(looks, tmp_path, monkeypatch, count):
  monkeypatch.setattr(unfinished, "_SAVE_EVERY", 0.0)
  path = write_scene(tmp_path / "scene.tif", picture(150, 50))
  predict(path, tmp_path / "one", Options(overlap=0.4))
  monkeypatch.setattr(jax, "process_count", lambda: count)
  monkeypatch.setattr(processes, "barrier", lambda name: None)
  for process in reversed(range(count)):  # The first comes last: it joins the others' rows.
    monkeypatch.setattr(jax, "process_index", lambda process=process: process)
    monkeypatch.setattr(
      processes, "from_first", lambda function, process=process: None if process else function()
    )
    _, left_out = predict(path, tmp_path / "shared", Options(overlap=0.4), shared=True)
    assert not left_out
  for name in ("probability/scene.tif", "mask/scene.tif"):
    np.testing.assert_array_equal(read(tmp_path / "shared" / name), read(tmp_path / "one" / name))


def test_one_process_that_cannot_read_its_rows_leaves_the_others_to_end(looks, tmp_path, monkeypatch):
  monkeypatch.setattr(unfinished, "_SAVE_EVERY", 0.0)
  path = write_scene(tmp_path / "scene.tif", picture(150, 50))
  read_row, output = window_pipeline._read_row, tmp_path / "out"

  def broken(scene, job, row):
    if job.span[0] and row == len(job.rows.starts) - 1:
      raise reading.ImageError(f"{path} is damaged")
    return read_row(scene, job, row)

  monkeypatch.setattr(window_pipeline, "_read_row", broken)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(processes, "barrier", lambda name: None)
  for process in (1, 0):
    monkeypatch.setattr(jax, "process_index", lambda process=process: process)
    monkeypatch.setattr(
      processes, "from_first", lambda function, process=process: None if process else function()
    )
    plan, left_out = predict(path, output, shared=True)
    assert len(left_out) == 1
  assert not products.is_done(plan, output)
  assert [p for p in output.rglob("*") if p.is_file()] == []


def test_a_finer_scene_is_averaged_to_training_s_resolution(looks, tmp_path):
  blocks = picture(40, 56)
  fine = blocks.repeat(3, axis=0).repeat(3, axis=1)[:-2, :-1]  # No multiple of three.
  path = tmp_path / "scene.tif"
  with rasterio.open(
    path, "w", driver="GTiff", height=fine.shape[0], width=fine.shape[1], count=3, dtype="uint8",
    crs="EPSG:32633", transform=rasterio.Affine(2 / 3, 0, 5e5, 0, -2 / 3, 5.2e6),
  ) as raster:
    raster.write(np.moveaxis(fine, -1, 0))
  plan, _ = predict(path, tmp_path, Options(probability="float32"))
  assert (plan.view.reduction, plan.view.side, plan.view.model_side) == (3, SIDE, SIDE)
  scores = read(tmp_path / "probability/scene.tif")[0]
  assert scores.shape == fine.shape[:2]
  np.testing.assert_allclose(scores[:-1, :-2], brightness(fine)[:-1, :-2, 0], atol=0.01)


def test_a_scene_that_breaks_off_is_left_out_and_leaves_nothing(looks, tmp_path):
  path = write_scene(tmp_path / "scene.tif", picture(200, 200))
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])
  _, left_out = predict(path, tmp_path / "out")
  assert len(left_out) == 1 and "scene.tif" in left_out[0]
  assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


def test_a_full_disk_is_an_error_that_leaves_no_product(looks, tmp_path, monkeypatch):
  path = write_scene(tmp_path / "scene.tif", picture(100, 100))

  def copy(source, target, **options):
    pathlib.Path(target).write_bytes(b"half")
    raise rasterio.errors.RasterioIOError("No space left on device")

  monkeypatch.setattr(cog.rasterio.shutil, "copy", copy)
  with pytest.raises(OSError, match="No space left on device"):
    predict(path, tmp_path / "out")
  names = [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()]
  assert names and all(".unfinished" in str(p) for p in (tmp_path / "out").rglob("*") if p.is_file())


def test_windows_follow_the_ground_resolution():
  training = scale.Scale(64, 10.0)
  config = dataclasses.replace(CONFIG, data=DataConfig(image_size=256, tile_size=64))
  assert scale.view(training, config, 10.0) == scale.View(1, 64, 256)
  assert scale.view(training, config, 2.5) == scale.View(1, 256, 256)
  assert scale.view(training, config, 0.5) == scale.View(5, 256, 256)
  assert scale.view(training, config, None) == scale.View(1, 64, 256)
  assert scale.view(training, config, 10.0, tile_size=96) == scale.View(1, 96, 384)
  assert scale.view(training, config, 10.0, shape=(96, 500)) == scale.View(1, 96, 384)
  assert scale.view(training, config, 10.0, shape=(95, 500)) == scale.View(1, 64, 256)
  assert scale.view(training, config, 0.5, shape=(3000, 2000)) == scale.View(5, 384, 384)
  with pytest.raises(ValueError, match="10 times as coarse"):
    scale.view(training, config, 100.0)


def test_options_are_checked():
  for field, value in (("overlap", 0.9), ("overlap", -1), ("tile_size", 8), ("min_area", -2.0)):
    with pytest.raises(ValueError, match=f"--{field}={value}"):
      Options(**{field: value})


def test_table_and_numbers_are_of_all_inputs_to_an_output(looks, tmp_path):
  plans = []
  for name in ("first", "second"):
    plan, _ = predict(write_scene(tmp_path / f"{name}.tif", picture(40, 50)), tmp_path / "out")
    plans.append(plan)
  rows = products.collect(plans[1:], tmp_path / "out", CONFIG)
  assert [row["file"] for row in rows] == ["second.tif"]
  table = (tmp_path / "out/predictions.csv").read_text()
  assert "first.tif" in table and "second.tif" in table
  assert len(products.results(tmp_path / "out", CONFIG)) == 2

"""Maps of scenes: windows, blending, missing data, resuming and dividing work among processes.

A function of the pixels replaces the network, so that a map can be compared with the whole scene
computed at once. A function whose scores differ between windows shows seams.
"""

import dataclasses
import json
import logging
import os
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from rasterio.crs import CRS

from lgag_jax.config import Config, DataConfig, LocalizeConfig
from lgag_jax.geo import scale
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import reading
from lgag_jax.mapping import (
  gate_windows,
  maps_table,
  output_folder,
  products,
  rasters,
  row_store,
  scene_job,
  vectors,
  window_pipeline,
)
from lgag_jax.mapping import predict as prediction
from lgag_jax.mapping.products import ScenePlan
from lgag_jax.mapping.row_store import RowStore, SavedState
from lgag_jax.mapping.scene_mapper import SceneMapper
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import files, processes, sharding
from lgag_jax.runtime.preemption import Stopped

SIDE = 32
CONFIG = Config(
  data=DataConfig(image_size=SIDE, tile_size=SIDE), localize=LocalizeConfig(batch_size=4, gate=0.0)
)
TRANSFORM = rasterio.Affine(2.0, 0.3, 500000.0, 0.1, -2.0, 5200000.0)


def brightness(pixels):
  """Returns the score that replaces the network's: the mean of the colours, from 0 to 1."""
  return pixels.astype(np.float32).mean(-1, keepdims=True) / 255


@pytest.fixture
def batch_sizes(monkeypatch):
  """Replaces the network by `brightness`; returns the list of the sizes of its batches."""
  sizes = []

  def make_window_scores(network, config, mesh, windows):
    def window_scores(state, pixels):
      assert pixels.shape[1:3] == (windows.side, windows.side)
      sizes.append(len(pixels))
      scores = brightness(pixels)
      return scores, scores.max((1, 2))

    return window_scores

  monkeypatch.setattr(window_pipeline, "make_window_scores", make_window_scores)
  return sizes


def write_scene(path, pixels, *, nodata=None, crs="EPSG:32633"):
  with rasterio.open(
    path, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1], count=3, dtype="uint8",
    crs=crs, transform=TRANSFORM, nodata=nodata,
  ) as raster:
    raster.write(np.moveaxis(pixels, -1, 0))
  return path


def picture(height, width, seed=0):
  """Returns smooth ground with some bright patches."""
  rng = np.random.default_rng(seed)
  small = rng.integers(20, 250, (height // 8 + 2, width // 8 + 2), np.uint8)
  whole = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
  return np.repeat(whole[..., None], 3, -1)


def predict(path, output, options=Options(), *, split_scenes=False, key="key", mesh=None):
  with open_scene(path, 3) as scene:
    grid, dtype = scene.grid, scene.dtype
  windows = scale.plan_windows(scale.Scale(SIDE, 2.0), CONFIG, grid.gsd(), options.tile_size)
  plan = ScenePlan(path, path.stem, grid, windows, key, dtype)
  skipped = []
  mapper = SceneMapper(
    output, CONFIG, options, [0.5], split_scenes, lambda path, error: skipped.append(str(error))
  )
  mapper.map_scenes([plan], None, None, mesh or sharding.make_mesh())
  return plan, skipped


def read(path):
  with rasterio.open(path) as raster:
    return raster.read()


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("shape", [(100, 75), (32, 32), (20, 90), (33, 10)])
def test_a_map_equals_that_of_the_whole_scene_at_once(batch_sizes, tmp_path, shape, overlap):
  pixels = picture(*shape)
  path = write_scene(tmp_path / "scene.tif", pixels)
  plan, skipped = predict(path, tmp_path, Options(overlap=overlap, probability="float32"))
  assert not skipped and products.is_complete(plan, tmp_path)
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
    ".unfinished", "gate", "image", "mask", "overlay", "polygons", "probability", "scene.tif", "scenes"
  ]
  assert not any((tmp_path / ".unfinished").iterdir())
  result = json.loads((tmp_path / "scenes/scene.json").read_text())
  assert result["classes"]["landslide"]["pixels"] == (mask == 1).sum()
  assert result["classes"]["landslide"]["probability"] == pytest.approx(expected.max(), abs=1e-4)
  for name in ("polygons/scene.gpkg", "polygons/scene.qml", "overlay/scene.png", "mask/scene.qml"):
    (tmp_path / name).rename(tmp_path / "away")  # Without one, the map is not complete.
    assert not products.is_complete(plan, tmp_path)
    (tmp_path / "away").rename(tmp_path / name)
  assert products.is_complete(plan, tmp_path)


@pytest.mark.parametrize(("cores", "side", "programs"), [
  (1, SIDE, 1), (2, SIDE, 2), (5, SIDE, 5), (5, 2 * SIDE, 2), (5, 4 * SIDE, 1),
])
def test_programs_that_end_out_of_order_draw_the_same_map(
  batch_sizes, tmp_path, monkeypatch, cores, side, programs
):
  compute, running, most, delays = window_pipeline.make_window_scores, set(), [], iter(range(99))

  def make_window_scores(*arguments):
    scores = compute(*arguments)

    def late_scores(state, batch):
      number = next(delays)
      running.add(number)
      most.append(len(running))
      time.sleep(0.02 * (number % 3))
      running.remove(number)
      return tuple(map(jnp.asarray, scores(state, batch)))

    return late_scores

  monkeypatch.setattr(window_pipeline, "make_window_scores", make_window_scores)
  monkeypatch.setattr(os, "cpu_count", lambda: cores)
  pixels, mesh = picture(230, 170), sharding.make_mesh(jax.devices()[:1])
  path = write_scene(tmp_path / "scene.tif", pixels)
  predict(path, tmp_path, Options(probability="float32", tile_size=side), mesh=mesh)
  assert set(batch_sizes) == {1}
  assert max(most) == programs
  np.testing.assert_allclose(
    read(tmp_path / "probability/scene.tif")[0], brightness(pixels)[..., 0], atol=1e-6)


def test_a_scene_that_loses_its_georeference_leaves_no_older_products(batch_sizes, tmp_path):
  pixels, names = picture(64, 64), lambda: {p.name for p in tmp_path.glob("[mp]*/scene.*")}
  predict(write_scene(tmp_path / "scene.tif", pixels), tmp_path)
  assert names() == {"scene.tif", "scene.qml", "scene.gpkg", "scene.geojson", "scene.parquet"}
  Image.fromarray(pixels).save(tmp_path / "scene.tif")
  predict(tmp_path / "scene.tif", tmp_path, key="other")
  assert names() == {"scene.png"}


def test_missing_data_is_neither_input_nor_output(batch_sizes, tmp_path):
  pixels = np.maximum(picture(90, 120), 1)
  pixels[10:70, 40:] = 0  # The network does not get windows within it.
  path = write_scene(tmp_path / "scene.tif", pixels, nodata=0)
  predict(path, tmp_path, Options(overlap=0.0))
  missing = (pixels == 0).all(-1)
  for folder, rest in (("mask", {0, 1}), ("probability", set(range(101)))):
    values = read(tmp_path / folder / "scene.tif")[0]
    np.testing.assert_array_equal(values == rasters.NO_DATA, missing)
    assert set(np.unique(values[~missing])) <= rest
  np.testing.assert_allclose(
    read(tmp_path / "probability/scene.tif")[0][~missing], 100 * brightness(pixels)[~missing][:, 0],
    atol=0.51,
  )
  assert json.loads((tmp_path / "scenes/scene.json").read_text())["windows"] == 10  # Of twelve.


@pytest.mark.parametrize("probability", ["percent", "float32"])
def test_a_scene_without_data_scores_no_window(batch_sizes, tmp_path, probability):
  path = write_scene(tmp_path / "scene.tif", np.zeros((70, 70, 3), np.uint8), nodata=0)
  predict(path, tmp_path, Options(probability=probability))
  assert not batch_sizes
  assert (read(tmp_path / "mask/scene.tif") == rasters.NO_DATA).all()


@pytest.fixture
def seams(monkeypatch):
  """Replaces the network by one constant score per window."""
  def make_window_scores(network, config, mesh, windows):
    def window_scores(state, pixels):
      levels = np.random.default_rng(len(pixels)).random((len(pixels), 1, 1, 1), np.float32)
      return np.broadcast_to(levels, (*pixels.shape[:3], 1)), levels[:, :, 0, 0]
    return window_scores
  monkeypatch.setattr(window_pipeline, "make_window_scores", make_window_scores)


@pytest.mark.parametrize(("overlap", "smooth"), [(0.0, False), (0.25, True), (0.5, True)])
def test_no_step_at_a_window_s_border(seams, tmp_path, overlap, smooth):
  path = write_scene(tmp_path / "scene.tif", picture(128, 128))
  predict(path, tmp_path, Options(overlap=overlap, probability="float32"))
  scores = read(tmp_path / "probability/scene.tif")[0]
  steps = max(np.abs(np.diff(scores, axis=axis)).max() for axis in (0, 1))
  # Between two levels is a ramp as wide as the overlap; without overlap, a step.
  assert (steps < 0.35) == smooth


def test_a_stopped_map_resumes_to_the_same(batch_sizes, tmp_path, monkeypatch):
  path = write_scene(tmp_path / "scene.tif", picture(200, 60))
  predict(path, tmp_path / "whole", Options(overlap=0.3, probability="float32"))
  whole = len(batch_sizes)
  monkeypatch.setattr(row_store, "_SAVE_SECONDS", 0.0)
  calls = iter(range(100))

  def check():
    if next(calls) == 5:
      raise Stopped("Stopped")

  monkeypatch.setattr(window_pipeline.preemption, "check", check)
  with pytest.raises(Stopped, match="Stopped"):
    predict(path, tmp_path / "parts", Options(overlap=0.3, probability="float32"))
  assert not (tmp_path / "parts" / "mask").exists()
  before = len(batch_sizes)
  monkeypatch.setattr(window_pipeline.preemption, "check", lambda: None)
  predict(path, tmp_path / "parts", Options(overlap=0.3, probability="float32"))
  assert len(batch_sizes) - before < whole
  for name in ("probability/scene.tif", "mask/scene.tif"):
    np.testing.assert_array_equal(read(tmp_path / "parts" / name), read(tmp_path / "whole" / name))
  for a, b in zip(*(opened(tmp_path / name, 0.7) for name in ("parts", "whole")), strict=True):
    np.testing.assert_array_equal(a, b)


def opened(output, gate):
  """Returns the scores of the scene's cells at a gate, and where they differ from the map's."""
  shape = read(output / "mask/scene.tif").shape[1:]
  shape = gate_windows.cell_shape(*shape, 1)
  return gate_windows.read(output / "gate/scene.npz", shape, 1).at(gate, CONFIG.localize.gate, shape)


def test_a_map_of_another_network_or_option_is_not_resumed(tmp_path):
  store = RowStore(tmp_path, "a", (0, 10), 5, 1, "uint8")
  store.write(0, np.zeros((10, 5, 1), np.uint8), np.zeros((10, 5), np.uint8))
  store.save(SavedState(3, np.zeros((4, 5, 1), np.float32), [0.5]), now=True)
  assert store.load_state(9, (4, 5, 1)).next_row == 3
  assert RowStore(tmp_path, "b", (0, 10), 5, 1, "uint8").load_state(9, (4, 5, 1)) is None


@pytest.mark.parametrize("count", [2, 3, 9])
def test_processes_that_split_a_scene_draw_the_same_map(batch_sizes, tmp_path, monkeypatch, count):
  monkeypatch.setattr(row_store, "_SAVE_SECONDS", 0.0)
  path = write_scene(tmp_path / "scene.tif", picture(150, 50))
  predict(path, tmp_path / "one", Options(overlap=0.4))
  monkeypatch.setattr(jax, "process_count", lambda: count)
  monkeypatch.setattr(processes, "barrier", lambda name: None)
  for process in reversed(range(count)):  # The first process runs last: it joins the rows.
    monkeypatch.setattr(jax, "process_index", lambda process=process: process)
    monkeypatch.setattr(
      processes, "run_on_first", lambda function, process=process: None if process else function()
    )
    _, skipped = predict(path, tmp_path / "split", Options(overlap=0.4), split_scenes=True)
    assert not skipped
  for name in ("probability/scene.tif", "mask/scene.tif"):
    np.testing.assert_array_equal(read(tmp_path / "split" / name), read(tmp_path / "one" / name))
  for a, b in zip(*(opened(tmp_path / name, 0.7) for name in ("split", "one")), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_process_that_cannot_read_its_rows_lets_the_others_finish(batch_sizes, tmp_path, monkeypatch):
  monkeypatch.setattr(row_store, "_SAVE_SECONDS", 0.0)
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
      processes, "run_on_first", lambda function, process=process: None if process else function()
    )
    plan, skipped = predict(path, output, split_scenes=True)
    assert len(skipped) == 1
  assert not products.is_complete(plan, output)
  assert [p for p in output.rglob("*") if p.is_file()] == []


def test_a_finer_scene_is_averaged_to_the_training_resolution(batch_sizes, tmp_path):
  blocks = picture(40, 56)
  fine = blocks.repeat(3, axis=0).repeat(3, axis=1)[:-2, :-1]  # Not a multiple of three.
  path = tmp_path / "scene.tif"
  with rasterio.open(
    path, "w", driver="GTiff", height=fine.shape[0], width=fine.shape[1], count=3, dtype="uint8",
    crs="EPSG:32633", transform=rasterio.Affine(2 / 3, 0, 5e5, 0, -2 / 3, 5.2e6),
  ) as raster:
    raster.write(np.moveaxis(fine, -1, 0))
  plan, _ = predict(path, tmp_path, Options(probability="float32"))
  assert (plan.windows.reduction, plan.windows.side, plan.windows.model_side) == (3, SIDE, SIDE)
  scores = read(tmp_path / "probability/scene.tif")[0]
  assert scores.shape == fine.shape[:2]
  np.testing.assert_allclose(scores[:-1, :-2], brightness(fine)[:-1, :-2, 0], atol=0.01)


def test_a_truncated_scene_is_skipped_and_leaves_nothing(batch_sizes, tmp_path):
  path = write_scene(tmp_path / "scene.tif", picture(200, 200))
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])
  _, skipped = predict(path, tmp_path / "out")
  assert len(skipped) == 1 and "scene.tif" in skipped[0]
  assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("silent", [False, True])
def test_a_full_disk_is_an_error_that_leaves_no_product(batch_sizes, tmp_path, monkeypatch, silent):
  path = write_scene(tmp_path / "scene.tif", picture(100, 100))
  whole_copy = rasterio.shutil.copy

  def copy(source, target, **options):
    whole_copy(source, target, **options)
    content = pathlib.Path(target).read_bytes()
    pathlib.Path(target).write_bytes(content[: len(content) // 2])
    if not silent:
      raise rasterio.errors.RasterioIOError("No space left on device")

  monkeypatch.setattr(rasters.rasterio.shutil, "copy", copy)
  with pytest.raises(OSError, match=r"scene\.tif could not be written"):
    predict(path, tmp_path / "out")
  paths = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
  assert paths and all(".unfinished" in str(p) for p in paths)


@pytest.mark.parametrize("crs", ["EPSG:32633", None])
def test_finished_rasters_are_opened_once(batch_sizes, tmp_path, monkeypatch, crs):
  path = tmp_path / "scene.tif"
  if crs:
    write_scene(path, picture(100, 100), crs=crs)
  else:
    Image.fromarray(picture(100, 100)).save(path)
  opened, open_file = [], rasterio.open

  def count(path, mode="r", **options):
    opened.append((pathlib.Path(path).parent.name, mode))
    return open_file(path, mode, **options)

  monkeypatch.setattr(rasterio, "open", count)
  predict(path, tmp_path / "out")
  assert opened.count(("mask", "r")) == opened.count(("probability", "r")) == 1


def test_windows_follow_the_ground_resolution():
  training = scale.Scale(64, 10.0)
  config = dataclasses.replace(CONFIG, data=DataConfig(image_size=256, tile_size=64))
  assert scale.plan_windows(training, config, 10.0) == scale.WindowPlan(1, 64, 256)
  assert scale.plan_windows(training, config, 2.5) == scale.WindowPlan(1, 256, 256)
  assert scale.plan_windows(training, config, 0.5) == scale.WindowPlan(5, 256, 256)
  assert scale.plan_windows(training, config, None) == scale.WindowPlan(1, 64, 256)
  assert scale.plan_windows(training, config, 10.0, tile_size=96) == scale.WindowPlan(1, 96, 384)
  assert scale.plan_windows(training, config, 10.0, shape=(96, 500)) == scale.WindowPlan(1, 96, 384)
  assert scale.plan_windows(training, config, 10.0, shape=(95, 500)) == scale.WindowPlan(1, 64, 256)
  assert scale.plan_windows(training, config, 0.5, shape=(3000, 2000)) == scale.WindowPlan(5, 384, 384)
  with pytest.raises(ValueError, match="10 times as coarse"):
    scale.plan_windows(training, config, 100.0)
  assert scale.plan_windows(training, config, 0.05, shape=(50, 50)).reduction == 50
  for gsd, shape in ((0.05, (49, 500)), (9e-5, (128, 128)), (0.01, (500, 128))):
    with pytest.raises(ValueError, match=rf"it has {shape[0]} x {shape[1]} pixels of {gsd:g} m, and"):
      scale.plan_windows(training, config, gsd, shape=shape)


@pytest.mark.parametrize("shape", [(17, 24), (15, 20), (2, 3)])
def test_scores_of_reduced_pixels_are_repeated_to_the_border(shape):
  scores = np.random.default_rng(0).random((3, 4, 2))
  whole = scores.repeat(5, axis=0).repeat(5, axis=1)
  whole = np.pad(whole, ((0, 9), (0, 9), (0, 0)), mode="edge")[: shape[0], : shape[1]]
  parts = [
    scene_job._enlarged(scores, 5, start, (min(7, shape[0] - start), shape[1]))
    for start in range(0, shape[0], 7)
  ]
  np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_narrow_pixels_beyond_a_pole_need_no_points_without_number():
  grid = Grid(128, 128, CRS.from_epsg(32633), Affine(1e-6, 0, 500_000, 0, -1e9, 5_000_000))
  polygons = np.array([shapely.box(500_000, 5e6 - 128e9, 500_000.000_128, 5e6)], object)
  assert vectors.to_degrees(polygons, grid).shape == (1,)


def test_options_are_checked():
  for field, value in (("overlap", 0.9), ("overlap", -1), ("tile_size", 8), ("min_area", -2.0)):
    with pytest.raises(ValueError, match=f"--{field}={value}"):
      Options(**{field: value})


def test_table_and_numbers_are_of_all_inputs_to_an_output(batch_sizes, tmp_path):
  plans = []
  for name in ("first", "second"):
    plan, _ = predict(write_scene(tmp_path / f"{name}.tif", picture(40, 50)), tmp_path / "out")
    plans.append(plan)
  scenes = output_folder.read_figures(tmp_path / "out", CONFIG.data.classes)
  table = maps_table.write(tmp_path / "out", scenes)
  assert {stem: row["file"] for stem, row in table.items()} == {
    "first": "first.tif", "second": "second.tif"
  }
  table = (tmp_path / "out/predictions.csv").read_text()
  assert "first.tif" in table and "second.tif" in table
  assert len(scenes) == 2


@pytest.mark.parametrize("scenes", [1, 2, 5])
def test_the_figures_of_each_map_are_read_once_for_table_and_page(
  batch_sizes, tmp_path, monkeypatch, scenes
):
  plan, _ = predict(write_scene(tmp_path / "a.tif", picture(40, 50)), tmp_path / "out")
  record = plan.figures_path(tmp_path / "out")
  for k in range(1, scenes):
    figures = {**json.loads(record.read_text()), "stem": f"{k}"}
    (record.parent / f"{k}.json").write_text(json.dumps(figures))
  read, reads = files.read_json, []
  monkeypatch.setattr(files, "read_json", lambda path: reads.append(path.name) or read(path))
  result = prediction.MappingResult([], [plan], CONFIG, 1, [0.5], {})
  rows = prediction._write_table_and_page(result, tmp_path / "out")
  assert [row["file"] for row in rows] == ["a.tif"]
  assert [reads.count(f"{k}.json") for k in range(1, scenes)] == [1] * (scenes - 1)
  assert reads.count(record.name) == 2  # Also to see whether it is complete.
  assert (tmp_path / "out/report.html").exists()


@pytest.mark.parametrize("split_scenes", [False, True])
@pytest.mark.parametrize(("kind", "factor", "words"), [
  ("int16", 1, "of the 32767"), ("uint16", 16, "of the 65535"), ("uint16", 0, "no data"),
  ("uint8", 1, ""), ("uint16", 257, ""),
])
def test_a_scene_whose_values_say_little_has_a_warning(
  batch_sizes, tmp_path, caplog, kind, factor, words, split_scenes
):
  path = write_scene(tmp_path / "scene.tif", picture(50, 40), nodata=0)
  with rasterio.open(path) as raster:
    profile, values = raster.profile, raster.read()
  with rasterio.open(path, "w", **{**profile, "dtype": kind}) as raster:
    raster.write((values.astype(kind) * factor).astype(kind))
  with caplog.at_level(logging.WARNING):
    _, skipped = predict(path, tmp_path / "maps", split_scenes=split_scenes)
  assert not skipped
  warnings = json.loads((tmp_path / "maps/scenes/scene.json").read_text())["warnings"]
  assert len(warnings) == bool(words)
  assert all(words in text and text in caplog.text for text in warnings)


def test_a_blank_map_is_not_blamed_on_the_values_of_a_scene_without_data():
  row = {f"{name}_{key}": 0.0 for name in CONFIG.data.classes for key in ("share", "probability")}
  assert prediction.blank_maps_warning([{**row, "no_data_share": 1.0}], CONFIG) == ""
  rows = [{**row, "no_data_share": 1.0}, {**row, "no_data_share": 0.2}]
  assert "Every map is black" in prediction.blank_maps_warning(rows, CONFIG)

"""--threshold and --gate of prediction: the map follows, and every file says what made it."""

import csv
import dataclasses
import json

import numpy as np
import pyogrio.raw
import pytest
import rasterio

from lgag_jax.api import Model
from lgag_jax.config import LocalizeConfig
from lgag_jax.mapping import judge, predict, window_pipeline
from lgag_jax.options.mapping import Options, References
from tests.test_map_names import model  # noqa: F401
from tests.test_mapping import batch_sizes, brightness, picture, read, write_scene  # noqa: F401

pytestmark = pytest.mark.usefixtures("batch_sizes")


@pytest.fixture
def scene(tmp_path):
  return write_scene(tmp_path / "a.tif", picture(64, 80))


def test_the_map_follows_and_every_file_names_the_threshold(model, scene, tmp_path):  # noqa: F811
  maps = tmp_path / "maps"
  scores = brightness(picture(64, 80))[..., 0]
  for flag, level in ((0.7,), 0.7), ((), 0.5):
    result = predict.map_scenes(model, scene, maps, Options(threshold=flag, min_area=0))
    clear = np.abs(scores - level) > 1e-5
    np.testing.assert_array_equal(read(maps / "mask/a_tif.tif")[0][clear], (scores >= level)[clear])
    for image in (scene, picture(64, 80)):  # In memory it is the same map.
      in_memory = Model(model).predict(image, options=Options(threshold=flag))
      np.testing.assert_array_equal(in_memory.mask[clear], (scores >= level)[clear])
    set_by_hand = bool(flag)
    meta, _, _, columns = pyogrio.raw.read(maps / "polygons/a_tif.gpkg")
    (method,) = set(dict(zip(meta["fields"], columns, strict=True))["method"])
    assert f"score threshold {level:.3f}" in method
    assert ("(--threshold)" in method) == set_by_hand
    with rasterio.open(maps / "mask/a_tif.tif") as raster:
      assert raster.tags()["TIFFTAG_IMAGEDESCRIPTION"] == method
    record = json.loads((maps / "scenes/a_tif.json").read_text())
    assert (record["classes"]["landslide"]["threshold"], record["method"]) == (level, method)
    page = (maps / "report.html").read_text()
    assert f"Score threshold: {level:.3f}, {'set with --threshold' if flag else 'chosen'}" in page
    assert f"<td>{level:.3f}</td>" in page
    with (maps / "predictions.csv").open(newline="") as file:
      (row,) = csv.DictReader(file)
    assert float(row["landslide_threshold"]) == level
    assert result.thresholds == [level]


def test_an_evaluation_says_that_the_threshold_was_given(model, scene, tmp_path):  # noqa: F811
  with rasterio.open(scene) as raster:
    profile = raster.profile | {"count": 1}
  with rasterio.open(tmp_path / "truth.tif", "w", **profile) as raster:
    raster.write((brightness(picture(64, 80))[..., 0] >= 0.5).astype(np.uint8), 1)
  options, references = Options(threshold=(0.6,)), References(labels=str(tmp_path / "truth.tif"))
  result = predict.map_scenes(model, scene, tmp_path / "maps", options)
  content = judge.evaluate_maps(
    result, {scene: tmp_path / "truth.tif"}, tmp_path / "maps", options, references)
  assert content["threshold_rule"] == "--threshold"
  assert content["classes"]["landslide"]["label_free"]["threshold"] == 0.6
  text = (tmp_path / "maps/eval/scenes.md").read_text()
  assert "The maps use the threshold that --threshold gave." in text
  assert "label-free" not in text


@pytest.mark.parametrize(("gate", "mapped"), [(-1.0, False), (0.2, True), (0.95, False)])
def test_the_gate_decides_whether_a_window_is_mapped(model, scene, tmp_path, monkeypatch, gate, mapped):  # noqa: F811
  def make_window_scores(network, config, mesh, windows):
    def window_scores(state, pixels):
      return brightness(pixels), np.full((len(pixels), 1), 0.4, np.float32)  # Under the config's gate.

    return window_scores

  monkeypatch.setattr(window_pipeline, "make_window_scores", make_window_scores)
  config = dataclasses.replace(model.config, localize=LocalizeConfig(batch_size=4, gate=0.5))
  model = dataclasses.replace(model, config=config)
  result = predict.map_scenes(model, scene, tmp_path / "maps", Options(gate=gate))
  assert (read(tmp_path / "maps/mask/a_tif.tif")[0] == 1).any() == mapped
  in_memory = Model(model).predict(picture(64, 80), options=Options(gate=gate))
  assert (in_memory.mask == 1).any() == mapped
  page = (tmp_path / "maps/report.html").read_text()
  assert (f"Gate: {gate:g}, set with --gate." if gate >= 0 else "Gate: 0.5.") in page
  assert result.config.localize.gate == (0.5 if gate < 0 else gate)


@pytest.mark.parametrize(("fields", "message"), [
  ({"threshold": (0.0,)}, "--threshold=0.0: must be above 0"), ({"threshold": (1.5,)}, "at most 1"),
  ({"threshold": (0.3, 0.4)}, "--threshold=0.3,0.4: must be 1 numbers, of the classes landslide"),
  ({"gate": 1.0}, "--gate=1.0: must be -1, or from 0"), ({"gate": -0.5}, "--gate=-0.5"),
])
def test_wrong_values_are_named(model, scene, tmp_path, fields, message):  # noqa: F811
  for image, output in ((scene, tmp_path / "maps"), (picture(64, 80), None)):
    with pytest.raises(ValueError, match=message):
      Model(model).predict(image, output, options=Options(**fields))


@pytest.mark.parametrize("fields", [{"bands": (3, 2, 1)}, {"before": "before.tif"}])
def test_options_of_files_are_refused_for_arrays(model, fields):  # noqa: F811
  (name,) = fields
  with pytest.raises(ValueError, match=rf"`options\.{name}` is for files: "):
    Model(model).predict(picture(64, 80), options=Options(**fields))

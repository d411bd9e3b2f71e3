"""The loop, from a folder of images to maps: what a workdir holds, resuming, evaluation, prediction."""

import csv
import json
import re
import shutil
import threading

import jax
import numpy as np
import pytest
import rasterio
from PIL import Image

from lgag_jax import config as configs
from lgag_jax.evaluation import evaluate, report
from lgag_jax.mapping import judge, predict
from lgag_jax.options.mapping import Options, References
from lgag_jax.runtime import preemption, sharding
from lgag_jax.training import fill_trunk_outputs, log, loop, own_files, restore
from tests.conftest import make_small_config


@pytest.fixture(scope="module")
def trained(request, tmp_path_factory, image_folder):
  """A workdir of a finished training, and its final state."""
  workdir = tmp_path_factory.mktemp("run")
  config = request.getfixturevalue("module_config")
  state = loop.train_and_evaluate(config, workdir)
  return workdir, jax.device_get(state)


@pytest.fixture(scope="module")
def module_config(image_folder):
  return configs.from_mapping(make_small_config(image_folder))


def assert_equal(one, other):
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_array_equal(a, b)


def test_workdir_holds_what_it_should(trained, module_config):
  workdir, state = trained
  assert configs.load(workdir / "config.json") == module_config
  assert int(state.step) == 2 * 4  # 26 training images, batches of 8, two epochs.
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  assert [line["step"] for line in lines if line["split"] == "train"] == [2, 4, 6, 8]
  assert any(line["split"] == "validation" for line in lines)
  assert list(workdir.glob("events.out.tfevents.*"))
  written = {
    path.relative_to(workdir).as_posix() for folder in (workdir, workdir / "eval")
    for path in folder.iterdir() if path.is_file()
  }
  own = {name for name in written if not name.startswith(("config.json", "lock", "events.out."))}
  assert own <= set(own_files.FILES)  # A new training in a folder of the user would replace others.
  result = json.loads((workdir / "eval" / "validation.json").read_text())
  values = result["classes"]["landslide"]
  for name in ("class_activation", "anchor_guided"):
    rates = values["maps"][name]["label_free"]
    assert 0.0 <= rates["iou"] <= values["maps"][name]["oracle"]["iou"] <= 1.0
    assert rates["pixels"] == result["examples"] * 64 * 64
    assert sum(row["landslides"] for row in values["maps"][name]["recall_by_size"]) == 4
  assert values["image"]["images"] == result["examples"] == 6


def test_second_start_goes_on_to_the_same_state(trained, module_config, tmp_path):
  workdir, final = trained
  copy = tmp_path / "copy"
  shutil.copytree(workdir, copy)
  steps = sorted(int(p.name) for p in (copy / "checkpoints").iterdir() if p.name.isdigit())
  assert steps == [3, 6, 8]
  # As if stopped in mid-epoch, after the checkpoint of step 3.
  for step in steps[1:]:
    shutil.rmtree(copy / "checkpoints" / str(step))
  state = loop.train_and_evaluate(module_config, copy)
  assert_equal(jax.device_get(state), final)
  lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
  # Means start anew at the checkpoint; no step is told twice.
  assert [line["step"] for line in lines if line["split"] == "train"] == [2, 4, 6, 8]
  reference = json.loads((workdir / "eval" / "validation.json").read_text())
  assert json.loads((copy / "eval" / "validation.json").read_text()) == reference


def told(workdir):
  """What a training wrote that does not depend on the clock."""
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  for line in lines:
    line.pop("steps_per_second", None)
  return lines, *(json.loads((workdir / name).read_text()) for name in (
    "thresholds.json", "eval/validation.json"))


@pytest.mark.longest
def test_three_stops_leave_nothing_different(trained, module_config, tmp_path):
  """Between lines of the log, at a checkpoint, at an epoch's last step before its validation."""
  reference, final = trained
  stop_at, add = [1, 3, 4], log.Log.add
  signalled = threading.Event()

  def add_and_signal(self, step, metrics, *, flush):
    add(self, step, metrics, flush=flush)
    if stop_at and step == stop_at[0]:
      stop_at.pop(0)
      signalled.set()

  def check():
    if signalled.is_set():
      signalled.clear()
      raise preemption.Stopped("Stopped")

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(log.Log, "add", add_and_signal)
    patch.setattr(preemption, "check", check)
    for step in (1, 3, 4):
      with pytest.raises(preemption.Stopped, match=f"at step {step} of 8"):
        loop.train_and_evaluate(module_config, tmp_path)
    state = loop.train_and_evaluate(module_config, tmp_path)
  assert_equal(jax.device_get(state), final)
  assert told(tmp_path) == told(reference)


@pytest.mark.longest
def test_evaluation_of_the_workdir_gives_the_same_numbers(trained):
  workdir, _ = trained
  before = json.loads((workdir / "eval" / "validation.json").read_text())
  assert loop.evaluate_workdir(workdir) == before


def test_evaluation_counts_what_a_loop_over_pixels_counts(trained, module_config):
  from lgag_jax.inference import localize
  from lgag_jax.inputs import pipeline, sources

  workdir, _ = trained
  result = json.loads((workdir / "eval" / "validation.json").read_text())["classes"]["landslide"]
  mesh = sharding.make_mesh()
  config, network, state = restore.restore(workdir, mesh)
  source = sources.open_source(config.data, "validation")
  read = pipeline.Reader(source, config.data)
  run = localize.make_localize(network, config, mesh)
  # From the trunk outputs that training has kept as halves, as the evaluation.
  split = fill_trunk_outputs.open_split(source, network, state, config, mesh, workdir)
  batches = list(split.eval_batches(config))
  maps = [run(state, localize.inputs_of(batch, config)) for batch in batches]
  names = localize.map_names(config)
  assert names
  for name in names:
    oracle = result["maps"][name]["oracle"]
    tp = fp = fn = tn = examples = 0
    for batch, batch_maps in zip(batches, maps, strict=True):
      scores = np.asarray(localize.gated(batch_maps, name, config))[..., 0]
      for index, image_scores in zip(batch["index"], scores, strict=True):
        if index < 0:  # Fills the last batch.
          continue
        called, truth = image_scores >= oracle["threshold"], read(index)[1] == 1
        tp, fp = tp + np.sum(called & truth), fp + np.sum(called & ~truth)
        fn, tn = fn + np.sum(~called & truth), tn + np.sum(~called & ~truth)
        examples += 1
    assert examples == 6
    assert oracle["iou"] == pytest.approx(tp / (tp + fp + fn), abs=1e-6)
    assert oracle["accuracy"] == pytest.approx((tp + tn) / (tp + fp + fn + tn), abs=1e-6)


@pytest.mark.longest
def test_feature_cache_changes_only_the_speed(trained, module_config, tmp_path):
  import dataclasses

  _, final = trained
  data = dataclasses.replace(module_config.data, feature_cache_gib=0.0)
  schedule = dataclasses.replace(module_config.train, evaluate_every=0)
  config = dataclasses.replace(module_config, data=data, train=schedule)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(evaluate, "evaluate", lambda *_, **__: None)
    state = loop.train_and_evaluate(config, tmp_path)
  # Kept outputs are halves: 11 bits.
  for a, b in zip(
    jax.tree.leaves(final.params["head"]), jax.tree.leaves(state.params["head"]), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=0.02)


def test_another_config_is_refused_in_the_same_workdir(trained, module_config):
  import dataclasses

  workdir, _ = trained
  other = dataclasses.replace(module_config.optim, learning_rate=0.5)
  with pytest.raises(ValueError, match=r"optim.learning_rate: 0.01 -> 0.5.*another --workdir"):
    loop.train_and_evaluate(dataclasses.replace(module_config, optim=other), workdir)


def test_a_workdir_opens_on_as_many_devices_as_there_are(trained):
  workdir, final = trained
  config, _, state = restore.restore(workdir, sharding.make_mesh(jax.devices()[:3]))
  assert config.localize.batch_size == 9  # Trained with 8.
  assert_equal(jax.device_get(state), final)


def test_no_checkpoint_is_a_clear_error(trained, tmp_path):
  workdir, _ = trained
  shutil.copy(workdir / "config.json", tmp_path)
  with pytest.raises(FileNotFoundError, match="holds no sound checkpoint"):
    restore.restore(tmp_path, sharding.make_mesh())
  with pytest.raises(FileNotFoundError, match="workdir of a training"):
    restore.restore(tmp_path / "nowhere", sharding.make_mesh())


@pytest.mark.longest
def test_prediction_maps_a_folder_and_names_what_it_left_out(trained, image_folder, tmp_path, caplog):
  """The folder holds names as long as they can be, an image of an odd size and place, and a bad one."""
  workdir, _ = trained
  source = tmp_path / "in"
  shutil.copytree(image_folder / "landslide", source)
  (source / "broken.png").write_bytes(b"not a png")
  image = next((image_folder / "landslide").iterdir())
  for name in ("a" * 251 + ".png", "a" * 250 + "b.png"):
    shutil.copy(image, source / name)
  transform = rasterio.Affine(2.0, 0.3, 500000.0, 0.1, -2.0, 5200000.0)
  with rasterio.open(
    source / "place.tif", "w", driver="GTiff", width=75, height=50, count=3, dtype="uint8",
    crs="EPSG:32633", transform=transform,
  ) as raster:
    raster.write(np.full((3, 50, 75), 80, np.uint8))
  rows = predict.map_scenes(workdir, source, tmp_path / "out").rows
  assert len(rows) == 23
  assert "broken.png" in caplog.text and not (tmp_path / "out" / ".unfinished").exists()
  assert "<h2>Not mapped</h2>" in (tmp_path / "out" / "report.html").read_text()
  with (tmp_path / "out" / "predictions.csv").open() as file:
    paths = {row["path"] for row in csv.DictReader(file)}
  assert len(paths) == 23 and str(source / "place.tif") in paths
  for name in ("probability", "mask", "overlay"):
    paths = [p for p in (tmp_path / "out" / name).iterdir() if p.suffix != ".qml"]
    assert len(paths) == 23
    assert sorted({Image.open(path).size for path in paths}) == [(64, 64), (75, 50)]
  with rasterio.open(tmp_path / "out" / "mask" / "place_tif.tif") as raster:
    assert raster.crs.to_epsg() == 32633
    assert raster.transform == transform
    assert raster.shape == (50, 75)
  with Image.open(min((tmp_path / "out" / "mask").glob("*.png"))) as mask:
    assert set(np.unique(mask)) <= {0, 1} and mask.getpalette()[3:6] == [230, 60, 40]
  # Judged, nothing is mapped again; images without a mask are left out.
  before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/mask").iterdir()}
  shutil.copytree(image_folder / "masks", tmp_path / "masks")
  next((tmp_path / "masks").iterdir()).unlink()
  wanted = References(labels=str(tmp_path / "masks"), mask_ignore=-1)
  result = judge.evaluate(workdir, source, tmp_path / "out", Options(), wanted)
  assert before == {path: path.stat().st_mtime_ns for path in before}
  assert result["pixels"] == {"judged": 19 * 64 * 64, "no_data": 0, "unknown": 0}
  assert len(result["left_out"]) == 4 and len(result["scenes"]) == 19
  (unmapped,) = result["unmapped"]
  assert "broken.png" in unmapped and unmapped in (tmp_path / "out/eval/scenes.md").read_text()
  page = (tmp_path / "out" / "report.html").read_text()
  before_references, _ = page.split("<h2>Compared with references</h2>")
  assert "broken.png" in before_references


def test_prediction_says_what_is_missing(trained, tmp_path):
  workdir, _ = trained
  with pytest.raises(FileNotFoundError, match="no such file or folder"):
    predict.map_scenes(workdir, tmp_path / "nowhere", tmp_path / "out")
  (tmp_path / "empty").mkdir()
  with pytest.raises(FileNotFoundError, match="holds no image"):
    predict.map_scenes(workdir, tmp_path / "empty", tmp_path / "out")


def test_report_is_one_page_with_every_picture(trained):
  workdir, _ = trained
  text = report.write_report(workdir).read_text()
  assert text.count('src="data:image/png;base64,') == 4
  # Pictures in base64 may spell any four letters.
  assert "http" not in re.sub(r'base64,[^"]*', "", text).split("<pre>")[0]
  for word in ("label-free", "oracle", "Memory bank", "image classifier"):
    assert word in text


def test_report_escapes_what_it_did_not_write(trained, tmp_path):
  workdir, _ = trained
  copy = tmp_path / "<script>x"
  shutil.copytree(workdir, copy)
  path = copy / "eval" / "validation.json"
  path.write_text(path.read_text().replace('"data": "', '"data": "<script>alert(1)</script>'))
  assert "<script>" not in report.write_report(copy).read_text()

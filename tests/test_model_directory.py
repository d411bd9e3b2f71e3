"""Model directories, and Python's way in: the maps of the workdir, bit for bit, with less at hand."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import safetensors.numpy

import lgag_jax
from lgag_jax.export import export
from lgag_jax.geo.scene import open_scene
from lgag_jax.mapping import predict, window_pipeline
from lgag_jax.mapping.scene_ends import SceneEnds
from lgag_jax.options.export import Settings
from lgag_jax.runtime import checksums
from lgag_jax.training import loop, model_card, model_directory, pseudo_masks
from tests.test_export import small
from tests.test_mapping import write_scene
from tests.untrained import GSD, SIDE, make_workdir

DOCS = pathlib.Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return make_workdir(tmp_path_factory.mktemp("run"), small(data__directory="/home/someone/secret"))


@pytest.fixture(scope="module")
def directory(workdir):
  export.export(workdir, workdir / "out", Settings(what=("model",)))
  return workdir / "out" / "model"


@pytest.fixture(scope="module")
def model(directory):
  return lgag_jax.load(directory)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
  pixels = np.random.default_rng(2).integers(1, 256, (90, 110, 3), np.uint8)
  pixels[:, 30:60] = pixels[:, 30:60] // 4 + 1
  pixels[40:70, 80:] = 0  # No data.
  return write_scene(tmp_path_factory.mktemp("scene") / "scene.tif", pixels, nodata=0), pixels


@pytest.fixture(scope="module")
def mapped(workdir, scene):
  """The probability and mask of the workdir's own map."""
  options = lgag_jax.Options(probability="float32")
  predict.map_scenes(workdir, scene[0], workdir / "maps", options)
  return read(workdir / "maps")


def read(output):
  rasters = []
  for folder in ("probability", "mask"):
    (path,) = (output / folder).glob("*.tif")
    with rasterio.open(path) as raster:
      rasters.append(np.moveaxis(raster.read(), 0, -1))
  return rasters[0], rasters[1][..., 0]


def test_a_model_directory_draws_the_workdir_s_maps(model, scene, mapped, tmp_path):
  rows = model.predict(scene[0], tmp_path, options=lgag_jax.Options(probability="float32"))
  assert [row["file"] for row in rows] == ["scene.tif"]
  for found, wanted in zip(read(tmp_path), mapped, strict=True):
    np.testing.assert_array_equal(found, wanted)
  assert 0 < (mapped[1] == 1).mean() < 1 and np.nanstd(mapped[0]) > 0.02


def test_a_batch_keeps_its_order_however_its_scenes_end(model, scene, monkeypatch):
  class LastFirst(SceneEnds):
    """Ends scenes in the opposite order."""

    def __init__(self):
      super().__init__()
      self.jobs = []

    def end(self, job):
      self.jobs.insert(0, job)

    def wait(self):
      for job in self.jobs:
        super().end(job)
      super().wait()

  shades = np.stack([scene[1] // k for k in (1, 2, 3)])
  expected = model.predict(shades)
  monkeypatch.setattr(window_pipeline, "SceneEnds", LastFirst)
  found = model.predict(shades)
  np.testing.assert_array_equal(found.probability, expected.probability)
  assert found.scores["landslide"].tolist() == expected.scores["landslide"].tolist()
  assert len(set(found.scores["landslide"].tolist())) == 3


def test_files_and_arrays_give_the_same_map(model, scene, mapped, tmp_path):
  path, pixels = scene
  found = model.predict(path)
  np.testing.assert_array_equal(found.probability, mapped[0])
  np.testing.assert_array_equal(found.mask, mapped[1])
  assert found.probability.dtype == np.float32 and 0 < found.scores["landslide"] < 1
  with open_scene(path, 3) as opened:
    gsd = opened.grid.gsd()
  whole = model.predict(write_scene(tmp_path / "whole.tif", pixels))
  batch = model.predict(np.stack([pixels, pixels[::-1]]), gsd=gsd)
  assert batch.probability.shape == (2, 90, 110, 1) and batch.scores["landslide"].shape == (2,)
  np.testing.assert_array_equal(batch.probability[0], whole.probability)
  np.testing.assert_array_equal(batch.mask[0], whole.mask)
  assert not np.array_equal(batch.probability[1], whole.probability)
  # Floats, a byte's 255 as 1, NaN for no data; of half as many metres, averaged to training's.
  values = np.where(pixels.all(-1, keepdims=True), pixels / np.float32(255), np.nan)
  wanted = model.predict(values, gsd=GSD).probability.repeat(2, 0).repeat(2, 1)
  halved = model.predict(values.repeat(2, 0).repeat(2, 1), gsd=GSD / 2).probability
  np.testing.assert_array_equal(np.isnan(halved[::2, ::2]), np.isnan(mapped[0]))
  np.testing.assert_allclose(halved, wanted, atol=1e-5)
  expected = model.predict(values, gsd=GSD).probability
  for kind in (np.float64, np.longdouble):
    np.testing.assert_array_equal(model.predict(values.astype(kind), gsd=GSD).probability, expected)


@pytest.mark.parametrize(("array", "message"), [
  (np.zeros((5, 5)), r"The array is \[5, 5\]: give \[H, W, 3\]"),
  (np.zeros((5, 5, 4), np.uint8), r"\[5, 5, 4\]"), (np.zeros((0, 5, 3)), r"\[0, 5, 3\]"),
  *((np.zeros((5, 5, 3), t), f"The array holds {t}, of which images fill only a part.*data.max_value")
    for t in ("int64", "int32", "uint32", "uint64")),
  (np.zeros((5, 5, 3), np.int8), r"The array holds int8.*array\.view\(np\.uint8\)"),
  (np.zeros((5, 5, 3), complex), "holds complex128"), (np.zeros((5, 5, 3), bool), "holds bool"),
])
def test_arrays_are_checked(model, array, message):
  with pytest.raises(ValueError, match=message):
    model.predict(array)


class Attributed:
  """What xarray.DataArray offers: an array with attributes."""

  def __init__(self, array, **attrs):
    self.array, self.attrs, self.shape, self.ndim = array, attrs, array.shape, array.ndim

  def __array__(self, dtype=None, copy=None):
    return self.array


def forms_of_missing_data(pixels, missing):
  """Yields images in each of which the pixels `missing` are no data."""
  zeroed = np.where(missing[..., None], np.uint8(0), np.maximum(pixels, 1))
  partly = np.zeros(pixels.shape, bool)
  partly[..., 1] = missing  # Missing in one band is missing.
  yield "masked", np.ma.masked_array(pixels, partly)
  yield "list", [np.ma.masked_array(pixels, partly)]
  for name in ("_FillValue", "missing_value", "nodata"):
    yield name, Attributed(zeroed, **{name: 0})
  yield "nodatavals", Attributed(zeroed, nodatavals=(0, 0, 0))
  large = np.where(missing[..., None], np.float32(1e20), pixels / np.float32(255))
  yield "float", Attributed(large, _FillValue=1e20)
  yield "list of attributed", [Attributed(zeroed, _FillValue=np.uint8(0))]


def test_missing_values_of_arrays_are_no_data(model, scene):
  pixels = np.maximum(scene[1], 1)
  missing = np.zeros(pixels.shape[:2], bool)
  missing[:, :40] = missing[50:60, 70:80] = True
  wanted = None
  for name, image in forms_of_missing_data(pixels, missing):
    found = model.predict(image)
    np.testing.assert_array_equal(np.reshape(found.mask, missing.shape) == 255, missing, name)
    wanted = found if wanted is None else wanted
    # Integers fill missing pixels with a rounded mean.
    atol = 0.01 if name == "float" else 0.0
    shown = np.squeeze(found.probability), np.squeeze(wanted.probability)
    np.testing.assert_allclose(*shown, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize(("image", "message"), [
  (np.full((5, 5, 3), None), "holds objects, such as pandas.NA.*na_value"),
  (Attributed(np.ones((5, 5, 3), np.int16), scale_factor=0.0001), "scale_factor=0.0001.*scale=True"),
  (Attributed(np.ones((5, 5, 3), np.uint8), _FillValue="none"), "_FillValue='none', which is not"),
  (Attributed(np.ones((5, 5, 3), np.uint8), nodatavals=(1, 2)), "2 values in its attribute nodatavals"),
])
def test_arrays_whose_missing_data_is_unclear_are_refused(model, image, message):
  with pytest.raises(ValueError, match=message):
    model.predict(image)


def test_the_folder_holds_no_places_and_no_optimiser(directory, model):
  assert sorted(path.name for path in directory.iterdir()) == [
    "README.md", "SHA256SUMS", "config.json", "model.safetensors", "scale.json", "thresholds.json"
  ]
  assert not any(b"someone" in path.read_bytes() for path in directory.iterdir())
  assert set(safetensors.numpy.load_file(directory / "model.safetensors")) == set(
    model_directory._tensors(model.loaded.state))
  card = (directory / "README.md").read_text()
  head = card.split("---\n")[1]
  values = {k: json.loads(v) for k, v in re.findall(r"^([\w-]+): (.*)$", head, re.M)}
  assert values["pipeline_tag"] == "image-segmentation"
  assert values["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.4321
  assert "trained on secret" in card and f"| ground resolution | {GSD:g} m" in card


def test_names_in_a_card_are_text(tmp_path):
  config = small(data__classes=("<b>x|`\n---\nlicense: mit",))
  card = model_card.text(tmp_path, config, 3)
  assert "<b>" not in card and "license: mit" not in card.splitlines()
  assert r"| classes | &lt;b&gt;x\|\` --- license: mit |" in card.splitlines()
  assert "These weights have no evaluation." in card


def broken(tensors, change):
  name = "params/head/classifier/conv/kernel"
  if change == "missing":
    del tensors[name]
  elif change == "strange":
    tensors["optimiser"] = np.zeros(3, np.float32)
  elif change == "shape":
    tensors[name] = tensors[name][1:].copy()
  elif change == "type":
    tensors[name] = tensors[name].astype(np.float64)
  else:
    tensors[name][0, 0, 0, 0] = np.nan


@pytest.mark.parametrize("change", ["missing", "strange", "shape", "type", "finite"])
def test_weights_from_strangers_are_checked(directory, tmp_path, change):
  for path in directory.iterdir():
    if path.name != checksums.FILE_NAME:  # Whoever changes files can remove their digests.
      (tmp_path / path.name).write_bytes(path.read_bytes())
  tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
  broken(tensors, change)
  safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
  name = "'optimiser'" if change == "strange" else "'params/head/classifier/conv/kernel'"
  with pytest.raises(ValueError, match=rf"model\.safetensors.* {name}.*Fetch the folder again"):
    lgag_jax.load(tmp_path)
  (tmp_path / "model.safetensors").write_bytes(b"no weights")
  with pytest.raises(ValueError, match=r"model\.safetensors cannot be read as weights"):
    lgag_jax.load(tmp_path)


def test_a_model_directory_is_no_workdir(directory):
  before = sorted(directory.iterdir())
  with pytest.raises(ValueError, match=r"is a model directory.*Train into another --workdir"):
    loop.train_and_evaluate(small(), directory)
  with pytest.raises(ValueError, match=r"is a model directory.*Judge it on scenes"):
    loop.evaluate_workdir(directory)
  with pytest.raises(ValueError, match=r"is a model directory.*name the workdir"):
    pseudo_masks.write(directory)
  assert sorted(directory.iterdir()) == before


ALONE = """
import sys, time
import lgag_jax
assert not {"jax", "numpy", "tensorflow"} & set(sys.modules)
import numpy as np
model = lgag_jax.load(sys.argv[1])
result = model.predict(np.load(sys.argv[2]))
np.save(sys.argv[3], result.probability)
exec(open(sys.argv[4]).read())
assert "tensorflow" not in sys.modules
"""


@pytest.mark.longest
def test_python_alone_needs_no_tensorflow(directory, model, tmp_path):
  """Nor do the parts in docs/api.md, whose script this runs."""
  text = (DOCS / "api.md").read_text()
  (script,) = re.findall(r"```python\n(.*?)```", text, re.S)
  (tmp_path / "script.py").write_text(script)
  array = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
  np.save(tmp_path / "array.npy", array)
  result = subprocess.run(
    [sys.executable, "-c", ALONE, directory, tmp_path / "array.npy", tmp_path / "map.npy",
     tmp_path / "script.py"],
    capture_output=True, text=True, check=False, timeout=200,
    env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_NUM_CPU_DEVICES": "4"},
  )
  assert result.returncode == 0, result.stderr
  assert re.search(r"^\d+\.\d+ \(1, 16, 8\)$", result.stdout, re.M)
  wanted = model.predict(array).probability
  np.testing.assert_allclose(np.load(tmp_path / "map.npy"), wanted, atol=1e-4)

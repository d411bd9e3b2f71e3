"""Exported programs, run by their loaders in processes that know nothing of this package."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from lgag_jax import config as configs
from lgag_jax.config import RefineConfig
from lgag_jax.export import constant_folding, export, onnx_form
from lgag_jax.imagery import scaling
from lgag_jax.inference import exclusive_classes, refine
from lgag_jax.mapping import predict, window_scores
from lgag_jax.method import sol
from lgag_jax.options.export import Settings
from tests import conftest
from tests.commands import call
from tests.untrained import GSD, SIDE, make_workdir, pictures

RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
foreign = {name.split(".")[0] for name in sys.modules} & set(FOREIGN)
assert not foreign, foreign
"""
FOREIGN = {
  "load_stablehlo.py": ["flax", "lgag_jax", "tensorflow", "onnxruntime", "orbax"],
  "load_onnx.py": ["flax", "lgag_jax", "tensorflow", "jax", "onnx"],
}


def small(**fields):
  """The small config with an open gate, and fields by "group__name"."""
  config = conftest.small_config.__wrapped__(pathlib.Path("none"))
  config.localize.gate = 0.05
  for name, value in fields.items():
    group, field = name.split("__")
    config[group][field] = value
  return configs.from_mapping(config)


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
  return predict.make_ready(make_workdir(tmp_path_factory.mktemp("run"), small()))


@pytest.fixture(scope="module")
def exported(ready, tmp_path_factory):
  """What the command line writes."""
  folder = tmp_path_factory.mktemp("exported") / "all"
  result = call(
    "--mode=export", f"--workdir={ready.workdir}", f"--output={folder}",
    "--what=stablehlo,onnx,model", "--onnx_batch=3", "--bands=4,3,2",
    JAX_DISABLE_MOST_OPTIMIZATIONS="1",
  )
  assert result.returncode == 0, result.stderr
  assert sorted(path.name for path in folder.iterdir()) == [
    "facts.json", "load_onnx.py", "load_stablehlo.py", "model", "model_uint8.onnx",
    "model_uint8.stablehlo",
  ]
  return folder


def expected(ready, given):
  """Scores, probabilities and mask as prediction has them."""
  seen = window_scores.make_look(ready.network, ready.config, ready.mesh, export._view(ready))
  scores, probabilities = map(np.asarray, seen(ready.state, given))
  return scores, probabilities, exclusive_classes.drawn(scores, ready.thresholds)


def check(found, wanted, thresholds):
  scores, probabilities, mask = wanted
  assert scores.max() > 0.5 and scores.std() > 0.02  # There is something to compare.
  np.testing.assert_allclose(found["scores"], scores, atol=1e-4)
  np.testing.assert_allclose(found["probabilities"], probabilities, atol=1e-4)
  clear = (np.abs(scores - thresholds) > 1e-4).all(-1)
  np.testing.assert_array_equal(found["mask"][clear], mask[clear])
  assert found["mask"].dtype == np.uint8 and 0 < mask.mean() < 1


def test_loaders_give_the_same_elsewhere(ready, exported, tmp_path):
  given = pictures()
  np.save(tmp_path / "images.npy", given)
  programs = {
    loader: subprocess.Popen(
      [sys.executable, "-c", RUN.replace("FOREIGN", repr(foreign)), exported / loader,
       tmp_path / "images.npy", tmp_path / f"{loader}.npz"],
      cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, stderr=subprocess.PIPE,
    )
    for loader, foreign in FOREIGN.items()
  }
  wanted = expected(ready, given)
  for loader, program in programs.items():
    _, said = program.communicate(timeout=120)
    assert program.returncode == 0, said.decode()
    with np.load(tmp_path / f"{loader}.npz") as found:
      check(found, wanted, ready.thresholds)


def test_facts_tell_what_a_user_must_know(exported):
  facts = json.loads((exported / "facts.json").read_text())
  assert {k: facts[k] for k in ("side", "channels", "classes", "bands", "gsd", "value_range")} == {
    "side": SIDE, "channels": 3, "classes": ["landslide"], "bands": [4, 3, 2], "gsd": GSD,
    "value_range": [0, None],
  }
  assert facts["thresholds"] == [0.6] and facts["onnx_batch"] == 3
  program = jax.export.deserialize(bytearray((exported / "model_uint8.stablehlo").read_bytes()))
  assert program.platforms == ("cpu", "cuda", "tpu")
  assert not program.disabled_safety_checks


def test_loaders_refuse_what_the_program_is_not_for(exported, tmp_path):
  np.save(tmp_path / "images.npy", pictures()[:, :32])
  run = [sys.executable, exported / "load_onnx.py", tmp_path / "images.npy", tmp_path / "maps.npz"]
  said = subprocess.run(run, capture_output=True, text=True, check=False).stderr
  assert "images are uint8[4, 32, 64, 3], not uint8[B, *(64, 64, 3)]" in said


@pytest.mark.longest
@pytest.mark.parametrize("method", ["pixel_adaptive", "dense_crf"])
def test_loops_have_a_form_in_onnx(method):
  """What a converter finds hardest of our parts, each on its own; and the smallest of probabilities."""
  config, rng = RefineConfig(method=method, steps=2), np.random.default_rng(4)
  image, scores = rng.random((2, 96, 96, 3), np.float32), rng.random((2, 96, 96, 2), np.float32)
  # Of 24 x 24 cells the CRF sums two blocks.
  function = lambda x: (refine.refine(scores, x, config), sol.overlap(
    x.reshape(2, -1, 3)[:, :50], scores.reshape(2, -1, 2)[:, :50], block_rows=16, epsilon=1e-5),
    jax.nn.sigmoid(100 * x - 60) ** 0.25)
  program = onnx_form.convert(function, jax.ShapeDtypeStruct(image.shape, np.float32), tuple("abc"))
  session = onnxruntime.InferenceSession(program)
  for found, wanted in zip(session.run(None, {"images": image}), function(image), strict=True):
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_twelve_bits_in_sixteen(ready):
  config = dataclasses.replace(
    ready.config, data=dataclasses.replace(ready.config.data, max_value=4095.0)
  )
  assert export._image_types(config, Settings()) == ("uint16",)
  ready = dataclasses.replace(ready, config=config)
  program = jax.export.deserialize(bytearray(export.stablehlo(ready, "uint16")))
  assert program.in_avals[0].dtype == np.uint16
  pixels = np.uint16([0, 4095, 273])
  np.testing.assert_array_equal(
    jax.jit(lambda x: scaling.normalise(x, config.data))(pixels), scaling.normalise(pixels, config.data)
  )


def test_what_has_no_form_is_named_with_its_setting(ready, monkeypatch, tmp_path):
  config = small(model__precision="bfloat16")
  with pytest.raises(ValueError, match=r"config\.model\.precision='bfloat16' has no form"):
    export.onnx(dataclasses.replace(ready, config=config), "uint8")
  monkeypatch.setattr(onnx_form.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ValueError, match="pip install --no-deps jax2onnx"):
    export.export(ready.workdir, tmp_path / "x", Settings(what=("onnx",)))
  assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("field", "value"), [
  ("what", ("tflite",)), ("what", ()), ("image_types", ("int8",)), ("onnx_batch", 0), ("bands", (0,)),
])
def test_settings_are_checked(field, value):
  with pytest.raises(ValueError, match=f"--{field}="):
    Settings(**{field: value})


def test_what_does_not_depend_on_the_input_is_computed_once():
  table = jnp.arange(5.0)

  def function(x):
    weights = jax.jit(lambda t: jnp.cumsum(jnp.sin(t)) / jnp.linalg.norm(t))(table)
    last, all_ = jax.lax.scan(lambda sum, y: (sum + y, sum * y), 0.0, x, reverse=True)
    loop = jax.lax.fori_loop(0, 3, lambda i, y: y * i + last, x)
    return {"a": jax.nn.relu6(jax.jit(jnp.multiply)(x, weights)), "b": weights, "c": all_, "d": loop}

  x = jax.ShapeDtypeStruct((5,), np.float32)
  folded = constant_folding.folded(function, x)
  values = np.linspace(-1, 3, 5, dtype=np.float32)
  for found, wanted in zip(folded(values), jax.tree.leaves(function(values)), strict=True):
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
  names = [equation.primitive.name for equation in jax.make_jaxpr(folded)(x).eqns]
  assert not {"sin", "cumsum", "scan", "while", "sqrt"} & set(names)


def test_small_systems_are_solved(rng):
  a = rng.normal(size=(4, 3, 5, 9))
  matrix, right = a @ a.swapaxes(-1, -2) + 0.1 * np.eye(5), rng.normal(size=(4, 3, 5, 2))
  with jax.enable_x64(True):
    np.testing.assert_allclose(refine._solve(matrix, right), np.linalg.solve(matrix, right), rtol=1e-8)

"""Exported programs, run by their loaders in processes that do not import this package."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from lgag_jax import config as configs
from lgag_jax.config import RefineConfig
from lgag_jax.export import constant_folding, export, onnx_conversion
from lgag_jax.imagery import scaling
from lgag_jax.inference import exclusive_classes, refine
from lgag_jax.mapping import predict, window_scores
from lgag_jax.method import sol
from lgag_jax.options.export import Settings
from lgag_jax.runtime import files
from tests import conftest
from tests.commands import call
from tests.full_disk import fill_at
from tests.test_colour_evidence import evidence_of
from tests.untrained import GSD, SIDE, THRESHOLD, make_workdir, pictures

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
  """Returns the small config with an open gate and the given fields, named "group__field"."""
  config = conftest.make_small_config("none")
  config.localize.gate = 0.05
  for name, value in fields.items():
    group, field = name.split("__")
    config[group][field] = value
  return configs.from_mapping(config)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """Returns a network whose maps colours join, and for whose images they decide."""
  rng = np.random.default_rng(3)
  evidence = evidence_of(rng)
  evidence.log_ratio[:] *= 0.3  # The network's part shows, too.
  evidence.image_weights[:] = rng.normal(scale=0.2, size=evidence.image_weights.shape)
  evidence.image_weights[:, -1] = 1.0  # All images are open.
  return predict.load_model(make_workdir(tmp_path_factory.mktemp("run"), small(), evidence))


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
  """Returns the folder that the command line writes."""
  folder = tmp_path_factory.mktemp("exported") / "all"
  result = call(
    "--mode=export", f"--workdir={model.workdir}", f"--output={folder}",
    "--what=stablehlo,onnx,model", "--onnx_batch=3", "--bands=4,3,2",
    JAX_DISABLE_MOST_OPTIMIZATIONS="1",
  )
  assert result.returncode == 0, result.stderr
  assert sorted(path.name for path in folder.iterdir()) == [
    "facts.json", "load_onnx.py", "load_stablehlo.py", "model", "model_uint8.onnx",
    "model_uint8.stablehlo",
  ]
  return folder


def expected_outputs(model, images):
  """Returns scores, probabilities and mask as prediction computes them."""
  compute_scores = window_scores.make_window_scores(
    model.network, model.config, model.mesh, export.training_windows(model)
  )
  scores, probabilities = map(np.asarray, compute_scores(model.state, images))
  scores = scores * (probabilities > model.gate)[:, None, None]
  return scores, probabilities, exclusive_classes.drawn(scores, model.thresholds)


def test_windows_of_one_model_are_compiled_once_however_often_it_maps(model):
  plan = export.training_windows(model)
  make = lambda: window_scores.make_window_scores(model.network, model.config, model.mesh, plan)
  assert make() is make()


def check(outputs, expected, thresholds):
  scores, probabilities, mask = expected
  assert scores.std() > 0.02  # Constant scores would prove nothing.
  # A cell whose colours lie on the edge of two bins may fall into either, and is blurred.
  near = np.abs(outputs["scores"] - scores) < 1e-4
  assert near.mean() > 0.95
  np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=1e-3)
  clear = (near & (np.abs(scores - thresholds) > 1e-4)).all(-1)
  np.testing.assert_array_equal(outputs["mask"][clear], mask[clear])
  assert outputs["mask"].dtype == np.uint8 and 0 < mask.mean() < 1


def test_loaders_compute_what_prediction_does(model, exported, tmp_path):
  images = pictures()
  np.save(tmp_path / "images.npy", images)
  programs = {
    loader: subprocess.Popen(
      [sys.executable, "-c", RUN.replace("FOREIGN", repr(foreign)), exported / loader,
       tmp_path / "images.npy", tmp_path / f"{loader}.npz"],
      cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, stderr=subprocess.PIPE,
    )
    for loader, foreign in FOREIGN.items()
  }
  expected = expected_outputs(model, images)
  for loader, program in programs.items():
    _, errors = program.communicate(timeout=120)
    assert program.returncode == 0, errors.decode()
    with np.load(tmp_path / f"{loader}.npz") as outputs:
      check(outputs, expected, model.thresholds)


def test_the_onnx_program_holds_no_empty_constant(exported):
  """OpenVINO refuses one, though ONNX Runtime does not."""
  constants = onnx.load(exported / "model_uint8.onnx").graph.initializer
  assert constants and all(0 not in constant.dims for constant in constants)


def test_facts_hold_what_a_user_must_know(exported):
  facts = json.loads((exported / "facts.json").read_text())
  assert {k: facts[k] for k in ("side", "channels", "classes", "bands", "gsd", "value_range")} == {
    "side": SIDE, "channels": 3, "classes": ["landslide"], "bands": [4, 3, 2], "gsd": GSD,
    "value_range": [0, None],
  }
  assert facts["thresholds"] == [THRESHOLD] and facts["onnx_batch"] == 3
  program = jax.export.deserialize(bytearray((exported / "model_uint8.stablehlo").read_bytes()))
  assert program.platforms == ("cpu", "cuda", "tpu")
  assert not program.disabled_safety_checks


def test_loaders_refuse_images_of_another_shape(exported, tmp_path):
  np.save(tmp_path / "images.npy", pictures()[:, :32])
  run = [sys.executable, exported / "load_onnx.py", tmp_path / "images.npy", tmp_path / "maps.npz"]
  errors = subprocess.run(run, capture_output=True, text=True, check=False).stderr
  assert "images are uint8[4, 32, 64, 3], not uint8[B, *(64, 64, 3)]" in errors


@pytest.mark.longest
def test_loops_convert_to_onnx(rng):
  """Converts what is hardest for a converter, and a sigmoid near zero."""
  image = rng.random((2, 96, 96, 3), np.float32)
  scores = jnp.asarray(rng.random((2, 96, 96, 2), np.float32))
  function = lambda x: (refine.refine(scores, x, RefineConfig()), sol.overlap(
    x.reshape(2, -1, 3)[:, :50], scores.reshape(2, -1, 2)[:, :50], block_rows=16, epsilon=1e-5),
    jax.nn.sigmoid(100 * x - 60) ** 0.25)
  inputs = jax.ShapeDtypeStruct(image.shape, np.float32)
  program = onnx_conversion.convert(function, inputs, tuple("abc"))
  runtime = onnxruntime.InferenceSession(program)
  outputs = zip(runtime.run(None, {"images": image}), function(jnp.asarray(image)), strict=True)
  for output, expected in outputs:
    np.testing.assert_allclose(output, expected, atol=2e-5)


def test_images_of_twelve_bits_in_sixteen(model):
  config = dataclasses.replace(
    model.config, data=dataclasses.replace(model.config.data, max_value=4095.0)
  )
  assert export.image_types(config, Settings()) == ("uint16",)
  model = dataclasses.replace(model, config=config)
  program = jax.export.deserialize(bytearray(export.stablehlo_program(model, "uint16")))
  assert program.in_avals[0].dtype == np.uint16
  pixels = np.uint16([0, 4095, 273])
  np.testing.assert_array_equal(
    jax.jit(lambda x: scaling.normalise(x, config.data))(pixels), scaling.normalise(pixels, config.data)
  )


def fail_to_convert(*_):
  raise ValueError("unknown operation")


def test_unsupported_settings_are_named(model, monkeypatch, tmp_path):
  config = small(model__precision="bfloat16")
  with pytest.raises(ValueError, match=r"does not support config\.model\.precision='bfloat16'"):
    export.onnx_program(dataclasses.replace(model, config=config), "uint8")
  with monkeypatch.context() as patch:
    patch.setattr(onnx_conversion, "convert", fail_to_convert)
    with pytest.raises(ValueError, match=r"unknown operation.*localize\.scales=.*refine\.method="):
      export.onnx_program(model, "uint8")
  monkeypatch.setattr(onnx_conversion.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ValueError, match="pip install --no-deps jax2onnx"):
    export.export(model.workdir, tmp_path / "x", Settings(what=("onnx",)))
  assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("field", "value"), [
  ("what", ("tflite",)), ("what", ()), ("image_types", ("int8",)), ("onnx_batch", 0), ("bands", (0,)),
])
def test_settings_are_checked(field, value):
  with pytest.raises(ValueError, match=f"--{field}="):
    Settings(**{field: value})


def test_constants_are_computed_once():
  table = jnp.arange(5.0)

  def function(x):
    weights = jax.jit(lambda t: jnp.cumsum(jnp.sin(t)) / jnp.linalg.norm(t))(table)
    last, all_ = jax.lax.scan(lambda sum, y: (sum + y, sum * y), 0.0, x, reverse=True)
    loop = jax.lax.fori_loop(0, 3, lambda i, y: y * i + last, x)
    return {"a": jax.nn.relu6(jax.jit(jnp.multiply)(x, weights)), "b": weights, "c": all_, "d": loop}

  x = jax.ShapeDtypeStruct((5,), np.float32)
  folded = constant_folding.fold_constants(function, x)
  values = np.linspace(-1, 3, 5, dtype=np.float32)
  for result, expected in zip(folded(values), jax.tree.leaves(function(values)), strict=True):
    np.testing.assert_allclose(result, expected, rtol=1e-6)
  names = [equation.primitive.name for equation in jax.make_jaxpr(folded)(x).eqns]
  assert not {"sin", "cumsum", "scan", "while", "sqrt"} & set(names)


def test_small_systems_are_solved(rng):
  a = rng.normal(size=(4, 3, 5, 9))
  matrix, right = a @ a.swapaxes(-1, -2) + 0.1 * np.eye(5), rng.normal(size=(4, 3, 5, 2))
  with jax.enable_x64(True):
    solved = refine._solve(jnp.asarray(matrix), jnp.asarray(right))
    np.testing.assert_allclose(solved, np.linalg.solve(matrix, right), rtol=1e-8)


@pytest.mark.parametrize(("place", "name", "call"), [
  (pathlib.Path, "write_bytes", 1), (pathlib.Path, "write_bytes", 2), (shutil, "copyfile", 1),
  (files, "write_json", 1), (files, "write_json", 2), (files, "write_text", 2), (os, "fsync", 2),
  (pathlib.Path, "rename", 1), (pathlib.Path, "rename", 4),
])
def test_a_full_disk_leaves_no_export(model, tmp_path, monkeypatch, place, name, call):
  monkeypatch.setattr(export.predict, "load_model", lambda _: model)
  monkeypatch.setattr(export, "stablehlo_program", lambda *_: b"program")  # Takes long.
  write = lambda: export.export(
    model.workdir, tmp_path / "out", Settings(what=("model", "stablehlo"))
  )
  with monkeypatch.context() as patch:
    fill_at(patch, place, name, call)
    with pytest.raises(OSError, match=r"No space left on device, nothing was written.*out'"):
      write()
  assert list(tmp_path.iterdir()) == []
  write()
  assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
    "facts.json", "load_stablehlo.py", "model", "model_uint8.stablehlo",
  ]

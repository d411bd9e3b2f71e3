"""Devices that are asked for and missing are named, with those that exist, in one line."""

import os
import subprocess
import sys

import pytest

from tests.test_command_line import ROOT

LOAD_TWICE = """
import lgag_jax
for _ in range(2):
  try:
    lgag_jax.load("none")
  except ValueError as error:
    print(error)
"""


def run(platform, *arguments):
  return subprocess.run(
    [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120,
    env={**os.environ, "JAX_PLATFORMS": platform, "TF_CPP_MIN_LOG_LEVEL": "3"},
  )


@pytest.mark.parametrize(("platform", "mode"), [
  ("cuda", "predict"), ("nonsense", "eval"),
  pytest.param("tpu", "report", marks=pytest.mark.longest),
  pytest.param("cuda,nonsense", "train", marks=pytest.mark.longest),
])
def test_a_missing_device_is_one_line_that_names_the_variable(tmp_path, platform, mode):
  arguments = {
    "predict": ["--input=README.md", "--output=maps"], "train": ["--config=configs/image_folder.py"]
  }
  result = run(
    platform, "-m", "lgag_jax.main", f"--mode={mode}", f"--workdir={tmp_path}",
    *arguments.get(mode, []),
  )
  assert result.returncode == 1 and "Traceback" not in result.stderr
  (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error")]
  assert f"JAX_PLATFORMS={platform}: " in line and "Available: cpu. Unset" in line


def test_the_interface_of_python_never_takes_another_device(tmp_path):
  result = run("cuda", "-c", LOAD_TWICE)
  first, second = result.stdout.splitlines()
  assert first == second and "JAX_PLATFORMS=cuda" in first and "Available: cpu." in first


def test_tiling_needs_no_device(tmp_path):
  result = run(
    "nonsense", "-m", "lgag_jax.main", "--mode=tile", "--input=none.tif", "--labels=none.gpkg",
    f"--output={tmp_path}/tiles",
  )
  assert "--input=none.tif: no such file" in result.stderr and "JAX_PLATFORMS" not in result.stderr

"""Settings of all tests, made before JAX starts: four devices, little optimisation."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 4)
# Compiling takes longer than running here. Tests of compiled memory turn this off again.
jax.config.update("jax_disable_most_optimizations", True)


def pytest_addoption(parser):
  parser.addoption("--slow", action="store_true", help="Run the tests marked slow, too.")


def pytest_configure(config):
  config.addinivalue_line("markers", "slow: takes long, runs with --slow only.")


def pytest_collection_modifyitems(config, items):
  if not config.getoption("--slow"):
    for item in items:
      if "slow" in item.keywords:
        item.add_marker(pytest.mark.skip(reason="slow: add --slow"))


@pytest.fixture(params=[0, 1, 2])
def rng(request):
  """Random numbers; a test that takes them runs on three seeds."""
  return np.random.default_rng(request.param)

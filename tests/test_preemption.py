"""SIGTERM stops a run between two batches and leaves no incomplete cache."""

import os
import shutil
import signal

import pytest

from lgag_jax import config as configs
from lgag_jax.evaluation import evaluate
from lgag_jax.inputs import pipeline, sources, trunk_outputs
from lgag_jax.runtime import preemption, sharding
from lgag_jax.training import fill_trunk_outputs, restore
from tests import conftest


@pytest.fixture(scope="module")
def config(image_folder):
  return configs.from_mapping(conftest.make_small_config(image_folder))


@pytest.fixture(scope="module")
def network_and_state(config):
  """Returns a mesh, the network and its initial state."""
  mesh = sharding.make_mesh()
  network, _, state = restore.start(config, mesh, 1)
  return mesh, network, state


def test_sigterm_while_the_cache_fills_removes_it(config, network_and_state, tmp_path):
  mesh, network, state = network_and_state
  source = sources.open_source(config.data, "train")
  open_split = lambda: fill_trunk_outputs.open_split(source, network, state, config, mesh, tmp_path)
  with preemption.watch():
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(preemption.Stopped, match="run the same command to resume"):
      open_split()
  assert not list((tmp_path / "features").glob("*/"))
  split = open_split()
  assert isinstance(split.train_read, trunk_outputs.FeatureCache)
  with preemption.watch():
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(preemption.Stopped, match="to resume"):
      evaluate.epoch_metrics(network, state, split, config, mesh)
  shutil.rmtree(tmp_path)


def test_an_unreadable_image_removes_the_cache(
  config, network_and_state, tmp_path, monkeypatch
):
  mesh, network, state = network_and_state
  source = sources.open_source(config.data, "train")
  monkeypatch.setattr(pipeline.Reader, "__call__", lambda *_: 1 / 0)
  with pytest.raises(Exception, match="division by zero"):
    fill_trunk_outputs.open_split(source, network, state, config, mesh, tmp_path)
  assert not list((tmp_path / "features").glob("*/"))


def test_the_previous_handler_is_restored():
  old = signal.signal(signal.SIGTERM, signal.SIG_IGN)
  try:
    with preemption.watch():
      assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN
      preemption.check()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
  finally:
    signal.signal(signal.SIGTERM, old)

"""Scenes from the command line: two processes write the map that one does."""

import socket

import numpy as np
import pytest
import rasterio

from lgag_jax import config as configs
from lgag_jax.inference import localize
from lgag_jax.runtime import files, sharding
from lgag_jax.settings.maps import RULES
from lgag_jax.training import restore
from lgag_jax.training.checkpoints import Checkpoints
from tests import commands
from tests.conftest import SIDE, make_small_config

pytestmark = pytest.mark.slow


@pytest.fixture
def workdir(image_folder, tmp_path):
  """Returns a workdir with random weights, and thresholds that some pixels reach."""
  draft = make_small_config(image_folder)
  draft.localize.gate = 0.0
  config = configs.from_mapping(draft)
  workdir = tmp_path / "run"
  _, _, state = restore.start(config, sharding.make_mesh(), 1)
  checkpoints = Checkpoints(workdir, keep=1, writes=True)
  checkpoints.save(state, {})
  checkpoints.close()
  files.write_json(workdir / "config.json", configs.config_dict(config).to_dict())
  rules = {rule: [0.5] for rule in RULES}
  files.write_json(
    workdir / "thresholds.json", {"step": 0, "maps": dict.fromkeys(localize.map_names(config), rules)}
  )
  return workdir


def prediction(workdir, scene, output, *flags):
  """Returns the arguments and variables of a prediction on two devices."""
  arguments = [
    "--mode=predict", f"--workdir={workdir}", f"--input={scene}", f"--output={output}",
    "--probability=float32", *flags,
  ]
  return arguments, {"JAX_NUM_CPU_DEVICES": "2", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


@pytest.mark.longest
def test_two_processes_draw_the_map_of_one(workdir, tmp_path):
  scene, shape = tmp_path / "scene.tif", (int(3.3 * SIDE), int(1.5 * SIDE))
  rng = np.random.default_rng(1)
  with rasterio.open(
    scene, "w", driver="GTiff", height=shape[0], width=shape[1], count=3, dtype="uint8",
    crs="EPSG:32633", transform=rasterio.Affine(2.0, 0.3, 5e5, 0.1, -2.0, 5.2e6),
  ) as raster:
    raster.write(rng.integers(0, 255, (3, *shape), np.uint8))
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    address = f"--coordinator=localhost:{probe.getsockname()[1]}"
  one = prediction(workdir, scene, tmp_path / "one")
  two = [
    prediction(workdir, scene, tmp_path / "two", address, "--processes=2", f"--process={i}")
    for i in range(2)
  ]
  done = commands.run([one, *two])
  assert [process.returncode for process in done] == [0, 0, 0], done
  assert ["1 image mapped" in process.stdout for process in done] == [True, True, False]
  for name in ("mask", "probability"):
    maps = []
    for run in ("one", "two"):
      with rasterio.open(tmp_path / run / name / "scene_tif.tif") as raster:
        maps.append(raster.read())
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-6)
  assert (maps[0] > 0).mean() > 0
  assert (tmp_path / "two/polygons/scene_tif.gpkg").exists()
  assert not (tmp_path / "two/.unfinished").exists()

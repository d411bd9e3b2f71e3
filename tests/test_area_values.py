# ruff: noqa: F401, F811
"""--mode=map says if an area has no data, or values that fill little of their type's range."""

import types

import numpy as np
import pytest

from lgag_jax import config as configs
from lgag_jax.blocks import area_job, network
from lgag_jax.blocks.block_arrays import BlockPixels
from lgag_jax.blocks.plan import Block, BlockSize, block_grid
from lgag_jax.options.area import Area, Engine, Imagery
from tests import area_data
from tests.test_area_blocks import stub

SIZE = BlockSize(96, 64, 4)


@pytest.mark.parametrize(("nodata", "is_empty"), [(120, True), (7, False)])
def test_an_area_without_data_is_warned_of(tmp_path, stub, caplog, nodata, is_empty):
  area_data.write_cog(tmp_path / "a.tif", np.full((60, 60, 3), 120, np.uint8), nodata=nodata)
  source, area = str(tmp_path / "a.tif"), Area(block_size=128)
  result = area_job.map_area(stub["workdir"], source, tmp_path / "out", Imagery(), area, Engine())
  assert not result.failed and bool(stub["asked"]) != is_empty
  assert ("No block has data, so the map is empty" in caplog.text) == is_empty


@pytest.mark.parametrize(("dtype", "largest", "max_value", "is_dark"), [
  (np.uint16, 4080, 0.0, True), (np.uint16, 4080, 4095.0, False), (np.uint16, 60000, 0.0, False),
  (np.uint8, 1, 0.0, True), (np.float32, 1.0, 0.0, False),
])
def test_dark_values_are_warned_of_once(monkeypatch, caplog, dtype, largest, max_value, is_dark):
  def run(jobs, *_):
    for job in jobs:
      with job.open() as source:
        job.add_values(source.pixels.values, source.pixels.valid)
      job.on_finish(job)

  monkeypatch.setattr(network.window_pipeline, "run", run)
  config = configs.Config(data=configs.DataConfig(max_value=max_value))
  loaded = types.SimpleNamespace(
    network=None, state=None, config=config, mesh=None, thresholds=[0.5], gate=0.0)
  maps = network.BlockNetwork(loaded, None, SIZE, "uint8")
  block = Block(32645, 0, 0)
  values = np.full((SIZE.length, SIZE.length, 3), largest, dtype)
  pixels = BlockPixels(block_grid(block, 10.0, SIZE, halo=True), values, values[..., 0] > 0, None)
  for _ in range(2):
    maps.map_pixels(block.name, pixels)
  assert caplog.text.count("so the network sees it almost black") == is_dark
  assert (f"Block {block.name}: its values reach {largest:g}" in caplog.text) == is_dark

# ruff: noqa: F401, F811
"""A full disk at any moment: one line, earlier results stay, and with room the run completes."""

import os
import pathlib
import shutil
import subprocess
import types

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from benchmarks import output_reliability as outputs
from lgag_jax import config as configs
from lgag_jax.inference.localize import Maps, main_map_name
from lgag_jax.inputs.sources import open_source
from lgag_jax.runtime import files
from lgag_jax.tiling import output as tiling_output
from lgag_jax.tiling import tile
from lgag_jax.training import pseudo_masks
from tests import commands
from tests.conftest import make_small_config
from tests.full_disk import fill_at
from tests.test_killed_outputs import check_records, folder, kept, run, whole
from tests.test_output_folder import content
from tests.test_tile import options, write_labels, write_scene

MEBIBYTES = 64
SHARES = (0.0, 0.2, 0.7, 1.2)  # Of the bytes of the output that are free.


@pytest.mark.parametrize(("place", "name", "call"), [
  (pathlib.Path, "write_bytes", 1), (pathlib.Path, "write_bytes", 9),
  (tiling_output, "write_manifest", 1), (tiling_output, "_write_layer", 1), (pathlib.Path, "rename", 1),
])
def test_a_full_disk_leaves_no_tiles(tmp_path, monkeypatch, place, name, call):
  write_scene(tmp_path / "scene.tif")
  settings = options(tmp_path, labels=str(write_labels(tmp_path, "polygons")))
  before = content(tmp_path)
  with monkeypatch.context() as patch:
    fill_at(patch, place, name, call)
    with pytest.raises(OSError, match=r"No space left on device, nothing was written.*tiles'"):
      tile.cut(settings)
  assert content(tmp_path) == before and not (tmp_path / "tiles").exists()
  rows, _ = tile.cut(settings)
  written = content(tmp_path / "tiles")
  assert set(written) >= {row.image for row in rows if row.image} | {"manifest.csv", "tiles.gpkg"}
  assert outputs.leftovers(tmp_path) == []


@pytest.fixture
def first_stage(tmp_path, monkeypatch):
  """Returns a function that writes pseudo-masks of given scores; only the network is not real."""
  for kind in ("landslide", "non-landslide"):
    (tmp_path / "data" / kind).mkdir(parents=True)
    for i in range(3):
      Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp_path / "data" / kind / f"{i}.png")
  config = configs.from_mapping(make_small_config(tmp_path / "data"))
  count = len(open_source(config.data, "train").ids)
  batch = {
    "index": np.arange(count), "weight": np.ones(count), "label": np.ones((count, 1), np.float32),
  }
  state = types.SimpleNamespace(step=1)
  monkeypatch.setattr(pseudo_masks.restore, "restore", lambda *_: (config, None, state))
  monkeypatch.setattr(pseudo_masks.thresholds_file, "with_evidence", lambda *_: None)
  monkeypatch.setattr(pseudo_masks, "inputs_of", lambda *_: {})
  split = types.SimpleNamespace(eval_batches=lambda _: (one for one in [batch]))
  monkeypatch.setattr(pseudo_masks.fill_trunk_outputs, "open_split", lambda *_: split)

  def write(threshold):
    scores = jnp.broadcast_to(jnp.linspace(0.0, 1.0, 64).reshape(8, 8, 1), (count, 8, 8, 1))
    name = main_map_name(config)
    maps = Maps(
      probabilities=jnp.ones((count, 1)), scores={name: scores}, seeds=jnp.zeros((count, 1, 1), int)
    )
    monkeypatch.setattr(pseudo_masks, "make_localize", lambda *_: lambda *_: maps)
    monkeypatch.setattr(
      pseudo_masks.thresholds_file, "load_thresholds", lambda *_, **__: {name: [threshold]}
    )
    return pseudo_masks.write(tmp_path / "run")

  return write


@pytest.mark.parametrize(("place", "name", "call"), [
  (Image.Image, "save", 1), (Image.Image, "save", 4), (os, "fsync", 3), (files, "write_json", 1),
  (files, "write_json", 2),
])
def test_a_full_disk_leaves_the_earlier_pseudo_masks(
  first_stage, tmp_path, monkeypatch, place, name, call
):
  before = content(first_stage(0.3))
  with monkeypatch.context() as patch:
    fill_at(patch, place, name, call)
    with pytest.raises(OSError, match="No space left on device"):
      first_stage(0.7)
  assert content(tmp_path / "run" / "pseudo") == before and outputs.leftovers(tmp_path) == []
  after = content(first_stage(0.7))
  assert all(after[name] != data for name, data in before.items()) and after.keys() == before.keys()
  assert outputs.leftovers(tmp_path) == []


@pytest.fixture
def disk(tmp_path):
  """A small disk of its own."""
  place = tmp_path / "disk"
  place.mkdir()
  command = ["mount", "-t", "tmpfs", "-o", f"size={MEBIBYTES}m", "tmpfs", place]
  try:
    mounted = subprocess.run(command, capture_output=True, text=True)
  except FileNotFoundError:
    pytest.skip("mount is not installed")
  if mounted.returncode:
    pytest.skip(f"a tmpfs cannot be mounted: {mounted.stderr}")
  yield place
  subprocess.run(["umount", place], check=True)


@pytest.mark.longest
def test_every_mode_survives_a_small_disk(folder, whole, disk):
  mode, found, first, _ = whole
  size = sum(path.stat().st_size for path in (first / mode.output).rglob("*") if path.is_file())
  size = size or sum(map(len, found[0].values()))
  setting, full = int(mode.replaces), 0
  for share in SHARES:
    root = disk / "run"
    shutil.copytree(first, root)
    arguments = outputs.arguments(mode, folder, root, setting)
    output, before = root / mode.output, kept(root, root / mode.output)
    with (disk / "filler").open("wb") as file:
      os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - int(share * size) - 4096)
    (result,) = commands.run([(arguments, {})])
    (disk / "filler").unlink()
    assert outputs.is_sound(mode, output, found) and kept(root, output) == before
    check_records(output, found)
    if result.returncode:
      full += 1
      *_, last = result.stderr.splitlines()
      assert result.returncode == 1 and "Traceback" not in result.stderr
      assert last.startswith("Error: ") and "No space left on device" in last
      result = run(mode, folder, root, setting)
    assert result.returncode == 0, result.stderr
    assert outputs.contents(output) == found[-1] and kept(root, output) == before
    assert outputs.leftovers(root) == []
    shutil.rmtree(root)
  assert full >= 2

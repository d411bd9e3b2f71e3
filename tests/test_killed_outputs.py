"""Outputs of modes that are killed at random moments: nothing half is there, nothing good is lost."""

import contextlib
import json
import pathlib
import shutil
import time

import numpy as np
import pytest
import rasterio

from benchmarks import output_reliability as outputs
from benchmarks import small
from lgag_jax import config as configs
from lgag_jax.inputs.sources import open_source
from lgag_jax.training import examples_record
from tests import commands
from tests.conftest import make_small_config
from tests.test_scene import NORTH_UP
from tests.untrained import make_workdir

KILLS = 20
MODES = {mode.name: mode for mode in outputs.MODES}


def write_scene(path, images):
  rows = [np.concatenate(list(images[i : i + 4]), axis=1) for i in range(0, 16, 4)]
  pixels = np.moveaxis(np.concatenate(rows), -1, 0)
  with rasterio.open(
    path, "w", driver="GTiff", height=256, width=256, count=len(pixels), dtype="uint8",
    crs="EPSG:32644", transform=NORTH_UP,
  ) as raster:
    raster.write(pixels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A workdir without training, the data set it names, and two scenes with labels of one."""
  folder = tmp_path_factory.mktemp("inputs")
  config = make_small_config(small.write_folder(folder / "data", 24))
  config.localize.gate = 0.0
  config = configs.from_mapping(config)
  make_workdir(folder / "work", config)
  sources = {split: open_source(config.data, split) for split in ("train", "validation")}
  examples_record.write(sources, folder / "work", config)
  images, masks = small.images(16)
  write_scene(folder / "scene.tif", images)
  write_scene(folder / "other.tif", images[::-1])
  write_scene(folder / "labels.tif", masks[..., None] // 255)
  (folder / "labels.tif").rename(folder / "labels.tiff")  # No scene of predict's pattern.
  return folder


def run(mode, folder, root, setting, timeout=300.0):
  arguments = outputs.arguments(mode, folder, root, setting)
  (result,) = commands.run([(arguments, {})], timeout=timeout)
  return result


def kept(root, output):
  """Returns the bytes of what a mode must not touch: the rest of a workdir, and a user's notes."""
  own = (output, root / "work" / "features", *map(pathlib.Path, outputs.leftovers(root)))
  rest = [path for path in root.rglob("*") if not any(path.is_relative_to(place) for place in own)]
  return {
    path: path.read_bytes() for path in (*rest, output / "notes.txt")
    if path.is_file() and path.name != "lock"
  }


@pytest.fixture(scope="module", params=MODES)
def whole(request, folder, tmp_path_factory):
  """A mode, its contents with A and with B, the root of A, and the seconds that a run takes."""
  mode, found = MODES[request.param], []
  make_root = lambda name: outputs.new_root(mode, folder, tmp_path_factory.mktemp(mode.name) / name)
  first, seconds = make_root("A"), 0.0
  roots = [first, make_root("B")] if mode.replaces else [first]
  run(mode, folder, make_root("compiling"), 0)
  for setting, root in enumerate(roots):
    began = time.monotonic()
    result = run(mode, folder, root, setting)
    assert result.returncode == 0, result.stderr
    seconds = time.monotonic() - began
    found.append(outputs.contents(root / mode.output))
  assert found[0] and all(found[-1].values()) and (len(found) == 1 or found[0] != found[1])
  if mode.replaces:
    (first / mode.output / "notes.txt").write_text("precious")
  else:
    shutil.rmtree(first / mode.output)
  return mode, found, first, seconds


def check_records(output, found):
  """Checks that what is recorded as whole has the files of one setting only."""
  for path in output.glob("scenes/*.json"):
    record = json.loads(path.read_text())
    if record["key"]:
      now = outputs.contents(output)
      names = [name for name in record["files"] if name in now]
      assert any(all(now[name] == one[name] for name in names) for one in found)
  for page in output.glob("report.html"):
    assert page.read_text().rstrip().endswith("</html>")
  with contextlib.suppress(FileNotFoundError):
    index = json.loads((output / "index.json").read_text())
    masks = outputs.contents(output)
    assert "unfinished" in index or masks in found


@pytest.mark.longest
def test_kills_lose_nothing_and_the_next_run_completes(folder, whole, tmp_path):
  mode, found, first, seconds = whole
  random, killed, unfinished = np.random.default_rng(20), 0, 0
  for number in range(3 * KILLS):
    root = tmp_path / str(number)
    shutil.copytree(first, root)
    arguments = outputs.arguments(mode, folder, root, int(mode.replaces))  # Changes the config.
    before = kept(root, root / mode.output)
    late = number % 4  # Three of four kills come when the run is writing.
    (result,) = commands.run(
      [(arguments, {})], timeout=random.uniform(0.0, seconds / (4 if late else 1)),
      since=root if late else None,
    )
    killed += result.returncode == -9
    unfinished += bool(outputs.leftovers(root))
    assert result.returncode in (0, -9), result.stderr
    assert outputs.is_sound(mode, root / mode.output, found)
    check_records(root / mode.output, found)
    assert kept(root, root / mode.output) == before
    done = not mode.replaces and (root / mode.output).exists()  # Whole, as checked above.
    if not done:
      began = time.monotonic()
      result = run(mode, folder, root, int(mode.replaces))
      seconds = time.monotonic() - began  # It changes with the load of the machine.
      assert result.returncode == 0, result.stderr
    assert outputs.contents(root / mode.output) == found[-1]
    assert outputs.leftovers(root) == [] and kept(root, root / mode.output) == before
    shutil.rmtree(root)
    print(f"{mode.name}: {number + 1} runs, {killed} kills, {unfinished} with unfinished files")
    if killed == KILLS:
      break
  assert killed == KILLS and unfinished >= KILLS // 4

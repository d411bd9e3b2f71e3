"""Ray maps an area as one process does, whatever fails on the way."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pyarrow.parquet
import pytest
import rasterio

from lgag_jax import config as configs
from lgag_jax.blocks import area_job, local_engine, map_block, plan
from lgag_jax.blocks.plan import BlockSize
from lgag_jax.catalogues import search
from lgag_jax.options.area import Engine, Imagery
from lgag_jax.runtime import packaged, python_command
from tests import area_data, commands, faulty_server, untrained
from tests.conftest import make_small_config
from tests.stub_network import Stub

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install .[ray]")
ray_engine = pytest.importorskip("lgag_jax.blocks.ray_engine")
ray_mappers = pytest.importorskip("lgag_jax.blocks.ray_mappers")

SIZE = BlockSize(96, 64, 1)
RGB = Imagery(assets=area_data.NAMES)


@pytest.fixture(scope="module")
def cluster():
  ray.init(
    num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20
  )
  yield
  ray.shutdown()


def area(folder, source, imagery=RGB):
  """Returns the job and the blocks of a catalogue's images."""
  images = search.find_images(str(source), None, 3, imagery)
  blocks = plan.plan_blocks(None, untrained.GSD, SIZE, [image.footprint for image in images])
  job = map_block.AreaJob(
    folder, tuple(images), imagery, untrained.GSD, SIZE, 3, ("landslide",), "uint8", "stub"
  )
  return job, blocks


def with_ray(stub, engine):
  return lambda job, blocks, done: ray_engine.run(job, blocks, stub, engine, done)


def in_process(stub):
  return lambda job, blocks, done: local_engine.run(job, blocks, stub, 1, done)


def arrays(folder, without=()):
  """Returns all rasters of an output by name."""
  found = {}
  for path in sorted(folder.glob("*/*.tif")):
    if path.stem not in without:
      with rasterio.open(path) as raster:
        found[str(path.relative_to(folder))] = raster.read()
  return found


def assert_same(folder, other, without=()):
  first, second = arrays(folder, without), arrays(other, without)
  assert first and first.keys() == second.keys()
  for name, values in first.items():
    np.testing.assert_array_equal(values, second[name], err_msg=name)


@pytest.mark.longest
def test_failures_cost_themselves_alone_and_the_rest_is_the_same(cluster, tmp_path):
  source = area_data.tiles(tmp_path / "stac")
  job, blocks = area(tmp_path / "one", source)
  assert not area_job.map_missing(job, blocks, in_process(Stub(SIZE)))
  names = sorted(p.stem for p in (tmp_path / "one" / "mask").glob("*.tif"))
  bad, deadly = names[3], names[7]
  job, blocks = area(tmp_path / "many", source)
  stub = Stub(SIZE, bad=(bad,), deadly=(deadly,))
  engine = Engine(engine="ray", mappers=1, attempts=2)
  failed = area_job.map_missing(job, blocks, with_ray(stub, engine))
  assert failed.keys() == {bad, deadly}
  assert failed[bad] == f"{bad} cannot be mapped" and "worker died" in failed[deadly]
  assert_same(tmp_path / "one", tmp_path / "many", without=(bad, deadly))
  assert len(arrays(tmp_path / "many")) == 2 * (len(names) - 2)
  assert not area_job.map_missing(job, blocks, with_ray(Stub(SIZE), engine))
  assert_same(tmp_path / "one", tmp_path / "many")


def own_workers():
  """Returns the process ids of the workers of this process's cluster; a node ends with its agents."""
  parents, names = {}, {}
  for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
      parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
      names[int(folder.name)] = (folder / "cmdline").read_bytes()
    except (OSError, ValueError):
      continue
  def is_own(pid):
    while pid in parents:
      if pid == os.getpid():
        return True
      pid = parents[pid]
    return False
  workers = [pid for pid, name in names.items()
             if name.startswith(b"ray::") and b"Agent" not in name]
  return [pid for pid in workers if is_own(pid)]


@pytest.mark.longest
@pytest.mark.parametrize("mappers", [1, 3])
def test_twenty_killed_workers_lose_nothing(cluster, tmp_path, monkeypatch, mappers):
  # On a busy machine, five may be killed in a row before they have loaded the network.
  monkeypatch.setattr(ray_mappers, "_MOST_FAILED_STARTS", 21)
  source = area_data.tiles(tmp_path / "stac", 3, 3)
  job, blocks = area(tmp_path / "one", source)
  area_job.map_missing(job, blocks, in_process(Stub(SIZE)))
  job, blocks = area(tmp_path / "many", source)
  killed, ended, chance = [], threading.Event(), random.Random(mappers)

  def kill():
    while len(killed) < 20 and not ended.wait(chance.uniform(0.1, 1.5)):
      busy = [pid for pid in own_workers() if pid not in killed]
      if busy:
        killed.append(chance.choice(busy))
        os.kill(killed[-1], signal.SIGKILL)

  thread = threading.Thread(target=kill)
  thread.start()
  try:
    engine = Engine(engine="ray", mappers=mappers, attempts=50)
    while thread.is_alive():  # Again until all have been killed.
      assert not area_job.map_missing(job, blocks, with_ray(Stub(SIZE, seconds=0.3), engine))
      if thread.is_alive():
        for path in list((job.output / "items").glob("*.json"))[::2]:
          path.unlink()
    assert not area_job.map_missing(job, blocks, with_ray(Stub(SIZE), engine))
  finally:
    ended.set()
    thread.join()
  assert len(killed) == 20
  assert_same(tmp_path / "one", tmp_path / "many")
  listed = lambda folder: sorted(p.name for p in folder.glob("items/*"))
  assert listed(tmp_path / "one") == listed(tmp_path / "many")
  assert not list((tmp_path / "many").glob("[!.]*/.*"))  # No partial file.


@pytest.mark.longest
def test_the_command_maps_over_a_faulty_server_as_one_process_does(image_folder, tmp_path):
  draft = make_small_config(image_folder)
  draft.localize.gate = 0.0
  workdir = untrained.make_workdir(tmp_path / "run", configs.from_mapping(draft))
  area_data.tiles(tmp_path / "stac")
  faults = ("", "503", "", "", "truncate", "", "stall", *[""] * 20)
  with faulty_server.serve(tmp_path / "stac", faults) as (address, log):
    shared = ["--mode=map", f"--workdir={workdir}", "--assets=red,green,blue", "--block_size=128"]
    remote = [f"--input={address}/catalog.json", "--timeout=1", "--retries=6"]
    results = commands.run([
      ([*shared, f"--input={tmp_path}/stac/catalog.json", f"--output={tmp_path}/one"], {}),
      ([*shared, *remote, f"--output={tmp_path}/far", "--engine=ray", "--mappers=1"], {}),
    ], timeout=500)
  for result in results:
    assert result.returncode == 0, result.stderr[-3000:]
  assert {"503", "truncate", "stall"} <= {fault for fault, _ in log}
  assert_same(tmp_path / "one", tmp_path / "far")
  one, far = (
    pyarrow.parquet.read_table(tmp_path / name / "polygons" / "landslides.parquet")
    for name in ("one", "far")
  )
  assert one == far and len(one) > 3


@pytest.mark.longest
def test_the_driver_holds_few_blocks(cluster, tmp_path, monkeypatch):
  source = area_data.tiles(tmp_path / "stac", 1, 2)
  job, blocks = area(tmp_path / "out", source)
  most, step = [], ray_engine._Scheduler.step
  monkeypatch.setattr(
    ray_engine._Scheduler, "step", lambda self: most.append(self.size) or step(self)
  )
  assert not area_job.map_missing(
    job, blocks, with_ray(Stub(SIZE), Engine(engine="ray", mappers=1))
  )
  assert len(blocks) > 6 and max(most) <= 4


@pytest.mark.parametrize(("cpus", "wanted", "expected"), [
  (4, 3, 3), (4, 4, 3), (4, 100, 3), (2, 1, 1), (2, 3, 1), (1, 5, 1), (0, 8, 1), (2.5, 9, 2),
])
def test_mappers_leave_a_cpu_to_reading(cpus, wanted, expected):
  assert ray_mappers.room(cpus, wanted) == expected


@pytest.mark.longest
def test_more_mappers_than_cpus_do_not_wait_for_ever(cluster, tmp_path, caplog):
  job, blocks = area(tmp_path / "out", area_data.tiles(tmp_path / "stac", 1, 1))
  failed = area_job.map_missing(
    job, blocks, with_ray(Stub(SIZE), Engine(engine="ray", mappers=9))
  )
  assert not failed and "3 of --mappers=9 start: the cluster has 4 CPUs" in caplog.text


PATHS = """
import sys
import ray
from lgag_jax.blocks import ray_engine

ray_engine._connect("") if sys.argv[1] == "lgag" else ray.init(address="local", log_to_driver=False)

@ray.remote
def first():
  import colorsys
  return colorsys.__file__

print("imported", ray.get(first.remote()))
"""


@pytest.mark.longest
@pytest.mark.parametrize("by", ["ray", "lgag"])
def test_workers_import_nothing_from_the_current_folder(tmp_path, by):
  """Ray's own way shows that they would."""
  (tmp_path / "data").mkdir()
  (tmp_path / "data" / "colorsys.py").touch()
  (tmp_path / "paths.py").write_text(PATHS)
  environment = os.environ | {"PYTHONPATH": str(packaged.PACKAGE.parent)}
  result = subprocess.run(
    [sys.executable, tmp_path / "paths.py", by], cwd=tmp_path / "data", env=environment,
    capture_output=True, text=True, timeout=300,
  )
  assert result.returncode == 0, result.stderr[-3000:]
  imported = pathlib.Path(result.stdout.rpartition("imported ")[2].strip())
  assert (imported.parent == tmp_path / "data") == (by == "ray")


@pytest.mark.parametrize("address", ["", "auto"])
def test_ray_learns_no_folder_of_the_user(tmp_path, monkeypatch, address):
  here = []
  monkeypatch.setattr(ray, "is_initialized", lambda: False)
  monkeypatch.setattr(ray, "init", lambda **options: here.append(pathlib.Path.cwd()))
  for folder in (tmp_path, packaged.PACKAGE.parent):
    monkeypatch.chdir(folder)
    ray_engine._connect(address)
    assert pathlib.Path.cwd() == folder
  # A checkout that is not installed must be found.
  assert here == [python_command.NO_MODULES, packaged.PACKAGE.parent]


def test_no_cluster_at_an_address_is_an_error(monkeypatch):
  monkeypatch.setattr(ray, "is_initialized", lambda: False)
  def init(**options):
    raise ConnectionError(f"Could not find any running Ray instance at {options['address']}.")
  monkeypatch.setattr(ray, "init", init)
  with pytest.raises(ConnectionError, match=r"--address=10\.0\.0\.1:6379: no Ray cluster answers"):
    ray_engine._connect("10.0.0.1:6379")
  with pytest.raises(ValueError, match="needs --engine=ray"):
    Engine(address="auto")

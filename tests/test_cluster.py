"""Starting several processes, sharing work among them, and stopping: what one process can tell."""

import json
import os
import shutil
import signal
import types

import jax
import numpy as np
import pytest

from lgag_jax import config as configs
from lgag_jax.evaluation import evaluate
from lgag_jax.inputs import pipeline, sources, trunk_outputs
from lgag_jax.runtime import preemption, processes, sharding
from lgag_jax.training import fill_trunk_outputs, restore
from tests import conftest
from tests.commands import call

SLURM = {
  "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "a[1-2]", "SLURM_PROCID": "1", "SLURM_LOCALID": "1",
  "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
  "SLURM_NODEID": "0", "CUDA_VISIBLE_DEVICES": "0,1,2,3",
}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
TPU = {"TPU_WORKER_HOSTNAMES": "a,b"}
# What GKE's device plugin gives the first container of a slice of two hosts.
GKE = {
  **POD, "JOB_COMPLETION_INDEX": "0", "TPU_WORKER_ID": "0",
  "TPU_WORKER_HOSTNAMES": "lgag-0.lgag,lgag-1.lgag", "TPU_SKIP_MDS_QUERY": "true",
  "TPU_ACCELERATOR_TYPE": "v5litepod-8", "TPU_TOPOLOGY": "2x4",
  "TPU_CHIPS_PER_HOST_BOUNDS": "2,2,1", "TPU_HOST_BOUNDS": "1,2,1", "TPU_RUNTIME_METRICS_PORTS": "8431",
}
MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://h:1"}


def options(environment, mode="auto", libtpu=False, kubernetes=False):
  installed = {"libtpu": libtpu, "kubernetes": kubernetes}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(processes.importlib.util, "find_spec", lambda name: installed[name] or None)
    return processes.detected_options(environment, mode)


def test_a_process_alone_starts_nothing():
  for environment in (
    {}, POD, {**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, {"OMPI_COMM_WORLD_SIZE": "1"},
    # sbatch without srun: four tasks allocated, this is none of them.
    {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
  ):
    assert options(environment) is None
    assert options(environment, "on") == {}
  assert options(TPU) is None
  assert options({"TPU_WORKER_HOSTNAMES": "a"}, libtpu=True) is None
  assert options({"TPU_SKIP_MDS_QUERY": "1"}, libtpu=True) is None


def test_several_processes_are_noticed():
  assert options(SLURM) == {"num_processes": 4, "local_device_ids": [2, 3]}
  assert options(MPI) == {}
  # An mpirun whose daemons srun started, one a node: each looks like a task alone, or like another.
  assert options({**SLURM, "SLURM_STEP_NUM_TASKS": "1", **MPI}) == {}
  assert options({**SLURM, **MPI}) == {}
  assert options(GKE, libtpu=True) == {}
  assert options({**GKE, "TPU_WORKER_HOSTNAMES": "localhost"} | {"JOB_COMPLETION_INDEX": "0"},
                 libtpu=True, kubernetes=True) == {}
  assert options({**POD, "JOB_COMPLETION_INDEX": "0"}, kubernetes=True) == {}
  assert options(TPU, libtpu=True) == {}
  assert options({}, libtpu=True) == {}
  assert options({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, libtpu=True) == {}


@pytest.mark.parametrize(
  "environment", [{"OMPI_COMM_WORLD_SIZE": "2"}, {**POD, "JOB_COMPLETION_INDEX": "0"}]
)
def test_processes_that_cannot_be_found_are_an_error(environment):
  with pytest.raises(ValueError, match=r"--coordinator=HOST:PORT.*--distributed=off"):
    options(environment)


@pytest.mark.parametrize(
  ("changes", "devices"),
  [
    ({}, [2, 3]),
    ({"SLURM_LOCALID": "0"}, [0, 1]),
    ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_LOCALID": "0"}, [0, 1, 2, 3]),
    ({"SLURM_STEP_TASKS_PER_NODE": "1,4", "SLURM_NODEID": "1", "SLURM_LOCALID": "3"}, [3]),
    ({"CUDA_VISIBLE_DEVICES": "0", "SLURM_GPUS_ON_NODE": "2"}, [0]),
    ({"SLURM_GPUS_ON_NODE": "4", "SLURM_GPUS_PER_TASK": "2"}, [2, 3]),  # With --gpu-bind=none.
    ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_PER_TASK": "2"}, [0, 1]),
    ({"CUDA_VISIBLE_DEVICES": ""}, None),
    ({"CUDA_VISIBLE_DEVICES": "-1"}, None),
    ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, None),
    ({"CUDA_VISIBLE_DEVICES": "GPU-8a,GPU-9b"}, [1]),
  ],
)
def test_tasks_of_a_node_share_its_gpus(changes, devices):
  assert processes.slurm_devices({**SLURM, **changes}) == devices


@pytest.mark.parametrize("changes", [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "0,1,2"}])
def test_gpus_that_the_tasks_cannot_share_are_an_error(changes):
  with pytest.raises(ValueError, match=r"2 tasks of a node cannot share its . GPUs evenly"):
    processes.slurm_devices({**SLURM, **changes})


def test_processes_with_unequal_devices_are_an_error():
  devices = [types.SimpleNamespace(process_index=p, id=i) for i, p in enumerate((0, 0, 1))]
  with pytest.raises(ValueError, match=r"process 0: 2, process 1: 1"):
    sharding.make_mesh(devices)


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--processes=2"], "--coordinator, --process missing"),
    (["--coordinator=here", "--processes=2", "--process=0"], "--coordinator=here: must be HOST:PORT"),
    (["--coordinator=h:1", "--processes=2", "--process=2"], r"--process=2: must lie in \[0, 2\)"),
    (["--coordinator=h:1", "--distributed=off"], "--distributed=off contradicts"),
  ],
)
def test_half_given_flags_are_refused(flags, words):
  given = dict(flag.removeprefix("--").split("=") for flag in flags)
  mode = given.pop("distributed", "auto")
  values = {name: given.get(name) for name in ("coordinator", "processes", "process")}
  for name in ("processes", "process"):
    values[name] = values[name] and int(values[name])
  with pytest.raises(ValueError, match=words):
    processes.start(mode, **values)


def test_the_command_line_answers_a_half_given_start(tmp_path):
  result = call("--mode=report", f"--workdir={tmp_path}", "--process=0")
  assert result.returncode == 1
  assert "Error: --coordinator, --processes missing" in result.stderr
  assert "Traceback" not in result.stderr


def test_devices_of_a_mesh_stand_in_the_order_of_processes(monkeypatch):
  devices = jax.devices()
  monkeypatch.setattr(jax, "devices", lambda: devices[::-1])
  assert list(sharding.make_mesh().devices) == devices


@pytest.mark.parametrize(("parts", "run"), [(1, 8), (2, 4), (4, 1), (3, 2)])
def test_every_example_has_a_row_of_its_own(parts, run):
  places = [trunk_outputs.place(i, parts, run) for i in range(31)]
  for part in range(parts):
    rows = [row for p, row in places if p == part]
    assert rows == list(range(len(rows)))
  assert [part for part, _ in places] == [i // run % parts for i in range(31)]


def test_one_process_needs_no_other():
  assert processes.from_first(lambda: {"a": 1}) == {"a": 1}
  values = {"x": np.arange(3)}
  assert processes.gather(values) is values
  processes.check_same([1], "examples")
  processes.barrier("nothing")
  with processes.first_then_others("nothing"):
    pass


@pytest.fixture
def cluster_of_two(monkeypatch):
  """Makes this process the second of two, the first of which says `first`."""

  def pretend(first):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(processes, "_exchange", lambda payload: [first, payload])

  return pretend


def test_what_the_first_process_meets_all_meet(cluster_of_two):
  cluster_of_two(json.dumps({"value": 3}).encode())
  assert processes.from_first(lambda: pytest.fail("not mine to call")) == 3
  cluster_of_two(json.dumps({"error": "no such folder"}).encode())
  with pytest.raises(ValueError, match="no such folder"):
    processes.from_first(lambda: None)
  with pytest.raises(ValueError, match="Process 1 sees other examples than process 0"):
    processes.check_same(["a"], "examples")


def test_an_error_of_the_first_process_is_told_to_the_others(monkeypatch):
  told = []
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(processes, "_exchange", lambda payload: told.append(payload) or [payload, b"{}"])

  def fail():
    raise OSError("no room")

  with pytest.raises(ValueError, match="no room"):
    processes.from_first(fail)
  assert json.loads(told[0]) == {"error": "no room"}


@pytest.fixture(scope="module")
def config(image_folder):
  return configs.from_mapping(conftest.small_config.__wrapped__(image_folder))


@pytest.fixture(scope="module")
def started(config):
  """A mesh, the network and its first state."""
  mesh = sharding.make_mesh()
  network, _, state = restore.start(config, mesh, 1)
  return mesh, network, state


def test_sigterm_while_the_cache_fills_leaves_nothing_behind(config, started, tmp_path):
  mesh, network, state = started
  source = sources.open_source(config.data, "train")
  opened = lambda: fill_trunk_outputs.open_split(source, network, state, config, mesh, tmp_path)
  with preemption.watch():
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(preemption.Stopped, match="the same command goes on"):
      opened()
  assert not list((tmp_path / "features").glob("*/"))
  split = opened()
  assert isinstance(split.train_read, trunk_outputs.FeatureCache)
  with preemption.watch():
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(preemption.Stopped):
      evaluate.brief(network, state, split, config, mesh)
  shutil.rmtree(tmp_path)


def test_an_image_that_cannot_be_read_leaves_no_cache_either(
  config, started, tmp_path, monkeypatch
):
  mesh, network, state = started
  source = sources.open_source(config.data, "train")
  monkeypatch.setattr(pipeline.Reader, "__call__", lambda *_: 1 / 0)
  with pytest.raises(Exception, match="division by zero"):
    fill_trunk_outputs.open_split(source, network, state, config, mesh, tmp_path)
  assert not list((tmp_path / "features").glob("*/"))


def test_the_old_handler_comes_back():
  old = signal.signal(signal.SIGTERM, signal.SIG_IGN)
  try:
    with preemption.watch():
      assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN
      preemption.check()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
  finally:
    signal.signal(signal.SIGTERM, old)

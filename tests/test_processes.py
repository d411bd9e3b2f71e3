"""Starting several processes and exchanging values, as far as one process can test it."""

import json

import jax
import numpy as np
import pytest

from lgag_jax.runtime import processes
from tests.commands import call

SLURM = {
  "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "a[1-2]", "SLURM_PROCID": "1", "SLURM_LOCALID": "1",
  "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
  "SLURM_NODEID": "0", "CUDA_VISIBLE_DEVICES": "0,1,2,3",
}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
TPU = {"TPU_WORKER_HOSTNAMES": "a,b"}
# The variables that GKE's device plugin sets in the first container of a slice of two hosts.
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


def test_a_single_process_starts_nothing():
  for environment in (
    {}, POD, {**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, {"OMPI_COMM_WORLD_SIZE": "1"},
    # sbatch without srun: four tasks are allocated, but this process is not one of them.
    {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
  ):
    assert options(environment) is None
    assert options(environment, "on") == {}
  assert options(TPU) is None
  assert options({"TPU_WORKER_HOSTNAMES": "a"}, libtpu=True) is None
  assert options({"TPU_SKIP_MDS_QUERY": "1"}, libtpu=True) is None


def test_several_processes_are_detected():
  assert options(SLURM) == {"num_processes": 4, "local_device_ids": [2, 3]}
  assert options(MPI) == {}
  # mpirun, whose daemons srun started, one per node: Slurm counts one task, or several.
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
def test_processes_that_jax_cannot_find_are_an_error(environment):
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
def test_the_tasks_of_a_node_divide_its_gpus(changes, devices):
  assert processes.slurm_devices({**SLURM, **changes}) == devices


@pytest.mark.parametrize("changes", [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "0,1,2"}])
def test_gpus_that_cannot_be_divided_are_an_error(changes):
  with pytest.raises(ValueError, match=r"2 tasks of a node cannot share its . GPUs evenly"):
    processes.slurm_devices({**SLURM, **changes})


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--processes=2"], "--coordinator, --process missing"),
    (["--coordinator=here", "--processes=2", "--process=0"], "=here: it must be HOST:PORT"),
    (["--coordinator=h:1", "--processes=2", "--process=2"], r"--process=2: it must lie in \[0, 2\)"),
    (["--coordinator=h:1", "--distributed=off"], "--distributed=off contradicts"),
  ],
)
def test_incomplete_flags_are_refused(flags, words):
  flag_values = dict(flag.removeprefix("--").split("=") for flag in flags)
  mode = flag_values.pop("distributed", "auto")
  values = {name: flag_values.get(name) for name in ("coordinator", "processes", "process")}
  for name in ("processes", "process"):
    values[name] = values[name] and int(values[name])
  with pytest.raises(ValueError, match=words):
    processes.start(mode, **values)


def test_the_command_line_names_missing_flags(tmp_path):
  result = call("--mode=report", f"--workdir={tmp_path}", "--process=0")
  assert result.returncode == 1
  assert "Error: --coordinator, --processes missing" in result.stderr
  assert "Traceback" not in result.stderr


def test_a_single_process_waits_for_no_other():
  assert processes.run_on_first(lambda: {"a": 1}) == {"a": 1}
  values = {"x": np.arange(3)}
  assert processes.gather(values) is values
  processes.check_same([1], "examples")
  processes.barrier("nothing")
  with processes.first_then_others("nothing"):
    pass


@pytest.fixture
def cluster_of_two(monkeypatch):
  """Makes this process the second of two, of which the first sends `payload_of_first`."""

  def pretend(payload_of_first):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(processes, "_all_gather", lambda payload: [payload_of_first, payload])

  return pretend


def test_all_processes_get_the_outcome_of_the_first(cluster_of_two):
  cluster_of_two(json.dumps({"value": 3}).encode())
  assert processes.run_on_first(lambda: pytest.fail("only the first process calls it")) == 3
  cluster_of_two(json.dumps({"error": "no such folder"}).encode())
  with pytest.raises(ValueError, match="no such folder"):
    processes.run_on_first(lambda: None)
  with pytest.raises(ValueError, match="Process 1 has different examples than process 0"):
    processes.check_same(["a"], "examples")


def test_the_first_process_sends_its_error_to_the_others(monkeypatch):
  sent = []
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(processes, "_all_gather", lambda data: sent.append(data) or [data, b"{}"])

  def fail():
    raise OSError("no room")

  with pytest.raises(ValueError, match="no room"):
    processes.run_on_first(fail)
  assert json.loads(sent[0]) == {"error": "no room"}

"""Twenty steps come to the same numbers on any devices and processes, stopped and resumed or not."""

import dataclasses
import itertools
import json
import pathlib
import shutil
import socket

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh

from lgag_jax import config as configs
from lgag_jax.evaluation import evaluate
from lgag_jax.inputs import pipeline, sources
from lgag_jax.runtime import preemption, sharding
from lgag_jax.training import fill_trunk_outputs, loop, restore, train_step
from tests import commands
from tests.conftest import make_small_config

STEPS = 20
pytestmark = pytest.mark.slow
_BANKS = {}  # By workdir, of trainings in this process: restoring a state traces the network again.


@pytest.fixture(scope="module")
def config(image_folder):
  config = make_small_config(image_folder)
  config.train.epochs = 5  # Of four batches.
  config.train.log_every = 1
  config.train.checkpoint_every = 10
  config.train.evaluate_every = 0
  return configs.from_mapping(config)


@pytest.fixture(scope="module")
def reference(config, tmp_path_factory):
  """The workdir of an uninterrupted training on four devices, evaluated."""
  workdir = tmp_path_factory.mktemp("reference")
  train_on(4, config, workdir, judge=True)
  return workdir


@pytest.fixture(scope="module")
def shared(config, reference):
  """The config with the reference's kept trunk outputs: halves would show the last bit of a single."""
  return with_fields(config, "data", feature_cache_directory=str(reference / "features"))


def with_fields(config, group, **fields):
  changed = dataclasses.replace(getattr(config, group), **fields)
  return dataclasses.replace(config, **{group: changed})


def mesh_of(devices):
  return Mesh(np.array(jax.devices()[:devices]), ("data",), axis_types=(AxisType.Auto,))


def train_on(devices, config, workdir, *, judge=False):
  """Trains in this process; returns the final state."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "make_mesh", lambda: mesh_of(devices))
    if not judge:
      patch.setattr(evaluate, "evaluate", lambda *_, **__: None)
    state = loop.train_and_evaluate(config, workdir)
  _BANKS[workdir] = jax.device_get(state.bank)
  return state


def command(config, workdir, devices, *flags, **environment):
  """A training as another process runs it: its arguments and its variables."""
  return (
    [*commands.flags_of(config), f"--workdir={workdir}", *flags],
    {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
     "SEEN": f"{workdir}.seen", **environment},
  )


def two_processes(config, workdir, suffix, **of_second):
  """The commands of two processes of two devices each; `of_second` are variables of the second."""
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    port = probe.getsockname()[1]
  return [
    command(
      config, workdir, 2, f"--coordinator=localhost:{port}", "--processes=2",
      f"--process={i}", SEEN=f"{workdir}.seen.{suffix}.{i}", **(of_second if i else {}),
    )
    for i in range(2)
  ]


def finish(processes, code):
  """Runs the commands side by side; returns their errors' text."""
  done = commands.run(processes, module="tests.worker")
  texts = [process.stderr for process in done]
  assert [process.returncode for process in done] == [code] * len(done), "\n".join(texts)
  return texts


def losses(workdir):
  """The loss and the other numbers of each step, [steps, numbers]."""
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  rows = [line for line in lines if line["split"] == "train"]
  assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
  names = sorted(rows[0].keys() - {"split", "step", "loss", "steps_per_second"})
  return np.array([[row[name] for name in ("loss", *names)] for row in rows])


def saved_steps(workdir):
  return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def bank_of(workdir):
  if workdir not in _BANKS:
    _BANKS[workdir] = jax.device_get(restore.restore(workdir, mesh_of(4))[2].bank)
  return _BANKS[workdir]


def assert_same_run(workdir, reference):
  found, expected = losses(workdir), losses(reference)
  assert len(expected) == STEPS
  np.testing.assert_allclose(found[:, 0], expected[:, 0], rtol=1e-5)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
  bank, other = bank_of(workdir), bank_of(reference)
  assert other.valid.sum() > 20
  assert bool(other.ready)
  np.testing.assert_array_equal(bank.valid, other.valid)
  np.testing.assert_array_equal(bank.cursor, other.cursor)
  np.testing.assert_allclose(bank.features, other.features, atol=1e-5)
  np.testing.assert_allclose(bank.centres, other.centres, atol=1e-5)


def copy_at(workdir, step, target):
  """Copies a workdir as it was at a checkpoint."""
  shutil.copytree(workdir, target)
  for later in saved_steps(target):
    if later > step:
      shutil.rmtree(target / "checkpoints" / str(later))
  return target


@pytest.fixture(scope="module")
def on_one(shared, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("one")
  train_on(1, shared, workdir)
  return workdir


@pytest.mark.longest
def test_one_device(on_one, reference):
  assert_same_run(on_one, reference)


@pytest.mark.longest
@pytest.mark.parametrize(
  ("fields", "of_loss", "of_bank", "of_change"),
  [
    ({"first_trainable_stage": 4}, 1e-6, 1e-5, 2e-4),
    # A rounding to bfloat16 is one of 0.4 %, and other batches a device are rounded elsewhere.
    ({"precision": "bfloat16"}, 4e-3, 4e-3, 0.1),
  ],
)
def test_each_step_alone_is_the_same_where_training_amplifies_the_last_bit(
  config, fields, of_loss, of_bank, of_change
):
  """A trained trunk, or half precision, makes much of a rounding: steps start from equal states."""
  config = with_fields(with_fields(config, "data", augment="image"), "model", **fields)
  source = sources.open_source(config.data, "train")
  reader = pipeline.Reader(source, config.data)
  runs = []
  for devices in (4, 1):
    mesh = mesh_of(devices)
    network, optimizer, state = restore.start(config, mesh, STEPS)
    step = train_step.make_train_step(network, config, optimizer, mesh, steps_per_epoch=4)
    runs.append((step, mesh))
  state = jax.device_get(state)
  batches = pipeline.train_batches(source, reader, config, start_step=0)
  for batch in itertools.islice(batches, 6):
    batch.pop("index")
    after = []
    for step, mesh in runs:
      there = jax.device_put(state, sharding.replicated_sharding(mesh))
      after.append(jax.device_get(step(there, sharding.to_global(batch, mesh))))
    (on_four, four), (on_one, one) = after
    np.testing.assert_allclose(four["loss"], one["loss"], rtol=of_loss)
    np.testing.assert_allclose(on_four.bank.features, on_one.bank.features, atol=of_bank)
    np.testing.assert_array_equal(on_four.bank.cursor, on_one.bank.cursor)
    distance = lambda a, b: float(optax.tree.norm(jax.tree.map(np.subtract, a.params, b.params)))
    assert distance(on_four, on_one) < of_change * distance(on_one, state)
    before, state = state, on_four
  batches.close()
  differs = jax.tree.map(lambda a, b: bool(np.any(a != b)), state.params, before.params)
  moved = {name for name, stage in differs["trunk"].items() if any(jax.tree.leaves(stage))}
  assert moved == ({"stage4"} if "first_trainable_stage" in fields else set())


@pytest.mark.longest
def test_stopped_on_one_device_and_resumed_on_four_that_split_the_state(
  on_one, shared, reference, tmp_path
):
  workdir = copy_at(on_one, 10, tmp_path / "run")
  elsewhere = with_fields(shared, "train", shard_state=True, checkpoint_every=7)
  state = train_on(4, elsewhere, workdir)
  assert configs.load(workdir / "config.json") == elsewhere
  assert_same_run(workdir, reference)
  for tree in (state.params, state.opt_state):
    leaves = jax.tree.leaves(tree)
    on_each = sum(leaf.addressable_shards[0].data.size for leaf in leaves)
    assert on_each < 0.3 * sum(leaf.size for leaf in leaves)
  kernel = state.params["head"]["gaa"] if "gaa" in state.params["head"] else state.params["head"]
  largest = max(jax.tree.leaves(kernel), key=lambda leaf: leaf.size)
  assert [shard.data.size for shard in largest.addressable_shards] == [largest.size // 4] * 4
  for leaf in jax.tree.leaves((state.bank, state.step, state.statistics)):
    assert leaf.is_fully_replicated


@pytest.mark.longest
def test_eight_devices_that_split_the_state_stop_at_sigterm_and_two_go_on_in_parts(
  shared, reference, tmp_path
):
  workdir = tmp_path / "run"
  split = with_fields(shared, "train", shard_state=True)
  text, = finish([command(split, workdir, 8, SIGNAL_AT="11")], preemption.EXIT_CODE)
  assert "Stopped at step 11 of 20 by SIGTERM; run the same command to resume." in text
  assert "Traceback" not in text
  assert saved_steps(workdir) == [10, 11]
  assert not (workdir / "eval").exists()
  train_on(2, with_fields(shared, "train", accumulate=2), workdir)
  assert_same_run(workdir, reference)


@pytest.mark.longest
def test_a_run_ends_wherever_it_is_and_goes_on(config, reference, tmp_path):
  """While trunk outputs are kept, or in an epoch's validation, data is being read in other threads."""
  config, workdir = with_fields(config, "train", evaluate_every=2), tmp_path / "run"
  for phase in ("trunk outputs", "evaluation"):
    finish([command(config, workdir, 4, SIGNAL_IN=phase)], preemption.EXIT_CODE)
  assert saved_steps(workdir) == [8]
  text, = finish([command(config, workdir, 4, FAIL_IN="evaluation")], 1)
  assert "RuntimeError: A fault." in text
  train_on(4, config, workdir)
  assert_same_run(workdir, reference)
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  assert [line["step"] for line in lines if line["split"] == "validation"] == [8, 16, 20]


@pytest.fixture(scope="module")
def stopped(config, tmp_path_factory):
  """Two processes of two devices; only the second one got a signal. They fill their own cache."""
  workdir = tmp_path_factory.mktemp("processes") / "run"
  texts = finish(two_processes(config, workdir, "first", SIGNAL_AT="8"), preemption.EXIT_CODE)
  return workdir, texts


@pytest.mark.longest
def test_a_signal_to_one_process_stops_both_at_one_step(stopped):
  workdir, texts = stopped
  step = saved_steps(workdir)[-1]
  assert 8 <= step < STEPS
  assert f"Stopped at step {step} of 20 by SIGTERM" in texts[0]
  assert "Stopped" not in texts[1]
  assert not any("Traceback" in text for text in texts)
  assert len(losses(workdir)) == step


@pytest.mark.longest
def test_two_processes_go_on_in_one(stopped, reference, tmp_path):
  workdir, _ = stopped
  copy = tmp_path / "run"
  shutil.copytree(workdir, copy)
  # Their trunk outputs are the reference's, bit for bit, in two parts.
  assert len(list((workdir / "features").glob("*/tap0.1.npy"))) == 2
  train_on(1, configs.load(copy / "config.json"), copy)
  assert_same_run(copy, reference)


@pytest.mark.longest
def test_two_processes_go_on_to_the_end(stopped, config, reference):
  workdir, _ = stopped
  step = saved_steps(workdir)[-1]
  finish(two_processes(config, workdir, "second"), 0)
  assert_same_run(workdir, reference)
  for name in ("eval/validation.json", "thresholds.json"):
    assert (workdir / name).read_text() == (reference / name).read_text()
  one, two = (np.load(folder / "eval" / "panels.npz") for folder in (reference, workdir))
  assert one.files == two.files
  assert len(one["id"]) == 6
  np.testing.assert_array_equal(one["id"], two["id"])
  np.testing.assert_allclose(one["anchor_guided"], two["anchor_guided"], atol=1e-3)
  assert (workdir / "report.html").exists()
  assert len(list(workdir.glob("events.out.tfevents.*"))) == 2  # One a start, of process 0.
  # Each position of an epoch's order went to one process.
  seen = [
    [json.loads(pathlib.Path(f"{workdir}.seen.{part}.{i}").read_text()) for i in range(2)]
    for part in ("first", "second")
  ]
  assert [len(rows) for part in seen for rows in part] == [step, step, STEPS - step, STEPS - step]
  order = [a + b for part in seen for a, b in zip(*part, strict=True)]
  labels = sources.open_source(config.data, "train").labels
  expected = np.concatenate([pipeline.epoch_order(labels, config, e) for e in range(5)])
  np.testing.assert_array_equal(np.concatenate(order), expected)


@pytest.mark.longest
def test_a_cache_of_two_processes_is_read_by_one(stopped, config, reference):
  workdir, _ = stopped
  for split in ("train", "validation"):
    source = sources.open_source(config.data, split)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(fill_trunk_outputs, "_fill", lambda *_: pytest.fail("filled again"))
      network, _, state = restore.start(config, mesh_of(4), 1)
      both = [
        fill_trunk_outputs.open_split(source, network, state, config, mesh_of(4), folder).train_read
        for folder in (workdir, reference)
      ]
    for i in range(len(source.ids)):
      for a, b in zip(*(read(i) for read in both), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.longest
def test_an_error_of_one_process_ends_both(config, image_folder, tmp_path):
  folder = tmp_path / "images"
  shutil.copytree(image_folder, folder)
  (folder / "landslide" / "slide_05.png").write_bytes(b"nothing")
  damaged = with_fields(config, "data", directory=str(folder))
  texts = finish(two_processes(damaged, tmp_path / "run", "bad"), 1)
  assert sum("slide_05.png" in text for text in texts) == 1
  assert not list((tmp_path / "run" / "features").glob("*/"))

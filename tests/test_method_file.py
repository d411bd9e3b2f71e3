"""Methods of a user's own file: taken by name, recorded by digest, refused when it changed."""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax import config as configs
from lgag_jax import methods
from lgag_jax.method import memory_bank, registry
from lgag_jax.training import loop, restore, train_step
from tests.commands import call, flags_of

DOCS = pathlib.Path(__file__).parent.parent / "docs"
EXAMPLES = re.findall(r"```python\n(.*?)```", (DOCS / "research.md").read_text(), re.DOTALL)
PARTS = '''
import dataclasses
import jax, jax.numpy as jnp
from flax import linen as nn
from lgag_jax.method import losses, memory_bank
from lgag_jax.method.method import LossTerm
from lgag_jax.method.registry import LGAG, CLASS_ACTIVATION

def locate(structure, activation, present, g, config):
  """The class map alone decides; only the last cell is background."""
  seeds = jnp.zeros((*g.shape[:3], present.shape[1])).at[..., 1].set(1.0)
  return seeds.at[:, -1, -1].set(jax.nn.one_hot(0, present.shape[1]))

class Shift(nn.Module):
  @nn.compact
  def __call__(self, cells, anchors, ready):
    return cells + self.param("shift", nn.initializers.ones_init(), (cells.shape[-1],))

def push_first(bank, anchors, accepted):
  return memory_bank.push(bank, anchors[:1], accepted[:1])

LENGTH = LossTerm("length", lambda config, epoch: 0.5,
                  lambda outputs, batch, bank, config: jnp.mean(outputs.scores**2, axis=-1))
SOL_OF_MINE = dataclasses.replace(LGAG, name="located", locate=locate)
GAA_OF_MINE = dataclasses.replace(LGAG, name="shifted", aggregation=lambda config: Shift(name="shift"))
BANK_OF_MINE = dataclasses.replace(LGAG, name="pushed", push=push_first)
LOSS_OF_MINE = dataclasses.replace(CLASS_ACTIVATION, name="lengthened",
                                   losses=(*CLASS_ACTIVATION.losses, LENGTH))
WRONG = dataclasses.replace(LGAG, name="wrong_loss", losses=(
  LossTerm("total", lambda config, epoch: 1.0, lambda outputs, *_: jnp.sum(outputs.scores)),))
SETTINGS = {"lengthened": {"train.epochs": 1}}
'''


@pytest.fixture
def fresh(monkeypatch):
  """A registry as a new process has it."""
  monkeypatch.setattr(registry, "_METHODS", {name: (m, "") for name, m in registry.OWN.items()})
  monkeypatch.setattr(methods, "SETTINGS", dict(methods.SETTINGS))


@pytest.fixture
def parts(fresh, tmp_path):
  path = tmp_path / "parts.py"
  path.write_text(PARTS)
  registry.load_file(path)
  return path


def with_method(small_config, name):
  methods.apply(small_config, name)
  small_config.model.method_digest = registry.digest_of(name)
  return configs.from_mapping(small_config)


def one_step(config):
  """Returns the state before and after a step on stored trunk outputs, and the metrics."""
  from lgag_jax.method import network as networks
  from lgag_jax.runtime import sharding
  from lgag_jax.training import optimizer

  mesh, network = sharding.make_mesh(jax.devices()[:1]), networks.build(config)
  transform = optimizer.make_optimizer(config, 1)
  state = train_step.init_state(network, config, transform, mesh)
  side = config.data.image_size
  image = jax.ShapeDtypeStruct((4, side, side, 3), np.float32)
  taps = jax.eval_shape(network.frozen, state.params, state.statistics, image)
  random = np.random.default_rng(0)
  batch = {
    "taps": tuple(random.uniform(size=t.shape).astype(np.float32) for t in taps),
    "mask": np.zeros((4, side, side), np.uint8), "weight": np.ones(4, np.float32),
    "label": np.array([[1], [0], [1], [0]], np.float32),
  }
  step = train_step.make_train_step(network, config, transform, mesh, steps_per_epoch=1)
  before = jax.device_get(state)
  after, metrics = jax.device_get(step(state, sharding.to_global(batch, mesh)))
  return before, after, metrics


@pytest.mark.longest
def test_sol_gaa_bank_and_loss_are_swapped_by_a_file(parts, small_config):
  """Each part is seen at work: by its parameter, its anchors or its term."""
  _, after, metrics = one_step(with_method(small_config, "located"))
  # All cells but one are seeds of the class in all four images, which the published SOL never gives.
  assert metrics["anchors"] >= 4
  assert after.bank.valid[0].sum() == 4
  before, after, _ = one_step(with_method(small_config, "shifted"))
  assert set(before.params["head"]["shift"]) == {"shift"}
  assert "gaa" not in before.params["head"]
  shifts = [state.params["head"]["shift"]["shift"] for state in (before, after)]
  assert not np.array_equal(*shifts)
  _, after, _ = one_step(with_method(small_config, "pushed"))
  assert after.bank.valid[0].sum() == 1  # Of four images, the first one's background anchor.
  config = with_method(small_config, "lengthened")
  assert config.train.epochs == 1  # The file's SETTINGS.
  _, _, metrics = one_step(config)
  assert metrics["length"] > 0
  labels = sum(
    weight * metrics[name] for name, weight in
    (("classification", 1.0), ("negative_pixels", 1.0), ("length", 0.5))
  )
  assert metrics["loss"] == pytest.approx(labels, rel=1e-4)


def test_a_loss_that_is_no_number_per_image_is_refused(parts, small_config):
  with pytest.raises(ValueError, match=r"Method 'wrong_loss': the loss term 'total' returned .* \[\]"):
    one_step(with_method(small_config, "wrong_loss"))


@pytest.mark.parametrize(("content", "words"), [
  ("x = 1", "defines no Method"), ("import nothing_there", "ModuleNotFoundError"),
  ("from lgag_jax.method.registry import LGAG", "defines no Method"),
  ("import dataclasses\nfrom lgag_jax.method.registry import LGAG\n"
   "A = dataclasses.replace(LGAG, gated=False)", "'lgag', one of the package's names"),
  ("import dataclasses\nfrom lgag_jax.method.registry import LGAG\n"
   "A = dataclasses.replace(LGAG, name='a', guide=None)", r"Method 'a': guide=None must be given"),
  ("import dataclasses\nfrom lgag_jax.method.registry import LGAG\n"
   "A = dataclasses.replace(LGAG, name='a', losses=())", "losses=.* one or more LossTerm"),
  ("import dataclasses\nfrom lgag_jax.method.registry import LGAG\n"
   "A = dataclasses.replace(LGAG, name='a', aggregation=3)", "aggregation=3 must be callable"),
])
def test_a_file_without_a_sound_method_is_refused(fresh, tmp_path, content, words):
  path = tmp_path / "mine.py"
  path.write_text(content)
  with pytest.raises(ValueError, match=words):
    registry.load_file(path)
  with pytest.raises(ValueError, match=r"nothing\.py cannot be read"):
    registry.load_file(tmp_path / "nothing.py")


@pytest.mark.longest
def test_a_workdir_needs_the_file_that_it_was_trained_with(parts, small_config, tmp_path, monkeypatch):
  config = with_method(small_config, "lengthened")
  workdir = tmp_path / "work"
  loop.train_and_evaluate(config, workdir)
  recorded = configs.load(workdir / "config.json").model
  assert (recorded.method, len(recorded.method_digest)) == ("lengthened", 64)
  again, _, _ = restore.restore(workdir, loop.sharding.make_mesh())
  assert again.model == dataclasses.replace(config.model)
  taken = dict(registry._METHODS)
  # A process that was not given the file, and one that was given another.
  monkeypatch.setattr(registry, "_METHODS", {n: v for n, v in taken.items() if n != "lengthened"})
  monkeypatch.delitem(methods.SETTINGS, "lengthened")
  for use in (restore.restore, lambda w, _: loop.evaluate_workdir(w)):
    with pytest.raises(ValueError, match=r"'lengthened' is unknown.*--method_file"):
      use(workdir, loop.sharding.make_mesh())
  parts.write_text(PARTS + "\n# Changed.\n")
  registry.load_file(parts)
  with pytest.raises(ValueError, match=r"SHA-256 [0-9a-f]{12}, but --method_file now has SHA-256"):
    restore.restore(workdir, loop.sharding.make_mesh())


@pytest.mark.longest
def test_the_command_line_takes_the_file_and_refuses_without_it(tmp_path, small_config):
  path, workdir = tmp_path / "parts.py", tmp_path / "work"
  path.write_text(PARTS)
  small_config.train.epochs = 1
  train = [*flags_of(configs.from_mapping(small_config)), f"--workdir={workdir}"]
  train[0] = "--config=configs/image_folder.py:lengthened"
  refused = call(*train)
  assert refused.returncode == 1
  assert "'lengthened' is unknown" in refused.stderr
  done = call(f"--method_file={path}", *train)
  assert done.returncode == 0, done.stderr
  images = small_config.data.directory + "/landslide"
  predict = (
    "--mode=predict", f"--workdir={workdir}", f"--input={images}", f"--output={tmp_path / 'maps'}"
  )
  refused = call(*predict)
  assert refused.returncode == 1
  assert "--method_file" in refused.stderr
  assert call(*predict, f"--method_file={path}").returncode == 0


def test_a_workdir_makes_nothing_be_imported(fresh, tmp_path, small_config):
  """Its config may name a file wherever a name fits: it is text."""
  evil = tmp_path / "evil.py"
  evil.write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
  small_config.model.method = str(evil)
  with pytest.raises(ValueError, match="is unknown"):
    registry.method_of(configs.from_mapping(small_config))
  assert not (tmp_path / "run").exists()


@pytest.mark.longest
@pytest.mark.parametrize("code", [
  pytest.param(EXAMPLES[0], id="nearest"), pytest.param(EXAMPLES[1], id="moving_average"),
])
def test_the_examples_of_the_docs_define_a_method(fresh, tmp_path, code, small_config):
  assert len(code.splitlines()) < 40
  path = tmp_path / "mine.py"
  path.write_text(code)
  (name,) = registry.load_file(path)
  _, after, metrics = one_step(with_method(small_config, name))
  assert metrics["skipped"] == 0
  assert after.bank.valid.sum() > 0


def test_the_aggregation_of_the_docs_moves_cells_to_the_nearest_anchor(fresh, tmp_path, rng):
  path = tmp_path / "mine.py"
  path.write_text(EXAMPLES[0])
  registry.load_file(path)
  module = registry._METHODS["nearest"][0].aggregation(configs.Config())
  cells, anchors = (rng.normal(size=size).astype(np.float32) for size in ((1, 5, 12), (3, 12)))
  step = rng.uniform(size=12).astype(np.float32)
  params = {"params": {"sharpness": 1e4, "step": step}}
  cells, anchors = jnp.asarray(cells), jnp.asarray(anchors)
  apply = lambda ready: module.apply(params, cells, anchors, jnp.array(ready))
  np.testing.assert_array_equal(apply(False), cells)
  cosine = cells @ anchors.T / np.linalg.norm(anchors, axis=1)
  nearest = anchors[cosine.argmax(-1)]  # So sharp a softmax takes the nearest alone.
  np.testing.assert_allclose(apply(True), (1 - step) * cells + step * nearest, atol=1e-3)


def test_the_averaging_bank_fills_then_moves_the_most_similar_slot(fresh, tmp_path, rng):
  path = tmp_path / "mine.py"
  path.write_text(EXAMPLES[1])
  registry.load_file(path)
  push = jax.jit(registry._METHODS["moving_average"][0].push)
  bank = memory_bank.empty(configs.BankConfig(slots=3, centres=2), classes=1, dimension=4)
  rows = rng.normal(size=(3, 1, 4)).astype(np.float32)
  bank = push(bank, jnp.array(rows), jnp.ones((3, 1), bool))
  unit = rows[:, 0] / np.linalg.norm(rows[:, 0], axis=-1, keepdims=True)
  np.testing.assert_allclose(bank.features[0], unit, atol=1e-5)
  row = rng.normal(size=4)
  row /= np.linalg.norm(row)
  after = push(bank, jnp.array(row, jnp.float32)[None, None], jnp.ones((1, 1), bool))
  nearest = int(np.argmax(unit @ row))
  moved = 0.99 * unit[nearest] + 0.01 * row
  expected = unit.copy()
  expected[nearest] = moved / np.linalg.norm(moved)
  np.testing.assert_allclose(after.features[0], expected, atol=1e-5)

"""The training step: the same on any number of devices and in any number of parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax import config as configs
from lgag_jax.method import losses
from lgag_jax.method import network as networks
from lgag_jax.runtime import sharding
from lgag_jax.training import optimizer, train_step

BATCH = 8


@pytest.fixture
def config(small_config):
  small_config.data.augment = "none"
  return configs.from_mapping(small_config)


def batches(config, count):
  random = np.random.default_rng(3)
  side = config.data.image_size
  for _ in range(count):
    yield {
      "image": random.uniform(size=(BATCH, side, side, 3)).astype(np.float32),
      "mask": random.integers(0, 2, (BATCH, side, side)).astype(np.uint8),
      "label": np.tile([[1.0], [0.0]], (BATCH // 2, 1)).astype(np.float32),
      "weight": np.array([1] * (BATCH - 1) + [0], np.float32),
    }


def run(config, devices, steps=5):
  """Trains on the first `devices` devices; returns the final state and each step's metrics."""
  mesh = jax.make_mesh(
    (devices,), ("data",), devices=jax.devices()[:devices],
    axis_types=(jax.sharding.AxisType.Auto,),
  )
  network = networks.build(config)
  transform = optimizer.make_optimizer(config, steps)
  state = train_step.init_state(network, config, transform, mesh)
  step = train_step.make_train_step(network, config, transform, mesh, steps_per_epoch=2)
  refresh = train_step.make_refresh(config, mesh)
  metrics = []
  for number, batch in enumerate(batches(config, steps)):
    if number % 2 == 0:
      state = state.replace(bank=refresh(state.bank))
    state, values = step(state, sharding.to_global(batch, mesh))
    metrics.append(jax.device_get(values))
  return jax.device_get(state), metrics


def assert_same(one, other, tolerance):
  (state, metrics), (other_state, other_metrics) = one, other
  for values, other_values in zip(metrics, other_metrics, strict=True):
    for name in values:
      np.testing.assert_allclose(
        values[name], other_values[name], rtol=tolerance, atol=tolerance, err_msg=name
      )
  np.testing.assert_array_equal(state.bank.valid, other_state.bank.valid)
  np.testing.assert_array_equal(state.bank.cursor, other_state.bank.cursor)
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other_state), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=20 * tolerance)


@pytest.mark.longest
def test_parts_give_what_the_whole_batch_gives(config):
  """On several devices; test_topology.py has other numbers of them, from images and kept outputs."""
  parts = dataclasses.replace(config, train=dataclasses.replace(config.train, accumulate=2))
  whole = run(config, 4, steps=4)
  assert whole[0].bank.valid.sum() > 20
  assert bool(whole[0].bank.ready)
  assert_same(whole, run(parts, 4, steps=4), 1e-4)


def test_state_is_donated_and_frozen_weights_stay(config):
  mesh = sharding.make_mesh()
  network = networks.build(config)
  transform = optimizer.make_optimizer(config, 4)
  state = train_step.init_state(network, config, transform, mesh)
  before = jax.device_get(state.params)
  step = train_step.make_train_step(network, config, transform, mesh, steps_per_epoch=2)
  old = state
  for batch in batches(config, 2):
    state, _ = step(state, sharding.to_global(batch, mesh))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old.bank))
  after = jax.device_get(state.params)
  jax.tree.map(np.testing.assert_array_equal, before["trunk"], after["trunk"])
  assert not np.array_equal(
    before["head"]["classifier"]["logits"]["kernel"],
    after["head"]["classifier"]["logits"]["kernel"],
  )


@pytest.mark.longest
def test_drawn_pixels_teach_if_told(config):
  told = dataclasses.replace(config, loss=dataclasses.replace(config.loss, drawn_pixel_weight=2.0))
  (_, plain), (_, drawn) = (run(each, 1, steps=2) for each in (config, told))
  own = {"drawn_pixels", "drawn_pixels_auxiliary"}
  assert not own & set(plain[0]) and own <= set(drawn[0])
  added = sum(2.0 * drawn[0][name] for name in own)  # Of equal states.
  np.testing.assert_allclose(drawn[0]["loss"], plain[0]["loss"] + added, rtol=1e-5)
  assert drawn[1]["drawn_pixels"] < drawn[0]["drawn_pixels"]
  assert added > 0


@pytest.mark.longest
def test_the_whole_trunk_but_its_stem_trains_if_told(config):
  """test_topology.py trains the last stage alone."""
  model = dataclasses.replace(config.model, first_trainable_stage=1, method="class_activation")
  config = dataclasses.replace(config, model=model)
  mesh, network = sharding.make_mesh(), networks.build(config)
  transform = optimizer.make_optimizer(config, 1)
  state = train_step.init_state(network, config, transform, mesh)
  before = jax.device_get(state.params["trunk"])
  step = train_step.make_train_step(network, config, transform, mesh, steps_per_epoch=2)
  state, _ = step(state, sharding.to_global(next(batches(config, 1)), mesh))
  after = jax.device_get(state.params["trunk"])
  for name in ("stem", "stage1", "stage2", "stage3", "stage4"):
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: np.any(a != b), before[name], after[name]))
    assert any(moved) == (name != "stem"), name


@pytest.mark.longest
def test_bad_examples_of_weight_zero_change_nothing(config):
  def one_step(spoil):
    mesh = sharding.make_mesh()
    network = networks.build(config)
    transform = optimizer.make_optimizer(config, 4)
    state = train_step.init_state(network, config, transform, mesh)
    step = train_step.make_train_step(network, config, transform, mesh, steps_per_epoch=2)
    batch = next(batches(config, 1))
    if spoil:
      batch["image"][-1] = 0.0
    return jax.device_get(step(state, sharding.to_global(batch, mesh)))

  jax.tree.map(np.testing.assert_array_equal, one_step(False), one_step(True))


def test_a_batch_that_devices_cannot_share_is_refused():
  with pytest.raises(ValueError, match="multiple of 8"):
    sharding.check_batch(sharding.make_mesh(), 12, parts=2)


@pytest.mark.parametrize("number", range(8))
def test_turn_moves_taps_and_masks_alike(number):
  grid = jnp.arange(2 * 4 * 4, dtype=jnp.float32).reshape(2, 4, 4)
  batch = {"taps": (grid[..., None], grid[..., None] * 2), "mask": grid, "label": jnp.ones(2)}
  turned = train_step.turn(batch, jnp.array(number))
  expected = np.rot90(np.asarray(grid), number % 4, axes=(1, 2))
  expected = expected[:, :, ::-1] if number >= 4 else expected
  np.testing.assert_array_equal(turned["mask"], expected)
  np.testing.assert_array_equal(turned["taps"][0][..., 0], expected)
  np.testing.assert_array_equal(turned["taps"][1][..., 0], expected * 2)


@pytest.mark.parametrize(
  "where", ["image", pytest.param("loss", marks=pytest.mark.longest), "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_but_its_number(config, monkeypatch, where):
  classification = losses.classification

  def spoilt(scores, labels):
    value = classification(scores, labels)
    # Finite itself, but the root's slope at zero is not.
    return value * jnp.nan if where == "loss" else value + jnp.sqrt(jnp.sum(0.0 * scores, axis=-1))

  if where != "image":
    monkeypatch.setattr(losses, "classification", spoilt)
    model = dataclasses.replace(config.model, method="class_activation")  # Quick to compile.
    config = dataclasses.replace(config, model=model)
  mesh, network = sharding.make_mesh(), networks.build(config)
  transform = optimizer.make_optimizer(config, 4)
  state = train_step.init_state(network, config, transform, mesh)
  before = jax.device_get(state)
  step = train_step.make_train_step(network, config, transform, mesh, steps_per_epoch=2)
  batch = next(batches(config, 1))
  if where == "image":
    batch["image"][0, 3, 4, 1] = np.nan
  else:  # From a trunk's outputs, which need not be compiled.
    taps = jax.eval_shape(network.frozen, state.params, state.statistics, batch.pop("image"))
    batch["taps"] = tuple(np.ones(tap.shape, np.float32) for tap in taps)
  after, metrics = jax.device_get(step(state, sharding.to_global(batch, mesh)))
  assert after.step == before.step + 1
  jax.tree.map(np.testing.assert_array_equal, before, after.replace(step=before.step))
  assert metrics["skipped"] == 1
  assert all(value == 0 for name, value in metrics.items() if name != "skipped")

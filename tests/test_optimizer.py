"""Learning rates of parameter groups, and schedules to and past their ends, worked out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lgag_jax.config import Config, DataConfig, ModelConfig, OptimConfig
from lgag_jax.training import optimizer

STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")
PLAIN = {"momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.0, "decay_power": 1.0}


def config_of(first_trainable_stage=5, **optim):
  return Config(
    data=DataConfig(augment="none"), model=ModelConfig(first_trainable_stage=first_trainable_stage),
    optim=OptimConfig(**{**PLAIN, **optim}),
  )


def parameters(value=1.0):
  leaf = lambda: {"conv": {"kernel": jnp.full((2,), value)}}
  return {"trunk": {name: leaf() for name in STAGES}, "head": {"sides": leaf(), "gaa": leaf()}}


def walk(config, steps, gradients, params=None):
  """Applies the gradients in turn, of a schedule of `steps`; returns the parameters after each."""
  params = parameters() if params is None else params
  transform = optimizer.make_optimizer(config, steps)
  state, history = transform.init(params), []
  update = jax.jit(transform.update)
  for gradient in gradients:
    updates, state = update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    history.append(params)
  return history


def kernel(params, *path):
  for name in path:
    params = params[name]
  return float(params["conv"]["kernel"][0])


@pytest.mark.parametrize("first", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_groups_get_their_rates(name, first):
  config = config_of(first, name=name, learning_rate=0.01, new_multiplier=10.0)
  (after,) = walk(config, 100, [parameters(1.0)])
  # Gradients are one: so is the first step of both, times the rate.
  for number, stage in enumerate(STAGES):
    trained = stage != "stem" and number >= first
    expected = 1 - 0.01 if trained else 1.0
    assert kernel(after, "trunk", stage) == pytest.approx(expected, abs=1e-6), stage
  for part in ("sides", "gaa"):
    assert kernel(after, "head", part) == pytest.approx(1 - 0.1, abs=1e-6)


def test_frozen_parameters_are_not_even_decayed():
  config = config_of(3, weight_decay=0.5, momentum=0.9)
  history = walk(config, 100, [parameters(0.0)] * 3)
  for stage, moves in (("stem", False), ("stage2", False), ("stage3", True)):
    assert (kernel(history[-1], "trunk", stage) != 1.0) == moves


def test_rates_decay_along_a_straight_line_and_stay_at_zero():
  config = config_of(learning_rate=0.1, new_multiplier=1.0)
  history = walk(config, 4, [parameters(1.0)] * 7)
  values = [kernel(p, "head", "gaa") for p in history]
  taken = -np.diff([1.0, *values])
  np.testing.assert_allclose(taken, [0.1, 0.075, 0.05, 0.025, 0, 0, 0], atol=1e-7)


@pytest.mark.parametrize("power", [0.5, 0.9, 1.0, 2.0])
def test_polynomial_decay_by_hand(power):
  schedule = optimizer.schedule(config_of(decay_power=power), 50)
  for step in (0, 1, 10, 25, 49):
    assert float(schedule(step)) == pytest.approx((1 - step / 50) ** power, rel=1e-5)


@pytest.mark.parametrize("power", [0.5, 0.9])
def test_past_its_end_a_schedule_is_zero_and_finite(power):
  schedule = jax.jit(optimizer.schedule(config_of(decay_power=power), 50))
  for step in (50, 51, 1000, 2**30):
    assert float(schedule(jnp.int32(step))) == 0.0


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_short_trainings_have_finite_rates(steps):
  schedule = optimizer.schedule(config_of(), steps)
  assert all(0 <= float(schedule(step)) <= 1 for step in range(steps + 12))


def test_gradients_beyond_the_norm_are_scaled_down_together():
  config = config_of(1, clip_norm=1.0, learning_rate=1.0, new_multiplier=1.0)
  gradient = jax.tree.map(jnp.zeros_like, parameters())
  gradient["head"]["gaa"]["conv"]["kernel"] = jnp.array([30.0, 0.0])
  gradient["trunk"]["stage1"]["conv"]["kernel"] = jnp.array([40.0, 0.0])
  (after,) = walk(config, 100, [gradient])
  # The length of (30, 40) is 50.
  assert kernel(after, "head", "gaa") == pytest.approx(1 - 0.6, abs=1e-6)
  assert kernel(after, "trunk", "stage1") == pytest.approx(1 - 0.8, abs=1e-6)


@pytest.mark.parametrize("clip", [0.0, 100.0])
def test_gradients_within_the_norm_pass(clip):
  config = config_of(clip_norm=clip, learning_rate=1.0, new_multiplier=1.0)
  (after,) = walk(config, 10**6, [parameters(3.0)])
  assert kernel(after, "head", "gaa") == pytest.approx(-2.0, abs=1e-5)


def test_momentum_and_weight_decay_are_those_of_torch():
  """v <- m v + (g + w p); p <- p - rate v."""
  config = config_of(momentum=0.9, weight_decay=0.1, learning_rate=0.01, new_multiplier=10.0)
  history = walk(config, 10, [parameters(g) for g in (1.0, -2.0, 0.5)])
  p, v = 1.0, 0.0
  for step, gradient in enumerate((1.0, -2.0, 0.5)):
    v = 0.9 * v + (gradient + 0.1 * p)
    p = p - 0.1 * (1 - step / 10) * v
    assert kernel(history[step], "head", "sides") == pytest.approx(p, rel=1e-5)


def test_weight_decay_of_adamw_is_decoupled():
  config = config_of(name="adamw", weight_decay=0.1, learning_rate=0.01, new_multiplier=1.0)
  (after,) = walk(config, 10**6, [parameters(5.0)], parameters(2.0))
  # The gradient's size does not matter: one rate for it, one for the decay.
  assert kernel(after, "head", "sides") == pytest.approx(2.0 - 0.01 * (1 + 0.1 * 2.0), abs=1e-6)


def test_every_parameter_of_the_real_trunks_has_a_group():
  from lgag_jax.trunks.pretrained import TRUNKS

  for name in ("efficientnet_lite0", "resnet50", "dinov2_vits14"):
    shapes = jax.eval_shape(TRUNKS[name]().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    model = ModelConfig(trunk=name, first_trainable_stage=2)
    config = dataclasses.replace(config_of(2), model=model)
    groups = jax.tree_util.tree_map_with_path(
      lambda path, _, config=config: optimizer.group(path, config), {"trunk": shapes}
    )["trunk"]
    found = {stage: set(jax.tree.leaves(groups[stage])) for stage in groups}
    assert found == {
      "stem": {"frozen"}, "stage1": {"frozen"}, "stage2": {"trunk"}, "stage3": {"trunk"},
      "stage4": {"trunk"},
    }

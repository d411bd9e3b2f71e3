"""Scores the pixels of windows: scales them, runs the network, and refines its maps."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.geo.scale import WindowPlan
from lgag_jax.imagery import scaling
from lgag_jax.inference.localize import gated, main_map_name, make_localize, plain_localize
from lgag_jax.method.network import Network
from lgag_jax.runtime import sharding
from lgag_jax.state import TrainState
from lgag_jax.trunks.layers import resize


def make_window_scores(network: Network, config: Config, mesh: Mesh, windows: WindowPlan) -> Callable:
  """Returns the compiled function from a state and windows to scores and image scores.

  It takes pixels [B, side, side, channels] as read. It returns scores f32[B, side, side, C], before the
  gate, and image scores f32[B, C].
  """
  localize = make_localize(network, _config_at_size(config, windows), mesh)
  split = sharding.batch_sharding(mesh)
  compiled = functools.partial(jax.jit, in_shardings=split, out_shardings=split)
  prepare = compiled(functools.partial(_prepare, windows=windows))
  finish = compiled(functools.partial(_finish, windows=windows))

  def window_scores(state: TrainState, pixels: np.ndarray) -> tuple[jax.Array, jax.Array]:
    scaled = scaling.normalise(pixels, config.data)
    maps = localize(state, {"image": prepare(sharding.to_global(scaled, mesh))})
    return finish(maps.scores[main_map_name(config)]), maps.probabilities

  return window_scores


def make_traceable_window_scores(network: Network, config: Config, windows: WindowPlan) -> Callable:
  """Returns the function for exporting: neither compiled nor split over devices, with gated scores."""
  localize = plain_localize(network, _config_at_size(config, windows))

  def window_scores(state: TrainState, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
    scaled = scaling.normalise(pixels, config.data)
    maps = localize(state, {"image": _prepare(scaled, windows)})
    return _finish(gated(maps, main_map_name(config), config), windows), maps.probabilities

  return window_scores


def _config_at_size(config: Config, windows: WindowPlan) -> Config:
  """Returns the config for inputs of this size; the refinement's radius is the same on the ground."""
  radius = config.refine.radius * config.data.image_size / windows.model_side
  return dataclasses.replace(
    config, data=dataclasses.replace(config.data, image_size=windows.model_side),
    refine=dataclasses.replace(config.refine, radius=radius),
  )


def _prepare(pixels: Any, windows: WindowPlan) -> jax.Array:
  side = windows.model_side
  return resize(pixels, (side, side), antialias=side < windows.side)


def _finish(scores: jax.Array, windows: WindowPlan) -> jax.Array:
  return resize(scores, (windows.side, windows.side), antialias=windows.side < windows.model_side)

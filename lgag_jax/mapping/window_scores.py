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
from lgag_jax.inference.localize import Maps, gated, main_map_name, plain_localize
from lgag_jax.method.network import Network
from lgag_jax.runtime import sharding
from lgag_jax.state import TrainState
from lgag_jax.trunks.layers import resize


@functools.lru_cache(maxsize=8)  # Compiled once, however often it is asked for.
def make_window_scores(network: Network, config: Config, mesh: Mesh, windows: WindowPlan) -> Callable:
  """Returns the compiled function from a state and windows to scores and image scores.

  It takes pixels [B, side, side, channels] as read. It returns scores f32[B, side, side, C], before the
  gate, and image scores f32[B, C]. Of the method's maps only the main one is computed.
  """
  split = sharding.batch_sharding(mesh)
  compute = jax.jit(
    _of_scaled(network, config, windows, lambda maps, name: maps.scores[name]),
    in_shardings=(None, split), out_shardings=split,
  )

  def window_scores(state: TrainState, pixels: np.ndarray) -> tuple[jax.Array, jax.Array]:
    return compute(state, sharding.to_global(scaling.normalise(pixels, config.data), mesh))

  return window_scores


def make_traceable_window_scores(network: Network, config: Config, windows: WindowPlan) -> Callable:
  """Returns the function for exporting: neither compiled nor split over devices, with gated scores."""
  compute = _of_scaled(network, config, windows, functools.partial(gated, config=config))
  return lambda state, pixels: compute(state, scaling.normalise(pixels, config.data))


def _of_scaled(
  network: Network, config: Config, windows: WindowPlan, choose: Callable[[Maps, str], jax.Array]
) -> Callable[[TrainState, Any], tuple[jax.Array, jax.Array]]:
  """Returns the function from scaled pixels to the main map's scores, as chosen, and image scores."""
  localize, name = plain_localize(network, _config_at_size(config, windows)), main_map_name(config)

  def scores(state: TrainState, scaled: Any) -> tuple[jax.Array, jax.Array]:
    maps = localize(state, {"image": _prepare(scaled, windows)})
    return _finish(choose(maps, name), windows), maps.probabilities

  return scores


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

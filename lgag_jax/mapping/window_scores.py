"""Scores the pixels of windows: scales them, runs the network, refines and gates its maps."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.geo.scale import View
from lgag_jax.imagery import scaling
from lgag_jax.inference.localize import Maps, gated, make_localize, map_of, plain_localize
from lgag_jax.method.network import Network
from lgag_jax.runtime import sharding
from lgag_jax.state import TrainState
from lgag_jax.trunks.layers import resize


def make_window_scores(network: Network, config: Config, mesh: Mesh, view: View) -> Callable:
  """Returns the compiled function from a state and windows to scores and image scores.

  It takes pixels [B, side, side, channels] as read. It returns gated scores f32[B, side, side, C] and
  image scores f32[B, C].
  """
  localize = make_localize(network, _config_at_view(config, view), mesh)
  split = sharding.batch_sharding(mesh)
  compiled = functools.partial(jax.jit, in_shardings=split, out_shardings=split)
  prepare = compiled(functools.partial(_prepare, view=view))
  finish = compiled(functools.partial(_finish, config=config, view=view))

  def window_scores(state: TrainState, pixels: np.ndarray) -> tuple[jax.Array, jax.Array]:
    scaled = scaling.normalise(pixels, config.data)
    maps = localize(state, {"image": prepare(sharding.to_global(scaled, mesh))})
    return finish(maps), maps.probabilities

  return window_scores


def make_traceable_window_scores(network: Network, config: Config, view: View) -> Callable:
  """Returns `make_window_scores`'s function neither compiled nor split over devices, for exporting."""
  localize = plain_localize(network, _config_at_view(config, view))

  def window_scores(state: TrainState, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
    scaled = scaling.normalise(pixels, config.data)
    maps = localize(state, {"image": _prepare(scaled, view)})
    return _finish(maps, config, view), maps.probabilities

  return window_scores


def _config_at_view(config: Config, view: View) -> Config:
  """Returns the config at a view's size; the refinement's radius keeps its length on the ground."""
  radius = config.refine.radius * config.data.image_size / view.model_side
  return dataclasses.replace(
    config, data=dataclasses.replace(config.data, image_size=view.model_side),
    refine=dataclasses.replace(config.refine, radius=radius),
  )


def _prepare(pixels: Any, view: View) -> jax.Array:
  return resize(pixels, (view.model_side, view.model_side), antialias=view.model_side < view.side)


def _finish(maps: Maps, config: Config, view: View) -> jax.Array:
  scores = gated(maps, map_of(config), config)
  return resize(scores, (view.side, view.side), antialias=view.side < view.model_side)

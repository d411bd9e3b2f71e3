"""From windows as read to what is said of their pixels: scaled, looked at, refined, gated."""

import dataclasses
import functools
from collections.abc import Callable

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


def make_look(network: Network, config: Config, mesh: Mesh, view: View) -> Callable:
  """Returns the function from a state and windows as read to gated scores at the windows' size."""
  localize, split = make_localize(network, _seen(config, view), mesh), sharding.batch_sharding(mesh)
  compiled = functools.partial(jax.jit, in_shardings=split, out_shardings=split)
  prepare = compiled(functools.partial(_prepare, view=view))
  finish = compiled(functools.partial(_finish, config=config, view=view))

  def look(state: TrainState, pixels: np.ndarray) -> tuple[jax.Array, jax.Array]:
    scaled = scaling.normalise(pixels, config.data)
    maps = localize(state, {"image": prepare(sharding.to_global(scaled, mesh))})
    return finish(maps), maps.probabilities

  return look


def plain_look(network: Network, config: Config, view: View) -> Callable:
  """Returns what `make_look` does as one function of JAX, neither compiled nor split over devices."""
  localize = plain_localize(network, _seen(config, view))

  def look(state: TrainState, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
    scaled = scaling.normalise(pixels, config.data)
    maps = localize(state, {"image": _prepare(scaled, view)})
    return _finish(maps, config, view), maps.probabilities

  return look


def _seen(config: Config, view: View) -> Config:
  """The config at a view's size; refinement's radius is on the ground, whatever the window's."""
  radius = config.refine.radius * config.data.image_size / view.model_side
  return dataclasses.replace(
    config, data=dataclasses.replace(config.data, image_size=view.model_side),
    refine=dataclasses.replace(config.refine, radius=radius),
  )


def _prepare(pixels: jax.Array, view: View) -> jax.Array:
  return resize(pixels, (view.model_side,) * 2, antialias=view.model_side < view.side)


def _finish(maps: Maps, config: Config, view: View) -> jax.Array:
  scores = gated(maps, map_of(config), config)
  return resize(scores, (view.side,) * 2, antialias=view.side < view.model_side)

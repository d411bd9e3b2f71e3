"""From images to score maps: a trained network's scores of each pixel, between 0 and 1."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from flax import struct
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.inference.refine import refine
from lgag_jax.method.network import Network, at_anchor_stride, full_precision
from lgag_jax.method.registry import method_of
from lgag_jax.runtime import sharding
from lgag_jax.state import TrainState
from lgag_jax.trunks.layers import resize


@struct.dataclass(kw_only=True)
class Maps:
  """Score maps of a batch before the gate, and the image scores."""

  probabilities: jax.Array  # f32[B, C], of the image holding each class.
  scores: dict[str, jax.Array]  # f32[B, H, W, C] each, by the names of the method's maps.
  seeds: jax.Array  # i32[B, h, w], SOL's class of each cell, at the first scale.


def gated(maps: Maps, name: str, config: Config) -> jax.Array:
  """Returns a score map; if the method is gated, zero for a class that the image scores deny."""
  if not method_of(config).gated:
    return maps.scores[name]
  present = maps.probabilities > config.localize.gate
  return maps.scores[name] * present[:, None, None, :]


def gate_of(config: Config) -> float:
  """Returns the image score that a class must exceed to be mapped; -1 if the method has no gate."""
  return config.localize.gate if method_of(config).gated else -1.0


def needs_images(config: Config) -> bool:
  """Whether maps are made with the images even where trunk outputs are stored."""
  return config.refine.method != "none" or method_of(config).takes_colour_evidence(config)


def map_names(config: Config) -> tuple[str, ...]:
  """Returns the names of the method's score maps, in the order in which it adds them."""
  return method_of(config).map_names()


def main_map_name(config: Config) -> str:
  """Returns the name of the map that is judged and drawn."""
  return method_of(config).main_map(config)


@functools.lru_cache(maxsize=8)  # Compiled once, however often it is asked for.
def make_localize(network: Network, config: Config, mesh: Mesh) -> Callable[[TrainState, dict], Maps]:
  """Returns the jitted function from a state and a global batch to Maps at the images' size.

  Score maps are averaged over `localize.scales`, then refined by the image. A batch with "taps" is used
  as it is, at one scale; "image" is needed without, and to refine.
  """
  # The state comes as it is laid out, whole or split; maps stay with the process that has the image.
  split = sharding.batch_sharding(mesh)
  return jax.jit(plain_localize(network, config), in_shardings=(None, split), out_shardings=split)


def plain_localize(network: Network, config: Config) -> Callable[[TrainState, dict], Maps]:
  """Returns the function that `make_localize` compiles.

  Of the bank it reads only the global anchors.
  """
  side = config.data.image_size
  network = at_anchor_stride(network, config.localize.anchor_stride)
  maps = network.method.maps

  @full_precision
  def localize(state: TrainState, batch: dict) -> Maps:
    views = []
    for frozen in _frozen_at_scales(network, state, batch, config):
      outputs = network(state.params, state.statistics, frozen, state.bank)
      scores = {
        map_.name: resize(map_.scores(outputs, config), (side, side), antialias=False)
        for map_ in maps
      }
      views.append((outputs.seeds, jax.nn.sigmoid(outputs.scores), scores))
    probabilities, scores = jax.tree.map(lambda *x: sum(x) / len(x), *(view[1:] for view in views))
    if needs_images(config):
      after = batch["image"][..., : config.data.channels]  # Of pairs, whose outlines are sought.
      if network.bands:  # Others, such as the slope of a coarse DEM, have other outlines.
        after = after[..., np.array(network.bands) - 1]
      scores = {name: refine(x, after, config.refine) for name, x in scores.items()}
    if (evidence := network.evidence) is not None:
      scores = {name: evidence(x, batch["image"]) for name, x in scores.items()}
      probabilities = evidence.image_probabilities(probabilities, batch["image"])
    return Maps(probabilities=probabilities, scores=scores, seeds=views[0][0])

  return localize


def inputs_of(batch: dict, config: Config) -> dict:
  """Returns the parts of a pipeline's batch that `make_localize`'s function takes."""
  names = ("taps", "image") if needs_images(config) or "taps" not in batch else ("taps",)
  return {name: batch[name] for name in names if name in batch}


def _frozen_at_scales(network: Network, state: TrainState, batch: dict, config: Config) -> list:
  if "taps" in batch:
    return [batch["taps"]]
  results = []
  for scale in config.localize.scales:
    # Trunks halve the size five times: a side must be a multiple of 32.
    side = max(32, round(config.data.image_size * scale / 32) * 32)
    image = batch["image"]
    if scale != 1.0:  # The training size stays as it is.
      image = resize(image, (side, side), antialias=scale < 1)
    results.append(network.frozen(state.params, state.statistics, image))
  return results

"""From images to score maps: what a trained network says of each pixel, between 0 and 1."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.inference.refine import refine
from lgag_jax.method import network as networks
from lgag_jax.method.head import Outputs
from lgag_jax.method.network import Network
from lgag_jax.runtime import sharding
from lgag_jax.state import TrainState
from lgag_jax.trunks.layers import resize, turned, turned_back

# Numbers of `layers.turned`.
_TURNS = {"none": (0,), "flip": (0, 4), "all": tuple(range(8))}


@struct.dataclass(kw_only=True)
class Maps:
  """Score maps of a batch before the gate, and which classes the image scores find."""

  probabilities: jax.Array  # f32[B, C], of the image holding each class.
  scores: dict[str, jax.Array]  # f32[B, H, W, C] each, by the names of `maps_of`.
  seeds: jax.Array  # i32[B, h, w], SOL's class of each cell, of the first view.


def gated(maps: Maps, name: str, config: Config) -> jax.Array:
  """Returns a score map, zero throughout for a class that the image scores deny.

  A segmentation has learned from masks what an image without the class looks like: it needs no gate.
  """
  if config.model.method == "segmentation":
    return maps.scores[name]
  present = maps.probabilities > config.localize.gate
  return maps.scores[name] * present[:, None, None, :]


def several_scales(config: Config) -> bool:
  """Whether maps are averaged over scales, which kept trunk outputs cannot serve."""
  return config.localize.scales != (1.0,)


def needs_images(config: Config) -> bool:
  """Whether maps are made with the images even where trunk outputs are kept."""
  return config.refine.method != "none"


def maps_of(config: Config) -> tuple[str, ...]:
  """Names the method's score maps in the order that it adds them."""
  if config.model.method == "segmentation":
    return ("segmentation",)
  return ("class_activation", "anchor_guided") if has_anchors(config) else ("class_activation",)


def map_of(config: Config) -> str:
  """Names the map that the method is about: the last one it adds, unless told otherwise."""
  names = maps_of(config)
  return config.localize.map if config.localize.map in names else names[-1]


def has_anchors(config: Config) -> bool:
  """Whether the method has an anchor-guided map of its own."""
  return config.model.method in ("sol", "lgag")


@functools.lru_cache(maxsize=8)  # Compiled once, however often it is asked for.
def make_localize(
  network: Network, config: Config, mesh: Mesh
) -> Callable[[TrainState, dict], Maps]:
  """Returns the jitted function from a state and a global batch to Maps at the images' size.

  Score maps are averaged over `localize.scales` and `localize.turns`, then refined by the image. A
  batch with "taps" is used as it is, at one scale; "image" is needed without, and to refine.
  """
  # The state comes as it is laid out, whole or split; maps stay with the process that has the image.
  split = sharding.batch_sharding(mesh)
  return jax.jit(plain_localize(network, config), in_shardings=(None, split), out_shardings=split)


def plain_localize(network: Network, config: Config) -> Callable[[TrainState, dict], Maps]:
  """Returns what `make_localize` compiles. Of the bank it reads the global anchors alone."""
  side = config.data.image_size
  network = networks.at_anchor_stride(network, config.localize.anchor_stride)

  @networks.full_precision
  def localize(state: TrainState, batch: dict) -> Maps:
    views = []
    for frozen in _frozen_at_scales(network, state, batch, config):
      for number in _TURNS[config.localize.turns]:
        view = jax.tree.map(lambda x, n=number: turned(x, n), frozen)
        outputs = network(state.params, state.statistics, view, state.bank)
        views.append((outputs, *_maps(outputs, config, side, number)))
    seeds = views[0][0].seeds
    probabilities, scores = jax.tree.map(lambda *x: sum(x) / len(x), *(view[1:] for view in views))
    if needs_images(config):
      scores = {name: refine(x, batch["image"], config.refine) for name, x in scores.items()}
    return Maps(probabilities=probabilities, scores=scores, seeds=seeds)

  return localize


def inputs_of(batch: dict, config: Config) -> dict:
  """Returns what `make_localize`'s function takes of a pipeline's batch."""
  wanted = ("taps", "image") if needs_images(config) or "taps" not in batch else ("taps",)
  return {name: batch[name] for name in wanted if name in batch}


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


def _maps(outputs: Outputs, config: Config, side: int, number: int) -> tuple[jax.Array, dict]:
  """Probabilities and the score maps of one view, turned back, at the full size."""
  normalised = config.localize.class_activation == "normalised"
  activation = outputs.activation[..., 1:] if normalised else jax.nn.sigmoid(outputs.logits)
  found = [activation, guided_scores(outputs, config)] if has_anchors(config) else [activation]
  scores = {
    name: turned_back(resize(x, (side, side), antialias=False), number)
    for name, x in zip(maps_of(config), found, strict=True)
  }
  return jax.nn.sigmoid(outputs.scores), scores


def guided_scores(outputs: Outputs, config: Config) -> jax.Array:
  """Compares each class's guided activation with the background's: 0.5 is a draw.

  A cosine is high over most of any image, since features share a direction: on its own the
  foreground's map is no score.
  """
  guided = outputs.guided
  if config.localize.compare == "softmax":
    score = jax.nn.softmax(guided, axis=-1)[..., 1:]
  else:
    score = (guided[..., 1:] - guided[..., :1] + 1.0) / 2.0
  share = config.localize.blend
  if share == 0.0:
    return score
  # The class activation has learned from every image, the anchors know this one: they err apart.
  activation = resize(jax.nn.sigmoid(outputs.logits), score.shape[1:3], antialias=False)
  if config.model.method == "lgag" and config.loss.auxiliary_weight > 0:
    activation = jnp.sqrt(activation * jax.nn.sigmoid(outputs.fused_logits))
  return score ** (1.0 - share) * activation ** share

"""From images to score maps: what a trained network says of each pixel, between 0 and 1."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh

from lgag_jax import partition
from lgag_jax.config import Config
from lgag_jax.models import network as networks
from lgag_jax.models.layers import resize
from lgag_jax.models.lgagnet import Outputs
from lgag_jax.models.network import Network
from lgag_jax.state import TrainState

MAPS = ("class_activation", "anchor_guided")


@struct.dataclass(kw_only=True)
class Maps:
  """Score maps of a batch before the gate, and which classes the image scores find."""

  probabilities: jax.Array  # f32[B, C], of the image holding each class.
  class_activation: jax.Array  # f32[B, H, W, C].
  anchor_guided: jax.Array  # f32[B, H, W, C]; without SOL it repeats class_activation.
  seeds: jax.Array  # i32[B, h, w], SOL's class of each cell, of the first view.


def gated(maps: Maps, name: str, config: Config) -> jax.Array:
  """Returns a score map, zero throughout for a class that the image scores deny."""
  present = maps.probabilities > config.localize.gate
  return getattr(maps, name) * present[:, None, None, :]


def several_views(config: Config) -> bool:
  """Whether maps are averaged over scales or flips, which kept trunk outputs cannot serve."""
  return config.localize.flip or config.localize.scales != (1.0,)


def map_of(config: Config) -> str:
  """Names the map that the method is about: the last one it adds."""
  if config.localize.map != "best":
    return config.localize.map
  return "anchor_guided" if has_anchors(config) else "class_activation"


def has_anchors(config: Config) -> bool:
  """Whether the method has an anchor-guided map of its own."""
  return config.model.method in ("sol", "lgag")


@functools.lru_cache(maxsize=8)  # Compiled once, however often it is asked for.
def make_localize(
  network: Network, config: Config, mesh: Mesh
) -> Callable[[TrainState, dict], Maps]:
  """Returns the jitted function from a state and a global batch to Maps at the images' size.

  A batch with "taps" is used as it is; one with "image" at all of `localize.scales`, and mirrored
  when `localize.flip` is set; the views' score maps are averaged.
  """
  side = config.data.image_size
  network = networks.at_anchor_stride(network, config.localize.anchor_stride)

  @networks.full_precision
  def localize(state: TrainState, batch: dict) -> Maps:
    views = [state_outputs(view, state) for view in _views(batch, config)]
    scores = [_maps(outputs, config, side, mirrored) for outputs, mirrored in views]
    probabilities, activation, guided = jax.tree.map(lambda *x: sum(x) / len(x), *scores)
    return Maps(
      probabilities=probabilities, class_activation=activation, anchor_guided=guided,
      seeds=views[0][0].seeds,
    )

  def state_outputs(view, state):
    batch, mirrored = view
    if "taps" in batch:
      frozen = batch["taps"]
    else:
      frozen = network.frozen(state.params, state.statistics, batch["image"])
    return network(state.params, state.statistics, frozen, state.bank), mirrored

  # The state comes as it is laid out, whole or split; maps stay with the process that has the image.
  split = partition.by_example(mesh)
  return jax.jit(localize, in_shardings=(None, split), out_shardings=split)


def _views(batch: dict, config: Config) -> list[tuple[dict, bool]]:
  if "taps" in batch:
    return [({"taps": batch["taps"]}, False)]
  views = []
  for scale in config.localize.scales:
    # Trunks halve the size five times: a side must be a multiple of 32.
    side = max(32, round(config.data.image_size * scale / 32) * 32)
    image = batch["image"]
    if scale != 1.0:  # The training size stays as it is.
      image = resize(image, (side, side), antialias=scale < 1)
    views.append(({"image": image}, False))
    if config.localize.flip:
      views.append(({"image": jnp.flip(image, 2)}, True))
  return views


def _maps(outputs: Outputs, config: Config, side: int, mirrored: bool) -> tuple:
  """Probabilities and the two score maps of one view, at the full size."""
  probabilities = jax.nn.sigmoid(outputs.scores)
  if config.localize.class_activation == "probability":
    activation = jax.nn.sigmoid(outputs.logits)
  else:
    activation = outputs.activation[..., 1:]
  guided = guided_scores(outputs, config) if has_anchors(config) else activation
  pair = [resize(x, (side, side), antialias=False) for x in (activation, guided)]
  if mirrored:
    pair = [jnp.flip(x, 2) for x in pair]
  return (probabilities, *pair)


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

"""SOL, structure-aware object locating: from a class map to seeds and local category anchors.

`dtype` is that of the matrix products; everything else is f32. The structure, each cell's similarity to
every other, is an N x N matrix per image. Only a block of its rows is in memory at a time, so memory
grows with N.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from lgag_jax.config import Config
from lgag_jax.method.memory_bank import to_unit_length
from lgag_jax.trunks.layers import dense, product, resize


def tap_features(config: Config) -> nn.Module:
  """Builds the default anchor features: the taps as they are."""
  return TapFeatures(config.model.anchor_taps, config.model.epsilon)


def side_projections(config: Config) -> nn.Module:
  """Builds the published anchor features: projections of all four taps."""
  model = config.model
  return SideProjections(model.side_widths, model.epsilon, jnp.dtype(model.precision), name="sides")


class TapFeatures(nn.Module):
  """Taps of unit length per cell, resized to one grid and concatenated: g, without parameters."""

  numbers: tuple[int, ...]  # From 1.
  epsilon: float

  @nn.compact
  def __call__(self, taps: tuple[Array, ...], size: tuple[int, int]) -> Float[Array, "B h w D"]:
    chosen = [taps[number - 1].astype(jnp.float32) for number in self.numbers]
    return jnp.concatenate(
      [to_unit_length(resize(tap, size, antialias=True), self.epsilon) for tap in chosen], axis=-1
    )


class SideProjections(nn.Module):
  """1x1 projections of the taps, of unit length per cell, resized to one grid and concatenated: g."""

  widths: tuple[int, ...]
  epsilon: float
  dtype: DTypeLike

  @nn.compact
  def __call__(self, taps: tuple[Array, ...], size: tuple[int, int]) -> Float[Array, "B h w D"]:
    sides = []
    for i, (tap, width) in enumerate(zip(taps, self.widths, strict=True), start=1):
      tap, merge = _cells_read_by_resize(tap, size)
      side = dense(nn.Dense(width, use_bias=False, dtype=self.dtype, name=f"side{i}"), tap)
      sides.append(merge(to_unit_length(side.astype(jnp.float32), self.epsilon)))
    return jnp.concatenate(sides, axis=-1)


def _cells_read_by_resize(x: Float[Array, "B a b E"], size: tuple[int, int]) -> tuple[Array, Callable]:
  """Returns the cells of x that a bilinear resize to `size` reads, and the rest of the resize.

  If x shrinks by an even factor without antialiasing, each new cell is the mean of the central four of
  the cells that it covers. The others need not be projected.
  """
  batch, rows, cols, width = x.shape
  factor = rows // size[0]
  if rows <= size[0] or factor % 2 or (factor * size[0], factor * size[1]) != (rows, cols):
    return x, lambda y: resize(y, size, antialias=False)
  middle = slice(factor // 2 - 1, factor // 2 + 1)
  blocks = x.reshape(batch, size[0], factor, size[1], factor, width)
  return blocks[:, :, middle, :, middle], lambda y: jnp.mean(y, axis=(2, 4))


def locate(
  structure: Float[Array, "B i j E"], activation: Float[Array, "B i j K"], present: Bool[Array, "B K"],
  g: Float[Array, "B h w D"], config: Config,
) -> Float[Array, "B h w K"]:
  """Returns one-hot seeds on the grid of g: SOL's, less those that `drop_spilled_seeds` drops."""
  # Seeds are an argmax, which no gradient passes: none is computed.
  structure, activation = jax.lax.stop_gradient((structure, activation))
  structure = resize(structure, activation.shape[1:3], antialias=False)
  batch, height, width, classes = activation.shape
  dtype = jnp.dtype(config.model.precision)
  overlaps = overlap(
    structure.astype(jnp.float32).reshape(batch, height * width, -1),
    activation.reshape(batch, height * width, classes),
    block_rows=config.sol.block_rows, epsilon=config.model.epsilon, dtype=dtype,
  )
  classes_of_cells = seeds(overlaps, present, background_factor=config.sol.background_factor)
  one_hot = jax.nn.one_hot(classes_of_cells, classes).reshape(activation.shape)
  one_hot = jax.image.resize(one_hot, (batch, *g.shape[1:3], classes), "nearest")
  kept = drop_spilled_seeds(
    g.reshape(batch, -1, g.shape[-1]), one_hot.reshape(batch, -1, classes),
    rounds=config.sol.rounds, dtype=dtype,
  )
  return kept.reshape(one_hot.shape)


def class_maps(
  logits: Float[Array, "B h w C"], labels: Float[Array, "B C"], *, epsilon: float
) -> Float[Array, "B h w K"]:
  """Returns M: the background's map and each class's activation, divided by its maximum.

  M^k = relu(c^k) / max over space, M^0 = 1 - max over k; classes that the label denies are zero.
  """
  positive = jax.nn.relu(logits)
  maps = positive / (jnp.max(positive, axis=(1, 2), keepdims=True) + epsilon)
  maps = maps * labels[:, None, None, :]
  background = 1.0 - jnp.max(maps, axis=-1, keepdims=True)
  return jnp.concatenate([background, maps], axis=-1)


def overlap(
  features: Float[Array, "B N E"],
  maps: Float[Array, "B N K"],
  *,
  block_rows: int,
  epsilon: float,
  dtype: DTypeLike = jnp.float32,
) -> Float[Array, "B N K"]:
  """Returns A, the intersection over union of each cell's structure row with each class map.

  S_ij = relu(cosine of features i and j); I_i = sum_j S_ij M_j; U_i = sum_j S_ij + sum_j M_j - I_i.
  `block_rows` changes memory, not the result: a block is computed again in the backward pass.
  """
  # relu(f_i . f_j) / |f_i| / |f_j| is the structure: lengths divide sums over j, not N x N values.
  scale = jax.lax.rsqrt(jnp.sum(jnp.square(features), axis=-1, keepdims=True) + epsilon**2)
  weights = jnp.concatenate([maps, jnp.ones_like(scale)], axis=-1) * scale  # B N K+1
  sums = _structure_sums(features, weights, block_rows, dtype) * scale
  intersection, structure_area = sums[..., :-1], sums[..., -1:]
  map_area = jnp.sum(maps, axis=1, keepdims=True)
  return intersection / (structure_area + map_area - intersection + epsilon)


def _structure_sums(
  features: Float[Array, "B N E"], weights: Float[Array, "B N J"], block_rows: int, dtype: DTypeLike
) -> Float[Array, "B N J"]:
  """Returns sum over j of relu(f_i . f_j) w_j, a block of rows i at a time."""
  batch, count, width = features.shape

  @jax.checkpoint
  def block_sums(rows):
    products = product("bie,bje->bij", rows, features, dtype)
    return product("bij,bjk->bik", jax.nn.relu(products), weights, dtype)

  blocks = -(-count // block_rows)
  if blocks == 1:
    return block_sums(features)
  padded = jnp.pad(features, ((0, 0), (0, blocks * block_rows - count), (0, 0)))
  rows = jnp.moveaxis(padded.reshape(batch, blocks, block_rows, width), 1, 0)
  sums = jax.lax.map(block_sums, rows)  # blocks B rows J
  return jnp.moveaxis(sums, 0, 1).reshape(batch, -1, weights.shape[-1])[:, :count]


def seeds(
  overlaps: Float[Array, "B N K"], present: Bool[Array, "B K"], *, background_factor: float
) -> Int[Array, "B N"]:
  """Returns each cell's class: the largest overlap among the classes present."""
  factor = jnp.ones(overlaps.shape[-1]).at[0].set(background_factor)
  return jnp.argmax(jnp.where(present[:, None, :], overlaps * factor, -1.0), axis=-1)


def local_anchors(
  features: Float[Array, "B N D"],
  weights: Float[Array, "B N K"],
  *,
  dtype: DTypeLike = jnp.float32,
) -> Float[Array, "B K D"]:
  """Returns the mean of the features per class, weighted; zero for a class without weight.

  With one-hot seeds as weights these are the local category anchors. SIPE divides by N instead: a
  cosine does not change by that, but a memory bank and k-means would.
  """
  total = jnp.sum(weights, axis=1)[..., None]  # B K 1
  safe = jnp.where(total > 0, total, 1.0)
  return product("bnk,bnd->bkd", weights, features, dtype) / safe


def drop_spilled_seeds(
  features: Float[Array, "B N D"],
  weights: Float[Array, "B N K"],
  *,
  rounds: int,
  dtype: DTypeLike = jnp.float32,
) -> Float[Array, "B N K"]:
  """Drops seeds that are closer to the background's anchor than to their own, `rounds` times.

  Deep features have a wide receptive field, so the first seeds spill over a landslide's edge. Anchors
  of features with a smaller one divide the first seeds again, as Lloyd's algorithm would. No gradient
  passes.
  """
  if not rounds:
    return weights
  features, weights = jax.lax.stop_gradient((to_unit_length(features), weights))
  foreground = weights[..., 1:]
  for _ in range(rounds):
    anchors = to_unit_length(local_anchors(features, weights, dtype=dtype))
    similarity = product("bnd,bkd->bnk", features, anchors, dtype)
    kept = foreground * (similarity[..., 1:] > similarity[..., :1])
    background = 1.0 - jnp.sum(kept, axis=-1, keepdims=True)
    weights = jnp.concatenate([background, kept], axis=-1)
  return weights


def cosine_guide(
  cells: Float[Array, "B N D"], weights: Float[Array, "B N K"], config: Config
) -> Float[Array, "B N K"]:
  """Returns the cosine of each cell with the local anchors of the same cells."""
  dtype = jnp.dtype(config.model.precision)
  return cosine_maps(cells, local_anchors(cells, weights, dtype=dtype), dtype=dtype)


def cosine_maps(
  features: Float[Array, "B N D"],
  anchors: Float[Array, "B K D"],
  *,
  dtype: DTypeLike = jnp.float32,
) -> Float[Array, "B N K"]:
  """Returns R = relu(cosine of each cell with each anchor) (the anchor-guided activation)."""
  return jax.nn.relu(product("bnd,bkd->bnk", to_unit_length(features), to_unit_length(anchors), dtype))

"""SOL, structure-aware object locating: from a class map to seeds and local category anchors.

Pure functions; `dtype` is that of the matrix products, everything else is f32. The structure, every
cell's similarity to every other, is N x N an image; it is only ever held a block of rows at a time,
so memory grows with N.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lgag_jax.method.memory_bank import unit
from lgag_jax.trunks.layers import product


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
  dtype: jnp.dtype = jnp.float32,
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
  features: Float[Array, "B N E"], weights: Float[Array, "B N J"], block_rows: int, dtype: jnp.dtype
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
  dtype: jnp.dtype = jnp.float32,
) -> Float[Array, "B K D"]:
  """Returns the weighted mean of features a class; zero for a class without weight.

  With one-hot seeds as weights these are the local category anchors. SIPE divides by N instead,
  which a cosine does not notice but a memory bank and k-means would.
  """
  total = jnp.sum(weights, axis=1)[..., None]  # B K 1
  # A weight below one only occurs with weighted seeds; there the plain mean needs the true sum.
  safe = jnp.where(total > 0, total, 1.0)
  return product("bnk,bnd->bkd", weights, features, dtype) / safe


def reseed(
  features: Float[Array, "B N D"],
  weights: Float[Array, "B N K"],
  *,
  rounds: int,
  dtype: jnp.dtype = jnp.float32,
) -> Float[Array, "B N K"]:
  """Returns one-hot seeds without those that lie closer to the background's anchor than their own.

  Deep features see far, so first seeds spill over a landslide's edge; anchors of features that see
  less part the cells again, as Lloyd's algorithm does, within the first seeds. No gradient passes.
  """
  if not rounds:
    return weights
  features, weights = jax.lax.stop_gradient((unit(features), weights))
  first = weights[..., 1:]
  for _ in range(rounds):
    anchors = unit(local_anchors(features, weights, dtype=dtype))
    similarity = product("bnd,bkd->bnk", features, anchors, dtype)
    kept = first * (similarity[..., 1:] > similarity[..., :1])
    background = 1.0 - jnp.sum(kept, axis=-1, keepdims=True)
    weights = jnp.concatenate([background, kept], axis=-1)
  return weights


def cosine_maps(
  features: Float[Array, "B N D"],
  anchors: Float[Array, "B K D"],
  *,
  dtype: jnp.dtype = jnp.float32,
) -> Float[Array, "B N K"]:
  """Returns R = relu(cosine of each cell with each anchor) (the anchor-guided activation)."""
  return jax.nn.relu(product("bnd,bkd->bnk", unit(features), unit(anchors), dtype))

"""LGAGNet's head: from a trunk's taps to class activation, seeds, anchors and guided activation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float

from lgag_jax.config import GaaConfig, ModelConfig, SolConfig
from lgag_jax.method import sol
from lgag_jax.method.classifiers import Decoder, TapClassifier
from lgag_jax.method.gaa import GlobalAnchorAggregation
from lgag_jax.method.memory_bank import unit
from lgag_jax.state import MemoryBank
from lgag_jax.trunks.layers import dense, product, resize


@struct.dataclass(kw_only=True)
class Outputs:
  """What the head makes of a batch. Without SOL, `guided` is `activation` and no anchor exists."""

  scores: jax.Array  # f32[B, C], image scores s (logits).
  logits: jax.Array  # f32[B, h, w, C], class activation c before any normalisation.
  activation: jax.Array  # f32[B, h, w, K], M.
  # On the grid of the anchors, which may be finer:
  seeds: jax.Array  # i32[B, h, w], SOL's class of each cell.
  anchors: jax.Array  # f32[B, K, D], local category anchors a.
  exists: jax.Array  # bool[B, K], e: class present and seeded.
  guided: jax.Array  # f32[B, h, w, K], R^.
  fused_logits: jax.Array  # f32[B, h, w, C], class activation of the fused features g'.


class SideProjections(nn.Module):
  """Four 1x1 projections of the taps, unit length a cell, on one grid, concatenated: g."""

  widths: tuple[int, ...]
  epsilon: float
  stop_gradient: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, taps: tuple[Array, ...], size: tuple[int, int]) -> Float[Array, "B h w D"]:
    sides = []
    for i, (tap, width) in enumerate(zip(taps, self.widths, strict=True), start=1):
      tap = jax.lax.stop_gradient(tap) if self.stop_gradient else tap
      tap, merge = _sampled(tap, size)
      layer = nn.Dense(width, use_bias=False, dtype=self.dtype, name=f"side{i}")
      side = dense(layer, tap)
      sides.append(merge(unit(side.astype(jnp.float32), self.epsilon)))
    return jnp.concatenate(sides, axis=-1)


def _sampled(x: Float[Array, "B a b E"], size: tuple[int, int]) -> tuple[Array, Callable]:
  """Returns the cells of x that a bilinear resize to `size` reads, and the rest of the resize.

  Shrunk by an even factor without antialiasing, each new cell is the mean of the central four of
  the cells it covers: the others need not be projected.
  """
  batch, rows, cols, width = x.shape
  factor = rows // size[0]
  if rows <= size[0] or factor % 2 or (factor * size[0], factor * size[1]) != (rows, cols):
    return x, lambda y: resize(y, size, antialias=False)
  middle = slice(factor // 2 - 1, factor // 2 + 1)
  blocks = x.reshape(batch, size[0], factor, size[1], factor, width)
  return blocks[:, :, middle, :, middle], lambda y: jnp.mean(y, axis=(2, 4))


class LGAGHead(nn.Module):
  """Everything after the trunk."""

  classes: int  # C.
  model: ModelConfig
  sol: SolConfig
  gaa: GaaConfig
  anchor_stride: int  # Of the grid of g, anchors and guided maps; no parameter depends on it.
  gate: float  # Without labels a class counts as present when sigmoid(score) exceeds this.

  @nn.compact
  def __call__(
    self,
    taps: tuple[Array, ...],
    bank: MemoryBank,
    labels: Float[Array, "B C"] | None = None,
  ) -> Outputs:
    """Computes all maps; `labels` None is inference, where the scores decide which classes exist."""
    logits, head_features = self._classify(taps)
    scores = pool(logits, self.model)
    if labels is None:
      labels = (jax.nn.sigmoid(scores) > self.gate).astype(jnp.float32)
    activation = sol.class_maps(logits, labels, epsilon=self.model.epsilon)
    if self.model.method in ("class_activation", "segmentation"):
      return self._without_anchors(scores, logits, activation, bank.centres.shape[-1])

    g = self._anchor_features(taps)  # B h w D
    grid, batch = g.shape[1:3], g.shape[0]
    g = g.reshape(batch, -1, g.shape[-1])
    sources = {"x4": taps[-1], "g": g.reshape(batch, *grid, -1), "head": head_features}
    seeds = self._seeds(sources[self.sol.seed_features], activation, labels, grid)  # B h w K
    weights = seeds.reshape(batch, -1, seeds.shape[-1])
    weights = sol.reseed(g, weights, rounds=self.sol.rounds, dtype=self._dtype())
    fused = g
    if self.model.method == "lgag" and self.gaa.attention:
      fused = GlobalAnchorAggregation(
        self.gaa.heads, self.gaa.fusion, self.gaa.normalise, self._dtype(), name="gaa"
      )(g, bank.centres.reshape(-1, g.shape[-1]), bank.ready)
    present = _with_background(labels) > 0
    guided = self._guide(fused, weights, bank, grid) * present[:, None, None, :]
    return Outputs(
      scores=scores, logits=logits, activation=activation,
      seeds=jnp.argmax(weights, axis=-1).reshape(batch, *grid),
      anchors=sol.local_anchors(g, weights, dtype=self._dtype()),
      exists=present & jnp.any(weights > 0, axis=1),
      guided=guided, fused_logits=self._fused_logits(fused, grid, logits),
    )

  def _dtype(self) -> jnp.dtype:
    return jnp.dtype(self.model.precision)

  def _classify(self, taps: tuple[Array, ...]):
    """Returns the class activation [B, h, w, C] and the features under it."""
    last = taps[-1]
    if self.model.classifier == "head":
      scale = 16 // self.model.grid_stride
      size = (last.shape[1] * scale, last.shape[2] * scale)
      return TapClassifier(
        self.classes, self.model.head_width, self.model.epsilon, self._dtype(), name="classifier"
      )(taps, size)
    if self.model.classifier == "decoder":
      return Decoder(
        self.classes, self.model.decoder_widths, self.model.epsilon, self._dtype(), name="decoder"
      )(taps)
    layer = nn.Dense(self.classes, use_bias=False, dtype=self._dtype(), name="classifier")
    logits = dense(layer, last)
    return logits.astype(jnp.float32), last

  def _anchor_features(self, taps: tuple[Array, ...]) -> Float[Array, "B h w D"]:
    scale = 16 // self.anchor_stride
    size = (taps[-1].shape[1] * scale, taps[-1].shape[2] * scale)
    if self.model.anchor_features == "sides":
      return SideProjections(
        self.model.side_widths, self.model.epsilon, self.model.stop_gradient_sides, self._dtype(),
        name="sides",
      )(taps, size)
    chosen = [taps[number - 1].astype(jnp.float32) for number in self.model.anchor_taps]
    resized = [unit(resize(tap, size, antialias=True), self.model.epsilon) for tap in chosen]
    features = jnp.concatenate(resized, axis=-1)
    return jax.lax.stop_gradient(features) if self.model.stop_gradient_sides else features

  def _without_anchors(self, scores, logits, activation, dimension: int) -> Outputs:
    batch, classes = activation.shape[0], activation.shape[-1]
    return Outputs(
      scores=scores, logits=logits, activation=activation,
      seeds=jnp.argmax(activation, axis=-1), anchors=jnp.zeros((batch, classes, dimension)),
      exists=jnp.zeros((batch, classes), bool), guided=activation, fused_logits=logits,
    )

  def _seeds(self, structure, activation, labels, grid) -> Float[Array, "B h w K"]:
    """Returns the cells' weights in the local anchors: one-hot seeds, or overlaps."""
    if self.sol.seeding == "argmax":
      # Seeds are an argmax: no gradient passes, so none is computed.
      structure, activation = jax.lax.stop_gradient((structure, activation))
    structure = resize(structure, activation.shape[1:3], antialias=False)
    batch, height, width, classes = activation.shape
    overlaps = sol.overlap(
      structure.astype(jnp.float32).reshape(batch, height * width, -1),
      activation.reshape(batch, height * width, classes),
      block_rows=self.sol.block_rows, epsilon=self.model.epsilon, dtype=self._dtype(),
    )
    present = _with_background(labels) > 0
    if self.sol.seeding == "argmax":
      seeds = sol.seeds(overlaps, present, background_factor=self.sol.background_factor)
      weights = jax.nn.one_hot(seeds, classes)
    else:
      weights = overlaps * present[:, None]
    weights = weights.reshape(activation.shape)
    return jax.image.resize(weights, (batch, *grid, classes), "nearest")

  def _guide(self, fused, weights, bank: MemoryBank, grid) -> Float[Array, "B h w K"]:
    """The anchor-guided activation, R^ = R / max over space."""
    batch, classes = weights.shape[0], weights.shape[-1]
    if self.gaa.activation_head == "conv":
      cells = fused.reshape(batch, *grid, -1)
      width, dtype = self.gaa.activation_head_width, self._dtype()
      hidden = nn.relu(nn.Conv(width, (3, 3), dtype=dtype, name="guide_conv")(cells))
      maps = dense(nn.Dense(classes, dtype=dtype, name="guide_logits"), hidden)
      maps = nn.relu(maps.astype(jnp.float32)).reshape(batch, -1, classes)
    else:
      anchors = sol.local_anchors(fused, weights, dtype=self._dtype())
      maps = sol.cosine_maps(fused, anchors, dtype=self._dtype())
      if self.model.method == "lgag" and self.gaa.global_activation > 0:
        share = jnp.where(bank.ready, self.gaa.global_activation, 0.0)
        maps = (1.0 - share) * maps + share * global_maps(fused, bank, dtype=self._dtype())
    maps = maps / (jnp.max(maps, axis=1, keepdims=True) + self.model.epsilon)
    return maps.reshape(batch, *grid, classes)

  def _fused_logits(self, fused, grid, logits) -> Float[Array, "B h w C"]:
    if self.model.method != "lgag":
      return logits
    # Unlike the linear classifier of the trunk's last tap it meets unit vectors: it needs a bias.
    layer = nn.Dense(self.classes, dtype=self._dtype(), name="fused_classifier")
    return dense(layer, fused).astype(jnp.float32).reshape(fused.shape[0], *grid, self.classes)


def _with_background(labels: Float[Array, "B C"]) -> Float[Array, "B K"]:
  """The background is present in every image."""
  return jnp.concatenate([jnp.ones_like(labels[:, :1]), labels], axis=-1)


def global_maps(
  fused: Float[Array, "B N D"], bank: MemoryBank, *, dtype: jnp.dtype = jnp.float32
) -> Float[Array, "B N K"]:
  """Activation against the data set's anchors: the best cosine over each class's centres."""
  similarity = product("bnd,kmd->bnkm", unit(fused), unit(bank.centres), dtype)
  return jax.nn.relu(jnp.max(similarity, axis=-1))


def pool(logits: Float[Array, "B h w C"], model: ModelConfig) -> Float[Array, "B C"]:
  """Image scores: the mean over space, or over each class's highest share of cells."""
  if model.pooling == "average":
    return jnp.mean(logits, axis=(1, 2))
  flat = logits.reshape(logits.shape[0], -1, logits.shape[-1])
  count = max(1, round(model.top_fraction * flat.shape[1]))
  # Not top_k, which would gather the batch from all devices; a sort stays with each.
  return jnp.mean(jnp.sort(flat, axis=1)[:, -count:], axis=1)

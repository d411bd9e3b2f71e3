"""The hybrid loss: one pure function per term, and the terms as methods list them.

Every term returns one number per image, and the loss is their mean over the batch. So a batch may be
split over devices or processed in parts, and the sum stays the same.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Integer

from lgag_jax.config import Config
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.method.classifiers import pool
from lgag_jax.method.memory_bank import to_unit_length
from lgag_jax.method.method import LossTerm, Method, Outputs
from lgag_jax.state import MemoryBank
from lgag_jax.trunks.layers import resize

_NEVER = -1e9  # A logit that stands for "not there"; infinities would make gradients NaN.


def classification(scores: Float[Array, "B C"], labels: Float[Array, "B C"]) -> Float[Array, " B"]:
  """Binary cross-entropy of the image scores (logits), mean over classes (L_cls)."""
  return jnp.mean(optax.sigmoid_binary_cross_entropy(scores, labels), axis=-1)


def contrast(
  anchors: Float[Array, "B K D"],
  exists: Bool[Array, "B K"],
  bank: MemoryBank,
  *,
  temperature: float | Array,
) -> Float[Array, " B"]:
  """Category-aware semantic contrast of local anchors against the bank (L_con; RCA).

  For an anchor z of class k: mean over the bank's entries p of class k of
  -log(e^{z.p/t} / (e^{z.p/t} + sum of e^{z.n/t} over entries n of other classes)), all of unit
  length. An image's value is the mean over its existing anchors whose class the bank holds.
  """
  entries = jax.lax.stop_gradient(bank.features)
  similarity = jnp.einsum("bkd,cld->bkcl", to_unit_length(anchors), entries) / temperature
  classes = anchors.shape[1]
  other = ~jnp.eye(classes, dtype=bool)[:, :, None] & bank.valid  # K K L
  negative = jax.nn.logsumexp(jnp.where(other, similarity, _NEVER), axis=(2, 3))  # B K
  positive = jnp.einsum("bkkl->bkl", similarity)
  term = jnp.logaddexp(positive, negative[..., None]) - positive  # B K L
  count = jnp.sum(bank.valid, axis=1)  # K
  mean = jnp.sum(jnp.where(bank.valid, term, 0.0), axis=-1) / jnp.maximum(count, 1)
  counted = exists & (count > 0)
  total = jnp.sum(jnp.where(counted, mean, 0.0), axis=-1)
  return total / jnp.maximum(jnp.sum(counted, axis=-1), 1)


def consistency(
  activation: Float[Array, "B h w K"], guided: Float[Array, "B h w K"]
) -> Float[Array, " B"]:
  """Local activation consistency: mean |M - R^| over pixels and maps (L_lac; SIPE)."""
  return jnp.mean(jnp.abs(activation - guided), axis=(1, 2, 3))


def negative_pixels(logits: Float[Array, "B h w C"], labels: Float[Array, "B C"]) -> Float[Array, " B"]:
  """Cross-entropy against background, of every pixel of the classes that the image label denies."""
  pixel = jax.nn.softplus(logits)  # Cross-entropy against 0.
  return jnp.mean(jnp.mean(pixel, axis=(1, 2)) * (1.0 - labels), axis=-1)


def drawn_pixels(
  logits: Float[Array, "B h w C"], masks: Integer[Array, "B H W"], labels: Float[Array, "B C"]
) -> Float[Array, " B"]:
  """Cross-entropy against the masks' known pixels, of the classes that the image label affirms.

  A cell counts by the shares of it that are known to be of the class and of something else. The mean is
  over all that is known, and over a whole cell at least.
  """
  _, rows, cols, classes = logits.shape
  of_class, other = known_shares(masks, (rows, cols), classes)
  pixel = of_class * jax.nn.softplus(-logits) + other * jax.nn.softplus(logits)
  known = jnp.maximum(jnp.sum(of_class + other, axis=(1, 2)), 1.0)
  return jnp.mean(jnp.sum(pixel, axis=(1, 2)) / known * labels, axis=-1)


def known_shares(
  masks: Integer[Array, "B H W"], grid: tuple[int, int], classes: int
) -> tuple[Float[Array, "B h w C"], Float[Array, "B h w C"]]:
  """Returns which share of each cell masks know to be of each class, and to be of something else.

  Where the cells do not divide the masks, the masks are enlarged.
  """
  (batch, height, width), (rows, cols) = masks.shape, grid
  down, across = -(-height // rows), -(-width // cols)  # Pixels of a cell.
  masks = jax.image.resize(masks.astype(jnp.int32), (batch, rows * down, cols * across), "nearest")
  cells = masks.reshape(batch, rows, down, cols, across)
  shares = jnp.mean(jax.nn.one_hot(cells, classes + 1), axis=(2, 4))  # Zeros where unknown.
  of_class = shares[..., 1:]
  return of_class, jnp.sum(shares, axis=-1, keepdims=True) - of_class


def segmentation(
  logits: Float[Array, "B H W C"], masks: Integer[Array, "B H W"], known: Bool[Array, "B H W"]
) -> Float[Array, " B"]:
  """Binary cross-entropy against masks of class indices, over known pixels."""
  truth = jax.nn.one_hot(masks, logits.shape[-1] + 1)[..., 1:]
  pixel = jnp.mean(optax.sigmoid_binary_cross_entropy(logits, truth), axis=-1)
  known_pixels = jnp.maximum(jnp.sum(known, axis=(1, 2)), 1)
  return jnp.sum(pixel * known, axis=(1, 2)) / known_pixels


def of_labels(
  logits: Float[Array, "B h w C"], labels: Float[Array, "B C"], config: Config
) -> Float[Array, " B"]:
  """Returns the weighted sum of the terms that image labels alone give a class activation."""
  negatives = config.loss.negative_pixel_weight * negative_pixels(logits, labels)
  return classification(pool(logits, config.model), labels) + negatives


def _consistency(outputs: Outputs, batch: dict, bank: MemoryBank, config: Config):
  # A classifier's grid may be finer than the anchors'.
  activation = resize(outputs.activation, outputs.guided.shape[1:3], antialias=True)
  return consistency(activation, outputs.guided)


def _segmentation(outputs: Outputs, batch: dict, bank: MemoryBank, config: Config):
  logits = resize(outputs.logits, batch["mask"].shape[1:3], antialias=False)
  return segmentation(logits, batch["mask"].astype(jnp.int32), batch["mask"] != UNKNOWN)


CLASSIFICATION = LossTerm(
  "classification", lambda config, epoch: 1.0,
  lambda outputs, batch, bank, config: classification(outputs.scores, batch["label"]),
)
NEGATIVE_PIXELS = LossTerm(
  "negative_pixels", lambda config, epoch: config.loss.negative_pixel_weight,
  lambda outputs, batch, bank, config: negative_pixels(outputs.logits, batch["label"]),
)
CONSISTENCY = LossTerm(
  "consistency", lambda config, epoch: config.loss.consistency_weight, _consistency
)
CONTRAST = LossTerm(
  "contrast",
  lambda config, epoch: jnp.where(
    epoch >= config.loss.contrast_from_epoch, config.loss.contrast_weight, 0.0
  ),
  lambda outputs, batch, bank, config: contrast(
    outputs.anchors, outputs.exists, bank, temperature=config.loss.contrast_temperature
  ),
)
AUXILIARY = LossTerm(
  "auxiliary", lambda config, epoch: config.loss.auxiliary_weight,
  lambda outputs, batch, bank, config: of_labels(outputs.fused_logits, batch["label"], config),
)
DRAWN_PIXELS = LossTerm(
  "drawn_pixels", lambda config, epoch: config.loss.drawn_pixel_weight,
  lambda outputs, batch, bank, config: drawn_pixels(outputs.logits, batch["mask"], batch["label"]),
)
DRAWN_PIXELS_AUXILIARY = LossTerm(
  "drawn_pixels_auxiliary",
  lambda config, epoch: config.loss.drawn_pixel_weight * config.loss.auxiliary_weight,
  lambda outputs, batch, bank, config: drawn_pixels(
    outputs.fused_logits, batch["mask"], batch["label"]
  ),
)
SEGMENTATION = LossTerm("segmentation", lambda config, epoch: 1.0, _segmentation)


def of_method(method: Method, config: Config) -> tuple[LossTerm, ...]:
  """Returns a method's terms, and those of drawn pixels where a method of labels learns from them."""
  if method.supervision != "labels" or not config.loss.drawn_pixel_weight:
    return method.losses
  fused = (DRAWN_PIXELS_AUXILIARY,) if method.classifies_fused else ()
  return (*method.losses, DRAWN_PIXELS, *fused)

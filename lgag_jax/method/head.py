"""The head: from a trunk's taps to class activation, seeds, anchors and guided activation.

It is composed of the parts that a method chooses, in the order in which the paper has them.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from lgag_jax.config import Config
from lgag_jax.method import sol
from lgag_jax.method.classifiers import pool
from lgag_jax.method.method import Method, Outputs
from lgag_jax.state import MemoryBank
from lgag_jax.trunks.layers import dense, resize


class Head(nn.Module):
  """Everything after the trunk."""

  method: Method
  config: Config
  anchor_stride: int  # Of the grid of g, anchors and guided maps; no parameter depends on it.

  @nn.compact
  def __call__(
    self, taps: tuple[Array, ...], bank: MemoryBank, labels: Float[Array, "B C"] | None = None,
  ) -> Outputs:
    """Computes all outputs; `labels` None is inference, where the scores decide which classes exist."""
    method, config = self.method, self.config
    logits, features = method.classifier(config)(taps)
    classes = len(config.data.classes)
    self._check("classifier", logits, (taps[-1].shape[0], None, None, classes))
    scores = pool(logits, config.model)
    if labels is None:
      labels = (jax.nn.sigmoid(scores) > config.localize.gate).astype(jnp.float32)
    activation = sol.class_maps(logits, labels, epsilon=config.model.epsilon)
    if method.locate is None or method.guide is None:  # A method has both or neither.
      return _without_anchors(scores, logits, activation, bank.centres.shape[-1])

    scale = 16 // self.anchor_stride
    grid = (taps[-1].shape[1] * scale, taps[-1].shape[2] * scale)
    g = method.anchor_features(config)(taps, grid)  # B h w D
    self._check("anchor_features", g, (taps[-1].shape[0], *grid, bank.centres.shape[-1]))
    present = _with_background(labels) > 0
    structure = {"classifier": features, "last_tap": taps[-1], "anchors": g}[method.structure]
    seeds = method.locate(structure, activation, present, g, config)  # B h w K
    self._check("locate", seeds, (*g.shape[:3], classes + 1))
    cells = g.reshape(g.shape[0], -1, g.shape[-1])  # B N D
    weights = seeds.reshape(*cells.shape[:2], -1)  # B N K
    fused = self._aggregate(cells, bank)
    guided = method.guide(fused, weights, config)
    self._check("guide", guided, weights.shape)
    guided = guided / (jnp.max(guided, axis=1, keepdims=True) + config.model.epsilon)
    return Outputs(
      scores=scores, logits=logits, activation=activation, seeds=jnp.argmax(seeds, axis=-1),
      anchors=sol.local_anchors(cells, weights, dtype=jnp.dtype(config.model.precision)),
      exists=present & jnp.any(weights > 0, axis=1),
      guided=guided.reshape(seeds.shape) * present[:, None, None, :],
      fused_logits=self._fused_logits(fused, grid) if method.classifies_fused else logits,
    )

  def _aggregate(self, cells: Float[Array, "B N D"], bank: MemoryBank) -> Float[Array, "B N D"]:
    if self.method.aggregation is None:
      return cells
    anchors = bank.centres.reshape(-1, cells.shape[-1])  # A D
    fused = self.method.aggregation(self.config)(cells, anchors, bank.ready)
    self._check("aggregation", fused, cells.shape)
    return fused

  def _fused_logits(self, fused: Float[Array, "B N D"], grid) -> Float[Array, "B h w C"]:
    # Unlike the linear classifier of the trunk's last tap it gets unit vectors: it needs a bias.
    classes, dtype = len(self.config.data.classes), jnp.dtype(self.config.model.precision)
    layer = nn.Dense(classes, dtype=dtype, name="fused_classifier")
    return dense(layer, fused).astype(jnp.float32).reshape(fused.shape[0], *grid, classes)

  def _check(self, part: str, value: Array, expected: tuple) -> None:
    """Raises ValueError naming the part whose output has another shape than the next one takes."""
    same = value.ndim == len(expected) and all(
      want in (None, have) for have, want in zip(value.shape, expected, strict=True)
    )
    if not same:
      shape = ", ".join("any" if size is None else str(size) for size in expected)
      raise ValueError(
        f"Method {self.method.name!r}: {part} returned an array of shape {list(value.shape)}, but "
        f"[{shape}] is needed."
      )


def _without_anchors(scores, logits, activation, dimension: int) -> Outputs:
  batch, classes = activation.shape[0], activation.shape[-1]
  return Outputs(
    scores=scores, logits=logits, activation=activation,
    seeds=jnp.argmax(activation, axis=-1), anchors=jnp.zeros((batch, classes, dimension)),
    exists=jnp.zeros((batch, classes), bool), guided=activation, fused_logits=logits,
  )


def _with_background(labels: Float[Array, "B C"]) -> Bool[Array, "B K"] | Float[Array, "B K"]:
  """The background is present in every image."""
  return jnp.concatenate([jnp.ones_like(labels[:, :1]), labels], axis=-1)


# Score maps of the outputs, f32[B, h, w, C] in [0, 1].


def activation_probability(outputs: Outputs, config: Config) -> Float[Array, "B h w C"]:
  """Returns sigmoid(c)."""
  return jax.nn.sigmoid(outputs.logits)


def normalised_activation(outputs: Outputs, config: Config) -> Float[Array, "B h w C"]:
  """Returns M, for a linear classifier whose logits have no fixed zero."""
  return outputs.activation[..., 1:]


def guided_scores(outputs: Outputs, config: Config) -> Float[Array, "B h w C"]:
  """Compares each class's guided activation with the background's: at 0.5 they are level.

  A cosine is high over most of any image, since features share a direction: the foreground's map alone
  is no score. With `localize.blend` the result is a geometric mean with the class activation.
  """
  return _blended(outputs, jax.nn.sigmoid(outputs.logits), config)


def fused_guided_scores(outputs: Outputs, config: Config) -> Float[Array, "B h w C"]:
  """Does the same, with the class activation of the fused features beside the classifier's."""
  activation = jax.nn.sigmoid(outputs.logits)
  if config.loss.auxiliary_weight == 0:  # It has not been trained.
    return _blended(outputs, activation, config)
  grid = outputs.guided.shape[1:3]
  activation = resize(activation, grid, antialias=False)
  return _blended(outputs, jnp.sqrt(activation * jax.nn.sigmoid(outputs.fused_logits)), config)


def _blended(outputs: Outputs, activation: Array, config: Config) -> Float[Array, "B h w C"]:
  score = (outputs.guided[..., 1:] - outputs.guided[..., :1] + 1.0) / 2.0
  share = config.localize.blend
  if share == 0.0:
    return score
  # The class activation has learned from every image, the anchors from this one: their errors differ.
  activation = resize(activation, score.shape[1:3], antialias=False)
  return score ** (1.0 - share) * activation**share

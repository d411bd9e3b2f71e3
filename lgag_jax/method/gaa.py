"""GAA, global anchor aggregation: cells attend to the global anchors of all classes.

To use an aggregation of your own, see docs/research.md.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from lgag_jax.config import Config
from lgag_jax.trunks.layers import matmul, product


def residual_attention(config: Config) -> nn.Module:
  """Builds the default form: g' = g + o, which starts as g itself."""
  dtype = jnp.dtype(config.model.precision)
  return GlobalAnchorAggregation(config.gaa.heads, residual=True, dtype=dtype, name="gaa")


def concatenated_attention(config: Config) -> nn.Module:
  """Builds the published form: g' = W [g ; o]."""
  dtype = jnp.dtype(config.model.precision)
  return GlobalAnchorAggregation(config.gaa.heads, residual=False, dtype=dtype, name="gaa")


class GlobalAnchorAggregation(nn.Module):
  """Cross-attention from the feature grid to the global anchors, fused with the features.

  Q = Wq g, K = Wk G, V = Wv G, P = softmax(Q K^T / sqrt(D)) over the anchors, o = Wo P V; g' = g + o
  if `residual`, else W [g ; o]. Anchors are few and cells many, so products are taken from the
  anchors' side: Q K^T as g (Wq K^T), and W Wo (P V) as P (V Wo W). A cell is only multiplied by a
  D x D matrix in the concatenation.
  """

  heads: int
  residual: bool
  dtype: Any = jnp.float32  # Of matrix products.

  @nn.compact
  def __call__(
    self, g: Float[Array, "B N D"], anchors: Float[Array, "A D"], ready: Bool[Array, ""]
  ) -> Float[Array, "B N D"]:
    width = g.shape[-1]
    head_width = width // self.heads
    query_kernel, query_bias = self._to_heads("query", width)
    key_kernel, key_bias = self._to_heads("key", width)
    value_kernel, value_bias = self._to_heads("value", width)
    # A residual branch starts at zero, so that training starts from g itself.
    init = nn.initializers.zeros_init() if self.residual else _lecun((0, 1), 2)
    output_kernel = self.param("output_kernel", init, (self.heads, head_width, width))
    output_bias = self.param("output_bias", nn.initializers.zeros_init(), (width,))

    keys = self._contract("ad,dhe->ahe", anchors, key_kernel) + key_bias
    values = self._contract("ad,dhe->ahe", anchors, value_kernel) + value_bias
    keys = keys / math.sqrt(head_width)
    to_logits = self._contract("dhe,ahe->dha", query_kernel, keys).reshape(width, -1)
    # Heads and anchors share an axis in the products with cells: plain matrix products.
    grid = (*g.shape[:2], self.heads, anchors.shape[0])
    bias = self._contract("he,ahe->ha", query_bias, keys)
    attention = jax.nn.softmax(self._multiply(g, to_logits).reshape(grid) + bias, axis=-1)
    attention = attention.reshape(*g.shape[:2], -1)
    attended = self._contract("ahe,hed->had", values, output_kernel).reshape(-1, width)
    if self.residual:
      fused = g + self._multiply(attention, attended) + output_bias
    else:
      kernel = self.param("fuse_kernel", _lecun((0, 1), 2), (2, width, width))
      bias = self.param("fuse_bias", nn.initializers.zeros_init(), (width,))
      attended = self._contract("hd,de->he", attended, kernel[1])
      bias = bias + self._contract("d,de->e", output_bias, kernel[1])
      fused = self._multiply(g, kernel[0]) + self._multiply(attention, attended) + bias
    return jnp.where(ready, fused, g)  # Without global anchors features pass unchanged.

  def _contract(self, spec: str, a: Array, b: Array) -> Array:
    return product(spec, a, b, self.dtype)

  def _multiply(self, x: Array, kernel: Array) -> Array:
    return matmul(x.astype(self.dtype), kernel.astype(self.dtype)).astype(jnp.float32)

  def _to_heads(self, name: str, width: int) -> tuple[Array, Array]:
    shape = (self.heads, width // self.heads)
    kernel = self.param(f"{name}_kernel", _lecun(0, (1, 2)), (width, *shape))
    return kernel, self.param(f"{name}_bias", nn.initializers.zeros_init(), shape)


def _lecun(in_axis, out_axis):
  return nn.initializers.lecun_normal(in_axis=in_axis, out_axis=out_axis)

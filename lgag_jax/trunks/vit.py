"""Vision Transformers of DINOv2 (Oquab et al. 2023) and DINOv3 (Siméoni et al. 2025) as trunks.

All stages share one grid of patches. A token is one vector of the sequence that the blocks read: the
prefix tokens (the class token, then the registers), then one token per patch, row by row.
"""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgag_jax.trunks.attention import attend, gelu
from lgag_jax.trunks.layers import dense, matmul, resize
from lgag_jax.trunks.vit_positions import resize_positions, rotate, rotation


class Spec(NamedTuple):
  """The sizes of one published model."""

  width: int
  depth: int  # Blocks.
  heads: int
  patch: int = 14  # Side in pixels.
  positions: int = 37  # Side of the grid of learned position embeddings; 0 rotates queries and keys.
  registers: int = 0
  gated: bool = False  # SwiGLU instead of GELU.
  key_bias: bool = True
  epsilon: float = 1e-6  # Of the layer norms.

  @property
  def prefix(self) -> int:
    """Returns the number of prefix tokens."""
    return 1 + self.registers


class Attention(nn.Module):
  """Attends from every token to every token."""

  spec: Spec
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B T D"], table: np.ndarray | None) -> Array:
    def project(name: str, x: Array, use_bias: bool = True) -> Array:
      return dense(nn.Dense(x.shape[-1], use_bias=use_bias, dtype=self.dtype, name=name), x)

    heads = (*x.shape[:2], self.spec.heads, -1)
    query = project("query", x).reshape(heads)
    key = project("key", x, self.spec.key_bias).reshape(heads)
    value = project("value", x).reshape(heads)
    if table is not None:
      query, key = rotate(query, table), rotate(key, table)
    return project("output", attend(query, key, value).reshape(x.shape))


class MLP(nn.Module):
  """Applies two dense layers to each token, with GELU or a SiLU gate between them."""

  gated: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    width, hidden = x.shape[-1], 4 * x.shape[-1]
    if self.gated:
      gate, y = jnp.split(dense(nn.Dense(2 * hidden, dtype=self.dtype, name="weights_in"), x), 2, -1)
      return dense(nn.Dense(width, dtype=self.dtype, name="weights_out"), jax.nn.silu(gate) * y)
    y = gelu(dense(nn.Dense(hidden, dtype=self.dtype, name="fc1"), x))
    return dense(nn.Dense(width, dtype=self.dtype, name="fc2"), y)


class Block(nn.Module):
  """Adds attention, then an MLP, each of the normalised tokens and scaled per channel."""

  spec: Spec
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B T D"], table: np.ndarray | None) -> Float[Array, "B T D"]:
    for number, name in enumerate(("attention", "mlp"), 1):
      norm = nn.LayerNorm(self.spec.epsilon, use_fast_variance=False, name=f"norm{number}")
      y = norm(x.astype(jnp.float32))
      if name == "attention":
        y = Attention(self.spec, self.dtype, name=name)(y, table)
      else:
        y = MLP(self.spec.gated, self.dtype, name=name)(y)
      x = x + self.param(f"scale{number}", nn.initializers.ones_init(), x.shape[-1:]) * y
    return x.astype(self.dtype)


class Stem(nn.Module):
  """Resizes the image to whole patches, projects each patch, and adds its position embedding."""

  spec: Spec
  stride: int  # Image pixels per patch.
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    patch, width, side = self.spec.patch, self.spec.width, self.spec.positions
    batch, channels = x.shape[0], x.shape[3]
    h, w = grid = tuple(-(-size // self.stride) for size in x.shape[1:3])
    x = resize(x, (h * patch, w * patch), antialias=True).astype(self.dtype)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (patch, patch, channels, width))
    bias = self.param("bias", nn.initializers.zeros_init(), (width,))
    x = x.reshape(batch, h, patch, w, patch, channels).swapaxes(2, 3)
    y = matmul(x.reshape(batch, h, w, -1), kernel.reshape(-1, width).astype(self.dtype)) + bias
    if side:
      positions = self.param("positions", nn.initializers.normal(0.02), (side, side, width))
      y = y + resize_positions(positions, grid, antialias=self.spec.registers > 0)
    return y.astype(self.dtype)


class Stage(nn.Module):
  """Runs blocks `start` to `stop` - 1; stage 1 puts the prefix tokens in front of the patches."""

  spec: Spec
  start: int
  stop: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B T D"], table: np.ndarray | None) -> Float[Array, "B t D"]:
    if self.start == 0:
      shape = (1, self.spec.prefix, self.spec.width)
      prefix = self.param("prefix", nn.initializers.normal(0.02), shape).astype(self.dtype)
      x = jnp.concatenate([jnp.broadcast_to(prefix, (x.shape[0], *shape[1:])), x], axis=1)
    for index in range(self.start, self.stop):
      x = Block(self.spec, self.dtype, name=f"block{index}")(x, table)
    return x


class VisionTransformer(nn.Module):
  """Turns a normalised image into the outputs of a stem (stage 0) and stages 1 to 4.

  The outputs of stages 1 to 4 are the patch tokens after the blocks that `tap_blocks` names; they are
  not normalised. The image is resized so that the grid has one patch per `output_stride` pixels: with
  16, DINOv2 sees an image of 256 x 256 at 224 x 224. Raises ValueError for an output stride other than
  8, 14, 16 or 32, and for tap blocks that are not four numbers in order.
  """

  output_stride: int = 16
  tap_blocks: tuple[int, ...] = ()  # From 1, one per stage; empty takes each quarter of the depth.
  dtype: Any = jnp.float32

  SPEC: ClassVar[Spec]
  WIDTHS: ClassVar[tuple[int, ...]]  # Of stages 1 to 4.
  MEAN: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)  # Of RGB images in [0, 1].
  STD: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)

  def __post_init__(self):
    if self.output_stride not in (8, 14, 16, 32):
      raise ValueError(f"output_stride is {self.output_stride}; choose 8, 14, 16 or 32")
    taps, depth = self.tap_blocks, self.SPEC.depth
    if taps and (len(taps) != 4 or list(taps) != sorted(taps) or taps[0] < 1 or taps[3] > depth):
      raise ValueError(f"tap_blocks is {taps}; name four blocks in order, from 1 to {depth}")
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Float[Array, "B H W C"], *, first: int = 0, last: int = 4
  ) -> tuple[Float[Array, "B h w E"], ...]:
    """Runs stages `first` to `last` on x, the image or the output of stage `first - 1`.

    Returns the output of each stage run, D channels wide. A later call needs the prefix tokens to
    continue after stage 1, 2 or 3: a call that ends there appends them, repeated in every cell, to the
    channels of its last output. Raises ValueError unless 0 <= first <= last <= 4, and for an x without
    the prefix tokens.
    """
    if not 0 <= first <= last <= 4:
      raise ValueError(f"stages {first} to {last} asked for; they must be ordered and in 0 to 4")
    spec, outputs = self.SPEC, []
    if first == 0:
      x = Stem(spec, self.output_stride, self.dtype, name="stem")(x)
      outputs.append(x)
    grid, table = x.shape[1:3], None
    if spec.positions == 0:
      table = rotation(grid, spec.prefix, spec.width // spec.heads)
    tokens = x.reshape(x.shape[0], -1, spec.width) if first <= 1 else _unpack(x, spec)
    stops = (0, *(self.tap_blocks or (spec.depth * quarter // 4 for quarter in range(1, 5))))
    for number in range(max(first, 1), last + 1):
      start, stop = stops[number - 1], stops[number]
      tokens = Stage(spec, start, stop, self.dtype, name=f"stage{number}")(tokens, table)
      outputs.append(tokens[:, spec.prefix :].reshape(x.shape[0], *grid, spec.width))
    if 1 <= last <= 3:
      outputs[-1] = _pack(outputs[-1], tokens[:, : spec.prefix])
    return tuple(outputs)


def _pack(patches: Float[Array, "B h w D"], prefix: Float[Array, "B P D"]) -> Array:
  """Appends the prefix tokens to the channels of every cell."""
  spread = jnp.broadcast_to(
    prefix.reshape(prefix.shape[0], 1, 1, -1), (*patches.shape[:3], prefix.shape[1] * prefix.shape[2])
  )
  return jnp.concatenate([patches, spread], axis=-1)


def _unpack(x: Float[Array, "B h w E"], spec: Spec) -> Float[Array, "B T D"]:
  """Undoes `_pack`; returns the tokens."""
  if x.shape[3] != (1 + spec.prefix) * spec.width:
    raise ValueError(
      f"the input has {x.shape[3]} channels; continue from the last output of a call that ended one"
      f" stage earlier, which has {(1 + spec.prefix) * spec.width}"
    )
  patches = x[..., : spec.width].reshape(x.shape[0], -1, spec.width)
  prefix = x[:, 0, 0, spec.width :].reshape(x.shape[0], spec.prefix, spec.width)
  return jnp.concatenate([prefix, patches], axis=1)


def variant(name: str, spec: Spec) -> type[VisionTransformer]:
  """Returns the trunk of a model."""
  facts = {"SPEC": spec, "WIDTHS": (spec.width,) * 4, "__doc__": f"{name}: {spec}."}
  return type(name, (VisionTransformer,), {**facts, "__module__": __name__})


def _variants() -> dict[str, type[VisionTransformer]]:
  sizes = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16)}
  third = {"patch": 16, "positions": 0, "registers": 4, "key_bias": False, "epsilon": 1e-5}
  specs = {}
  for letter, size in sizes.items():
    specs[f"dinov2_vit{letter}14"] = Spec(*size)
    specs[f"dinov2_vit{letter}14_reg"] = Spec(*size, registers=4)
    specs[f"dinov3_vit{letter}16"] = Spec(*size, **third)
  specs["dinov3_vits16plus"] = Spec(*sizes["s"], gated=True, **third)
  return {name: variant(name, spec) for name, spec in specs.items()}


VARIANTS = _variants()

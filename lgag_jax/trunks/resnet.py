"""ResNet-50 (He et al. 2016, in torchvision's v1.5 form) as a trunk: a stem and four stages."""

from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgag_jax.trunks.layers import Conv, Pointwise, StoredNorm, max_pool, run_stages

_DEPTHS = (3, 4, 6, 3)
_STEM_WIDTH, _EXPANSION = 64, 4

_norm = partial(StoredNorm, epsilon=1e-5)


def published_name(leaf: tuple[str, ...]) -> str:
  """Names a leaf, such as ("params", "stem", "conv", "kernel"), as torchvision does."""
  _, stage, *block, layer, kind = leaf
  if stage == "stem":
    prefix = {"conv": "conv1", "norm": "bn1"}[layer]
  else:
    layers = {"downsample_conv": "downsample.0", "downsample_norm": "downsample.1"}
    layer = layers.get(layer, layer.replace("norm", "bn"))
    prefix = f"layer{stage.removeprefix('stage')}.{block[0].removeprefix('block')}.{layer}"
  ends = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
  return f"{prefix}.{ends.get(kind, kind)}"


class Bottleneck(nn.Module):
  """Reduces, convolves 3x3 (with the stride, as v1.5 does), widens, and adds the input."""

  width: int  # Of the 3x3 convolution.
  stride: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    pointwise = partial(Pointwise, dtype=self.dtype)
    width, wide = self.width, self.width * _EXPANSION
    y = jax.nn.relu(pointwise(width, name="conv1")(x, _norm(name="norm1")(width)))
    # Padding is explicit because "SAME" pads even sizes on one side only under a stride.
    y = Conv(width, 3, self.stride, ((1, 1), (1, 1)), self.dtype, name="conv2")(
      y, _norm(name="norm2")(width)
    )
    y = pointwise(wide, name="conv3")(jax.nn.relu(y), _norm(name="norm3")(wide))
    if self.stride != 1 or x.shape[-1] != wide:
      norm = _norm(name="downsample_norm")(wide)
      x = pointwise(wide, name="downsample_conv")(x[:, :: self.stride, :: self.stride], norm)
    return jax.nn.relu(x + y).astype(self.dtype)


class Stem(nn.Module):
  """Convolves the image 7x7 and takes maxima 3x3, each with stride 2."""

  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    norm = _norm(name="norm")(_STEM_WIDTH)
    x = Conv(_STEM_WIDTH, 7, 2, ((3, 3), (3, 3)), self.dtype, name="conv")(x, norm)
    return max_pool(jax.nn.relu(x).astype(self.dtype))


class Stage(nn.Module):
  """Runs the bottlenecks of one stage; the first takes the stride."""

  depth: int
  width: int
  stride: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    for index in range(self.depth):
      stride = self.stride if index == 0 else 1
      x = Bottleneck(self.width, stride, self.dtype, name=f"block{index}")(x)
    return x


class ResNet50(nn.Module):
  """Turns a normalised image into the outputs of a stem (stage 0) and stages 1 to 4.

  Batch norm always uses stored statistics; no convolution is dilated. Raises ValueError for an
  output stride other than 16 or 32.
  """

  output_stride: int = 16
  dtype: Any = jnp.float32

  WIDTHS: ClassVar[tuple[int, ...]] = (256, 512, 1024, 2048)  # Of stages 1 to 4.
  STRIDES: ClassVar[tuple[int, ...]] = (4, 8, 16, 16)  # Of stages 1 to 4 at output stride 16.
  MEAN: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)  # Of RGB images in [0, 1].
  STD: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)

  def __post_init__(self):
    if self.output_stride not in (16, 32):
      raise ValueError(f"output_stride is {self.output_stride}; choose 16 or 32")
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Float[Array, "B H W C"], *, first: int = 0, last: int = 4
  ) -> tuple[Float[Array, "B h w D"], ...]:
    """Runs stages `first` to `last` on x, the image or the output of stage `first - 1`."""
    strides = (1, 2, 2, self.output_stride // 16)  # Stage 4 loses its own at output stride 16.

    def make(number: int) -> nn.Module:
      if number == 0:
        return Stem(self.dtype, name="stem")
      depth, width = _DEPTHS[number - 1], _STEM_WIDTH * 2 ** (number - 1)
      return Stage(depth, width, strides[number - 1], self.dtype, name=f"stage{number}")

    return run_stages(x, first, last, make)

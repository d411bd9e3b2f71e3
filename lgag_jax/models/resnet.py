"""ResNet-50 (He et al. 2016, in torchvision's v1.5 form) as a trunk: a stem and four stages."""

from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_DEPTHS = (3, 4, 6, 3)
_STEM_WIDTH, _EXPANSION = 64, 4

# Stored statistics start at (0, 1) and are never updated, so only the kernels set the scale of an
# untrained trunk: fan-in scaling keeps it.
_init = nn.initializers.he_normal()
_norm = partial(nn.BatchNorm, use_running_average=True, epsilon=1e-5)


def stage_strides(output_stride: int) -> tuple[int, ...]:
  """Gives the strides of stages 1 to 4; the last stage loses its own at output stride 16."""
  return (1, 2, 2, output_stride // 16)


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
    # A 1x1 convolution is a matrix product over channels, and faster on CPU as one.
    dense = partial(nn.Dense, use_bias=False, kernel_init=_init, dtype=self.dtype)
    norm = partial(_norm, dtype=self.dtype)
    wide = self.width * _EXPANSION
    y = jax.nn.relu(norm(name="norm1")(dense(self.width, name="conv1")(x)))
    # Padding is explicit because "SAME" pads even sizes on one side only under a stride.
    y = nn.Conv(
      self.width, (3, 3), self.stride, padding=((1, 1), (1, 1)), use_bias=False, kernel_init=_init,
      dtype=self.dtype, name="conv2",
    )(y)
    y = jax.nn.relu(norm(name="norm2")(y))
    y = norm(name="norm3")(dense(wide, name="conv3")(y))
    if self.stride != 1 or x.shape[-1] != wide:
      x = dense(wide, name="downsample_conv")(x[:, :: self.stride, :: self.stride])
      x = norm(name="downsample_norm")(x)
    return jax.nn.relu(x + y)


class Stem(nn.Module):
  """Convolves the image 7x7 and takes maxima 3x3, each with stride 2."""

  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    x = nn.Conv(
      _STEM_WIDTH, (7, 7), 2, padding=((3, 3), (3, 3)), use_bias=False, kernel_init=_init,
      dtype=self.dtype, name="conv",
    )(x)
    x = jax.nn.relu(_norm(dtype=self.dtype, name="norm")(x))
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


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
    """Runs stages `first` to `last` on x, the image or the output of stage `first - 1`.

    Returns the output of each stage run. Raises ValueError unless 0 <= first <= last <= 4.
    """
    if not 0 <= first <= last <= 4:
      raise ValueError(f"stages {first} to {last} asked for; they must be ordered and in 0 to 4")
    outputs = []
    for number in range(first, last + 1):
      if number == 0:
        stage = Stem(self.dtype, name="stem")
      else:
        depth, width = _DEPTHS[number - 1], _STEM_WIDTH * 2 ** (number - 1)
        stride = stage_strides(self.output_stride)[number - 1]
        stage = Stage(depth, width, stride, self.dtype, name=f"stage{number}")
      x = stage(x)
      outputs.append(x)
    return tuple(outputs)

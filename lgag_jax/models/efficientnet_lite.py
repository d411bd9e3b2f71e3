"""EfficientNet-Lite0 (Liu 2020; Tan and Le 2019) as a trunk: a stem and four stages with taps."""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# (repeats, kernel, stride, expansion, width) of each group of blocks, grouped by stage.
_GROUPS = (
  ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24)),
  ((2, 5, 2, 6, 40),),
  ((3, 3, 2, 6, 80), (3, 5, 1, 6, 112)),
  ((4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
_STEM_WIDTH, _STEM_STRIDE = 32, 2

# Stored statistics start at (0, 1) and are never updated, so only the kernels set the scale of an
# untrained trunk: fan-in scaling keeps it.
_init = nn.initializers.he_normal()
_norm = partial(nn.BatchNorm, use_running_average=True, epsilon=1e-3)


class BlockSpec(NamedTuple):
  """One inverted residual; `index` counts over the whole trunk, as the published weights do."""

  index: int
  kernel: int
  stride: int
  dilation: int
  expand: int
  width: int


def block_specs(output_stride: int) -> tuple[tuple[BlockSpec, ...], ...]:
  """Lists the blocks of stages 1 to 4, with strides beyond `output_stride` turned into dilation."""
  stages, index, total, dilation = [], 0, _STEM_STRIDE, 1
  for groups in _GROUPS:
    stage = []
    for repeats, kernel, group_stride, expand, width in groups:
      for repeat in range(repeats):
        stride, own_dilation = group_stride if repeat == 0 else 1, dilation
        if total * stride > output_stride:
          # The block that loses its stride still reads the grid before it; only what follows would
          # have seen the coarser one.
          stride, dilation = 1, dilation * stride
        total *= stride
        stage.append(BlockSpec(index, kernel, stride, own_dilation, expand, width))
        index += 1
    stages.append(tuple(stage))
  return tuple(stages)


def published_name(leaf: tuple[str, ...]) -> str:
  """Names a leaf, such as ("params", "stem", "conv", "kernel"), as the published weights do."""
  _, stage, *block, layer, kind = leaf
  if stage == "stem":
    prefix = {"conv": "_conv_stem", "norm": "_bn0"}[layer]
  else:
    norms = {"expand_norm": "_bn0", "depthwise_norm": "_bn1", "project_norm": "_bn2"}
    index = block[0].removeprefix("block")
    prefix = f"_blocks.{index}.{norms.get(layer, f'_{layer}_conv')}"
  ends = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
  return f"{prefix}.{ends.get(kind, kind)}"


def depthwise_conv(
  x: Float[Array, "B H W C"], kernel: Float[Array, "k k 1 C"], *, stride: int, dilation: int
) -> Float[Array, "B h w C"]:
  """Convolves each channel with its own kernel, with TensorFlow's "SAME" padding."""
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), "SAME", rhs_dilation=(dilation, dilation),
    dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1],
  )


def depthwise_shift(
  x: Float[Array, "B H W C"], kernel: Float[Array, "k k 1 C"], *, stride: int, dilation: int
) -> Float[Array, "B h w C"]:
  """Gives the result of `depthwise_conv` as a sum of k*k shifted slices times weights.

  Much faster than XLA's grouped convolution on CPU, at the price of memory in the backward pass.
  """
  size = kernel.shape[0]
  reach = dilation * (size - 1) + 1
  pads = lax.padtype_to_pads(x.shape[1:3], (reach, reach), (stride, stride), "SAME")
  height, width = (-(-n // stride) for n in x.shape[1:3])
  # A sum of 25 terms is too long for half precision.
  wide = jnp.promote_types(x.dtype, jnp.float32)
  padded = jnp.pad(x.astype(wide), ((0, 0), *pads, (0, 0)))
  total = jnp.zeros((), wide)
  for i in range(size):
    for j in range(size):
      top, left = i * dilation, j * dilation
      bottom, right = top + (height - 1) * stride + 1, left + (width - 1) * stride + 1
      piece = padded[:, top:bottom:stride, left:right:stride]
      total = total + piece * kernel[i, j, 0].astype(wide)
  return total.astype(x.dtype)


DEPTHWISE = {"conv": depthwise_conv, "shift": depthwise_shift}


class Depthwise(nn.Module):
  """Holds the kernel of a depthwise convolution; the parameters do not depend on `form`."""

  kernel: int
  stride: int
  dilation: int
  form: str
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    kernel = self.param("kernel", _init, (self.kernel, self.kernel, 1, x.shape[-1]))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    return DEPTHWISE[self.form](x, kernel, stride=self.stride, dilation=self.dilation)


class InvertedResidual(nn.Module):
  """Expands, convolves depthwise, projects linearly, and adds the input where shapes agree."""

  spec: BlockSpec
  depthwise: str
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    spec, width = self.spec, x.shape[-1]
    # A 1x1 convolution is a matrix product over channels, and faster on CPU as one.
    dense = partial(nn.Dense, use_bias=False, kernel_init=_init, dtype=self.dtype)
    norm = partial(_norm, dtype=self.dtype)
    y = x
    if spec.expand != 1:
      y = dense(width * spec.expand, name="expand")(y)
      y = jax.nn.relu6(norm(name="expand_norm")(y))
    y = Depthwise(
      spec.kernel, spec.stride, spec.dilation, self.depthwise, self.dtype, name="depthwise"
    )(y)
    y = jax.nn.relu6(norm(name="depthwise_norm")(y))
    y = norm(name="project_norm")(dense(spec.width, name="project")(y))
    return x + y if spec.stride == 1 and width == spec.width else y


class Stem(nn.Module):
  """Convolves the image 3x3 with stride 2."""

  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    x = nn.Conv(
      _STEM_WIDTH, (3, 3), _STEM_STRIDE, padding="SAME", use_bias=False, kernel_init=_init,
      dtype=self.dtype, name="conv",
    )(x)
    return jax.nn.relu6(_norm(dtype=self.dtype, name="norm")(x))


class Stage(nn.Module):
  """Runs the blocks of one stage in order."""

  specs: tuple[BlockSpec, ...]
  depthwise: str
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    for spec in self.specs:
      x = InvertedResidual(spec, self.depthwise, self.dtype, name=f"block{spec.index}")(x)
    return x


class EfficientNetLite0(nn.Module):
  """Turns a normalised image into the outputs of a stem (stage 0) and stages 1 to 4.

  Batch norm always uses stored statistics. Raises ValueError for an output stride other than 16 or
  32 and for an unknown form of depthwise convolution ("conv" or "shift": see `depthwise_shift`).
  """

  output_stride: int = 16
  depthwise: str = "conv"
  dtype: Any = jnp.float32

  WIDTHS: ClassVar[tuple[int, ...]] = (24, 40, 112, 320)  # Of stages 1 to 4.
  STRIDES: ClassVar[tuple[int, ...]] = (4, 8, 16, 16)  # Of stages 1 to 4 at output stride 16.
  MEAN: ClassVar[tuple[float, ...]] = (127 / 255,) * 3  # Of RGB images in [0, 1].
  STD: ClassVar[tuple[float, ...]] = (128 / 255,) * 3

  def __post_init__(self):
    if self.output_stride not in (16, 32):
      raise ValueError(f"output_stride is {self.output_stride}; choose 16 or 32")
    if self.depthwise not in DEPTHWISE:
      raise ValueError(f"depthwise is {self.depthwise!r}; choose one of {sorted(DEPTHWISE)}")
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
        specs = block_specs(self.output_stride)[number - 1]
        stage = Stage(specs, self.depthwise, self.dtype, name=f"stage{number}")
      x = stage(x)
      outputs.append(x)
    return tuple(outputs)

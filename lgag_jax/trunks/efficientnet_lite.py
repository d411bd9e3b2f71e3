"""EfficientNet-Lite0 (Liu 2020; Tan and Le 2019) as a trunk: a stem and four stages with taps."""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgag_jax.trunks import depthwise
from lgag_jax.trunks.layers import Affine, Conv, Pointwise, StoredNorm, init_kernel, run_stages

# (repeats, kernel, stride, expansion, width) of each group of blocks, grouped by stage.
_GROUPS = (
  ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24)),
  ((2, 5, 2, 6, 40),),
  ((3, 3, 2, 6, 80), (3, 5, 1, 6, 112)),
  ((4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
_STEM_WIDTH, _STEM_STRIDE = 32, 2

_norm = partial(StoredNorm, epsilon=1e-3)


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


class Depthwise(nn.Module):
  """A depthwise convolution and its norm; the parameters do not depend on `form`."""

  kernel: int
  stride: int
  dilation: int
  form: str
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"], norm: Affine) -> Float[Array, "B h w C"]:
    kernel = self.param("kernel", init_kernel, (self.kernel, self.kernel, 1, x.shape[-1]))
    x, kernel = x.astype(self.dtype), (kernel * norm.factor).astype(self.dtype)
    y = depthwise.FORMS[self.form](x, kernel, stride=self.stride, dilation=self.dilation)
    return y + norm.shift


class InvertedResidual(nn.Module):
  """Expands, convolves depthwise, projects linearly, and adds the input where shapes agree."""

  spec: BlockSpec
  depthwise: str
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    spec, width = self.spec, x.shape[-1]
    pointwise = partial(Pointwise, dtype=self.dtype)
    wide, y = width * spec.expand, x
    if spec.expand != 1:
      y = jax.nn.relu6(pointwise(wide, name="expand")(y, _norm(name="expand_norm")(wide)))
    y = Depthwise(
      spec.kernel, spec.stride, spec.dilation, self.depthwise, self.dtype, name="depthwise"
    )(y, _norm(name="depthwise_norm")(wide))
    norm = _norm(name="project_norm")(spec.width)
    y = pointwise(spec.width, name="project")(jax.nn.relu6(y), norm)
    y = x + y if spec.stride == 1 and width == spec.width else y
    return y.astype(self.dtype)


class Stem(nn.Module):
  """Convolves the image 3x3 with stride 2."""

  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    conv = Conv(_STEM_WIDTH, 3, _STEM_STRIDE, "SAME", self.dtype, name="conv")
    return jax.nn.relu6(conv(x, _norm(name="norm")(_STEM_WIDTH))).astype(self.dtype)


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
  32 and for an unknown form of depthwise convolution ("conv" or "shift": see depthwise.py).
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
    if self.depthwise not in depthwise.FORMS:
      raise ValueError(f"depthwise is {self.depthwise!r}; choose one of {sorted(depthwise.FORMS)}")
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Float[Array, "B H W C"], *, first: int = 0, last: int = 4
  ) -> tuple[Float[Array, "B h w D"], ...]:
    """Runs stages `first` to `last` on x, the image or the output of stage `first - 1`."""
    def make(number: int) -> nn.Module:
      if number == 0:
        return Stem(self.dtype, name="stem")
      specs = block_specs(self.output_stride)[number - 1]
      return Stage(specs, self.depthwise, self.dtype, name=f"stage{number}")

    return run_stages(x, first, last, make)

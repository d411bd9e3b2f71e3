"""Trunks against parameter counts, against themselves in other forms, and a literal reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgag_jax.trunks import depthwise, resnet
from lgag_jax.trunks import efficientnet_lite as lite
from lgag_jax.trunks.pretrained import TRUNKS, load_trunk, packaged_weights

CONVOLUTIONAL = ("efficientnet_lite0", "resnet50")

CASES = [
  (kernel, stride, dilation, size) for kernel in (3, 5)
  for stride, dilation in ((1, 1), (2, 1), (1, 2)) for size in ((8, 8), (9, 12))
]


def shapes_of(model, channels=3):
  return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, channels)))


def numbers_for(module, *, channels=3, seed=0):
  """Fills a module's variables with numbers, statistics included, that make every leaf matter."""
  rng = np.random.default_rng(seed)

  def fill(path, leaf):
    name = path[-1].key
    if name in ("scale", "var"):
      return jnp.float32(rng.uniform(0.8, 1.2, leaf.shape))
    fan = np.prod(leaf.shape[:-1]) if name == "kernel" else 200
    return jnp.float32(rng.normal(0, np.sqrt(2 / fan), leaf.shape))

  return jax.tree_util.tree_map_with_path(fill, shapes_of(module, channels))


def literal_conv(x, kernel, stride, pad):
  """Convolves [H, W, I] with [k, k, I, O] under torch's padding, in double precision."""
  size = kernel.shape[0]
  x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
  rows, columns = ((n - size) // stride + 1 for n in x.shape[:2])
  return np.array([
    [np.tensordot(x[i * stride:, j * stride:][:size, :size], kernel, 3) for j in range(columns)]
    for i in range(rows)
  ])


def literal_norm(variables, eps):
  p, s = variables["params"], variables["batch_stats"]
  return lambda y, name: (
    (y - s[name]["mean"]) / np.sqrt(s[name]["var"] + eps) * p[name]["scale"] + p[name]["bias"]
  )


def same_pads(size, kernel, stride, dilation):
  """Gives TensorFlow's padding before the first element, and the size that comes out."""
  out = -(-size // stride)
  total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
  return total // 2, out


def literal_depthwise(x, kernel, stride, dilation):
  """Convolves [H, W, C] one output at a time, in double precision."""
  size = kernel.shape[0]
  (top, height), (left, width) = (same_pads(n, size, stride, dilation) for n in x.shape[:2])
  out = np.zeros((height, width, x.shape[2]))
  for r in range(height):
    for c in range(width):
      for i in range(size):
        for j in range(size):
          y, z = r * stride + i * dilation - top, c * stride + j * dilation - left
          if 0 <= y < x.shape[0] and 0 <= z < x.shape[1]:
            out[r, c] += x[y, z] * kernel[i, j, 0]
  return out


@pytest.mark.parametrize("form", sorted(depthwise.FORMS))
@pytest.mark.parametrize(("kernel", "stride", "dilation", "size"), CASES)
def test_depthwise_matches_literal_loops(form, kernel, stride, dilation, size):
  rng = np.random.default_rng(kernel + stride + dilation)
  x, weights = rng.normal(size=(2, *size, 3)), rng.normal(size=(kernel, kernel, 1, 3))
  convolve = functools.partial(depthwise.FORMS[form], stride=stride, dilation=dilation)
  got = convolve(jnp.float32(x), jnp.float32(weights))
  want = np.stack([literal_depthwise(image, weights, stride, dilation) for image in x])
  assert got.shape == want.shape
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "dilation", "size"), CASES[1::2])
def test_shift_and_conv_have_the_same_gradients(kernel, stride, dilation, size):
  rng = np.random.default_rng(0)
  x, weights = jnp.float32(rng.normal(size=(2, *size, 3))), rng.normal(size=(kernel, kernel, 1, 3))

  def loss(x, weights, form):
    y = depthwise.FORMS[form](x, weights, stride=stride, dilation=dilation)
    return (y * jnp.cos(jnp.arange(y.size, dtype=y.dtype).reshape(y.shape))).sum()

  grads = [
    jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)(x, jnp.float32(weights), form)
    for form in ("conv", "shift")
  ]
  assert all(np.abs(g).max() > 0.1 for g in grads[0])
  for conv, shift in zip(*grads, strict=True):
    np.testing.assert_allclose(shift, conv, rtol=1e-4, atol=1e-4)


def test_shift_sums_in_single_precision_for_half_precision_input():
  x, weights = jnp.ones((1, 9, 9, 1), jnp.bfloat16), jnp.full((5, 5, 1, 1), 1.0, jnp.bfloat16)
  weights = weights.at[0, 0].set(256)  # In bfloat16, 256 + 1 is 256.
  got = depthwise.shift(x, weights, stride=1, dilation=1)
  assert got.dtype == jnp.bfloat16
  assert float(got[0, 4, 4, 0]) == 280


@pytest.mark.parametrize("form", sorted(depthwise.FORMS))
@pytest.mark.parametrize(
  ("stride", "dilation", "expand", "width"),
  [(1, 1, 6, 4), (1, 2, 6, 4), (2, 1, 6, 4), (1, 1, 1, 7)],
)
def test_inverted_residual_matches_literal_reference(stride, dilation, expand, width, form):
  block = lite.InvertedResidual(
    lite.BlockSpec(0, 5, stride, dilation, expand, width), form, jnp.float32
  )
  variables = numbers_for(block, channels=4)
  double = jax.tree.map(np.float64, variables)
  params, norm = double["params"], literal_norm(double, 1e-3)
  x = y = np.random.default_rng(1).normal(0, 6, (8, 8, 4))
  if expand != 1:
    y = norm(y @ params["expand"]["kernel"], "expand_norm")
    assert (y > 6).any()  # Else ReLU6 is not put to the test.
    y = np.clip(y, 0, 6)
  y = literal_depthwise(y, params["depthwise"]["kernel"], stride, dilation)
  y = np.clip(norm(y, "depthwise_norm"), 0, 6)
  y = norm(y @ params["project"]["kernel"], "project_norm")
  if stride == 1 and width == 4:
    y = y + x
  got = block.apply(variables, jnp.float32(x[None]))[0]
  np.testing.assert_allclose(got, y, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
  ("trunk", "count"),  # The published count, less what comes after the trunk.
  [("efficientnet_lite0", 4_652_008 - 320 * 1280 - 2 * 1280 - 1280 * 1000 - 1000),
   ("resnet50", 25_557_032 - 2048 * 1000 - 1000)],
)
def test_parameter_counts_and_names(trunk, count):
  variables = shapes_of(TRUNKS[trunk]())
  stages = {"stem", "stage1", "stage2", "stage3", "stage4"}
  assert set(variables) == {"params", "batch_stats"}
  assert set(variables["params"]) == set(variables["batch_stats"]) == stages
  assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


@pytest.mark.parametrize("trunk", CONVOLUTIONAL)
@pytest.mark.parametrize("output_stride", [16, 32])
def test_taps_have_the_widths_and_strides_declared(trunk, output_stride):
  model = TRUNKS[trunk](output_stride=output_stride)
  strides = (*model.STRIDES[:3], output_stride)
  outputs = jax.eval_shape(model.apply, shapes_of(model, 5), jnp.zeros((2, 128, 192, 5)))
  assert [y.shape for y in outputs[1:]] == [
    (2, 128 // s, 192 // s, w) for s, w in zip(strides, model.WIDTHS, strict=True)
  ]


@pytest.mark.parametrize("trunk", CONVOLUTIONAL)
def test_stages_compose_to_the_whole(trunk):
  model = TRUNKS[trunk]()
  variables = numbers_for(model)
  image = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
  whole = jax.jit(model.apply)(variables, image)
  head = jax.jit(lambda v, x: model.apply(v, x, last=1))(variables, image)
  # The later stages need no variables of the earlier ones.
  later = {k: {name: v[name] for name in v if name[-1] in "234"} for k, v in variables.items()}
  tail = jax.jit(lambda v, x: model.apply(v, x, first=2))(later, head[-1])
  assert (len(head), len(tail), len(whole)) == (2, 3, 5)
  for got, want in zip((*head, *tail), whole, strict=True):
    assert np.std(want) > 1e-3
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_lite0_dilates_what_follows_the_lost_stride():
  stages = lite.block_specs(16)
  assert [[spec.index for spec in stage] for stage in stages] == [
    [0, 1, 2], [3, 4], [5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15]
  ]
  assert [(spec.stride, spec.dilation) for spec in stages[3]] == [(1, 1)] + [(1, 2)] * 4
  assert {spec.dilation for stage in lite.block_specs(32) for spec in stage} == {1}


def test_lite0_at_stride_16_holds_the_stride_32_output():
  trunk = "efficientnet_lite0"
  models = [lite.EfficientNetLite0(output_stride=s, depthwise="shift") for s in (16, 32)]
  variables = load_trunk(trunk, packaged_weights(trunk), shapes_of(models[0]))
  image = jax.random.uniform(jax.random.key(0), (1, 256, 256, 3), minval=-1, maxval=1)
  fine, coarse = (jax.jit(m.apply)(variables, image)[-1] for m in models)
  assert (fine.shape, coarse.shape) == ((1, 16, 16, 320), (1, 8, 8, 320))
  assert np.std(coarse) > 0.1
  np.testing.assert_allclose(fine[:, 1::2, 1::2], coarse, atol=1e-4 * np.abs(coarse).max())


def test_half_precision_reaches_the_output_but_not_the_parameters():
  for model in (TRUNKS[name](dtype=jnp.bfloat16) for name in CONVOLUTIONAL):
    variables = shapes_of(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    outputs = jax.eval_shape(model.apply, variables, jnp.zeros((1, 64, 64, 3)))
    assert {y.dtype for y in outputs} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("trunk", CONVOLUTIONAL)
def test_bad_choices_are_refused(trunk):
  with pytest.raises(ValueError, match="output_stride is 8"):
    TRUNKS[trunk](output_stride=8)
  with pytest.raises(ValueError, match="depthwise is 'fft'"):
    lite.EfficientNetLite0(depthwise="fft")
  model, image = TRUNKS[trunk](), jnp.zeros((1, 64, 64, 3))
  for first, last in ((-1, 4), (0, 5), (3, 2)):
    with pytest.raises(ValueError, match=f"stages {first} to {last}"):
      model.apply({}, image, first=first, last=last)


@pytest.mark.parametrize(("stride", "channels"), [(1, 8), (1, 3), (2, 8)])
def test_bottleneck_matches_literal_reference(stride, channels):
  block = resnet.Bottleneck(2, stride, jnp.float32)
  variables = numbers_for(block, channels=channels)
  double = jax.tree.map(np.float64, variables)
  params, norm = double["params"], literal_norm(double, 1e-5)
  x = short = np.random.default_rng(1).normal(size=(8, 6, channels))
  y = np.maximum(norm(x @ params["conv1"]["kernel"], "norm1"), 0)
  y = np.maximum(norm(literal_conv(y, params["conv2"]["kernel"], stride, 1), "norm2"), 0)
  y = norm(y @ params["conv3"]["kernel"], "norm3")
  if (stride, channels) != (1, 8):
    short = literal_conv(short, params["downsample_conv"]["kernel"][None, None], stride, 0)
    short = norm(short, "downsample_norm")
  got = block.apply(variables, jnp.float32(x[None]))[0]
  np.testing.assert_allclose(got, np.maximum(y + short, 0), rtol=1e-4, atol=1e-4)


def test_resnet_stem_matches_literal_reference():
  stem = resnet.Stem(jnp.float32)
  variables = numbers_for(stem, channels=2)
  double = jax.tree.map(np.float64, variables)
  x = np.random.default_rng(1).normal(size=(16, 14, 2))
  y = literal_conv(x, double["params"]["conv"]["kernel"], 2, 3)
  y = literal_norm(double, 1e-5)(y, "norm")
  y = np.pad(np.maximum(y, 0), ((1, 1), (1, 1), (0, 0)))
  want = [[y[i: i + 3, j: j + 3].max((0, 1)) for j in range(0, 7, 2)] for i in range(0, 8, 2)]
  got = stem.apply(variables, jnp.float32(x[None]))[0]
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)

"""Depthwise convolution in two forms of the same values: XLA's own, and one that is fast on CPU."""

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def conv(
  x: Float[Array, "B H W C"], kernel: Float[Array, "k k 1 C"], *, stride: int, dilation: int
) -> Float[Array, "B h w C"]:
  """Convolves each channel with its own kernel, with TensorFlow's "SAME" padding."""
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), "SAME", rhs_dilation=(dilation, dilation),
    dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1],
  )


def shift(
  x: Float[Array, "B H W C"], kernel: Float[Array, "k k 1 C"], *, stride: int, dilation: int
) -> Float[Array, "B h w C"]:
  """Gives the result of `conv` as a sum of k*k shifted slices times weights.

  Much faster than XLA's grouped convolution on CPU, and so are the gradients given with it.
  """
  # A sum of 25 terms is too long for half precision.
  wide = jnp.promote_types(x.dtype, jnp.float32)
  total = cast(Array, _shift(x.astype(wide), kernel[:, :, 0].astype(wide), stride, dilation))
  return total.astype(x.dtype)


def by_platform(
  x: Float[Array, "B H W C"], kernel: Float[Array, "k k 1 C"], *, stride: int, dilation: int
) -> Float[Array, "B h w C"]:
  """Leaves the choice to where a program runs, which an exported one learns last."""
  on_cpu, elsewhere = (partial(form, stride=stride, dilation=dilation) for form in (shift, conv))
  return lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


FORMS = {"conv": conv, "shift": shift, "by_platform": by_platform}


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shift(
  x: Float[Array, "B H W C"], kernel: Float[Array, "k k C"], stride: int, dilation: int
) -> Array:
  pads = _same_pads(x, kernel, stride, dilation)
  size = tuple(-(-n // stride) for n in x.shape[1:3])
  return _window_sum(jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel, size, stride, dilation)


def _forward(x, kernel, stride, dilation):
  return _shift(x, kernel, stride, dilation), (x, kernel)


def _backward(stride, dilation, inputs, gradient):
  x, kernel = inputs
  return (
    _input_gradient(x, kernel, gradient, stride, dilation),
    _kernel_gradient(x, kernel, gradient, stride, dilation),
  )


_shift.defvjp(_forward, _backward)


def _input_gradient(x, kernel, gradient, stride, dilation):
  """Correlates the gradient, spread out by the stride, with the turned kernel."""
  reach = dilation * (kernel.shape[0] - 1)
  pads = _same_pads(x, kernel, stride, dilation)
  spread = [(0, 0, 0)]
  for axis, (before, _) in zip((1, 2), pads, strict=True):
    length = (gradient.shape[axis] - 1) * stride + 1
    left = reach - before
    spread.append((left, x.shape[axis] + reach - length - left, stride - 1))
  padded = lax.pad(gradient, jnp.zeros((), gradient.dtype), (*spread, (0, 0, 0)))
  return _window_sum(padded, kernel[::-1, ::-1], x.shape[1:3], 1, dilation)


def _kernel_gradient(x, kernel, gradient, stride, dilation):
  """Sums products of slices and gradient, row by row of the output.

  Sums over images and columns wait until the end: within the loop all is element-wise, which XLA
  turns into vector code, and nothing moves between devices that hold different images.
  """
  size = kernel.shape[0]
  columns = gradient.shape[2]
  padded = jnp.pad(x, ((0, 0), *_same_pads(x, kernel, stride, dilation), (0, 0)))

  def add_row(totals, row):
    rows = lax.dynamic_slice_in_dim(padded, row * stride, dilation * (size - 1) + 1, 1)
    here = lax.dynamic_slice_in_dim(gradient, row, 1, 1)
    pieces = (_every(rows[:, ::dilation], j * dilation, columns, stride, 2) for j in range(size))
    return tuple(t + piece * here for t, piece in zip(totals, pieces, strict=True)), None

  zero = jnp.zeros((x.shape[0], size, columns, x.shape[3]), x.dtype)
  totals, _ = lax.scan(add_row, (zero,) * size, jnp.arange(gradient.shape[1]))
  return jnp.stack([jnp.sum(total, axis=(0, 2)) for total in totals], axis=1)


def _window_sum(padded, kernel, size, stride, dilation):
  """Returns the sum over kernel cells of slices of `padded` times weights, [B, *size, C]."""
  total = jnp.zeros((), padded.dtype)
  for i in range(kernel.shape[0]):
    rows = _every(padded, i * dilation, size[0], stride, 1)
    for j in range(kernel.shape[1]):
      total = total + _every(rows, j * dilation, size[1], stride, 2) * kernel[i, j]
  return total


def _every(x, start: int, count: int, stride: int, axis: int):
  return lax.slice_in_dim(x, start, start + (count - 1) * stride + 1, stride, axis)


def _same_pads(x, kernel, stride, dilation):
  reach = dilation * (kernel.shape[0] - 1) + 1
  return lax.padtype_to_pads(x.shape[1:3], (reach, reach), (stride, stride), "SAME")

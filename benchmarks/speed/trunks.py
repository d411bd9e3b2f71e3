"""Trunks alone: the gradients of all of their parameters, and the FLOPs of their products."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.stages import Compiled

from benchmarks import programs
from lgag_jax.method import network as networks
from lgag_jax.trunks import pretrained


def build(trunk: str, depthwise: str) -> Any:
  """Returns a trunk; a Vision Transformer has a patch in every patch's side of pixels."""
  if trunk == "efficientnet_lite0":
    return pretrained.TRUNKS[trunk](depthwise=depthwise)
  net = pretrained.TRUNKS[trunk]()
  return net if trunk == "resnet50" else net.clone(output_stride=net.SPEC.patch)


def gradients(trunk: str, batch: int, side: int) -> tuple[Compiled, tuple[dict, jax.Array]]:
  """Returns the compiled gradients of mean(square(last tap)), f32, and their arguments."""
  net = build(trunk, networks.depthwise_form("auto", jax.default_backend()))
  images = jax.random.uniform(jax.random.key(0), (batch, side, side, 3))
  variables = programs.random_values(jax.eval_shape(net.init, jax.random.key(1), images))

  def loss(params: Any, variables: Mapping, images: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(net.apply({**variables, "params": params}, images)[-1]))

  arguments = jax.device_put(variables), images
  gradient = jax.jit(lambda variables, images: jax.value_and_grad(loss)(
    variables["params"], variables, images))
  return gradient.lower(*arguments).compile(), arguments


def forward_flops(trunk: str, batch: int, side: int) -> int:
  """Returns the FLOPs of the products and convolutions of a forward pass, as they are asked for."""
  net = build(trunk, "conv")  # The fast form on CPU has no convolution to count.
  images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
  variables = jax.eval_shape(net.init, jax.random.key(0), images)
  return _count(jax.make_jaxpr(lambda v, x: net.apply(v, x)[-1])(variables, images).jaxpr)


def _count(jaxpr: Any) -> int:
  """Counts what a program and those it calls multiply and add; without loops."""
  total = 0
  for equation in jaxpr.eqns:
    for inner in jax.tree.leaves(equation.params, is_leaf=_is_program):
      if _is_program(inner):
        total += _count(getattr(inner, "jaxpr", inner))
    terms = 0
    if equation.primitive.name == "dot_general":
      (contracted, _), _ = equation.params["dimension_numbers"]
      terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    elif equation.primitive.name == "conv_general_dilated":
      out = equation.params["dimension_numbers"].rhs_spec[0]
      kernel = equation.invars[1].aval.shape
      terms = math.prod(kernel) // kernel[out]
    total += 2 * terms * math.prod(equation.outvars[0].aval.shape)
  return total


def _is_program(value: Any) -> bool:
  return hasattr(value, "eqns") or hasattr(value, "jaxpr")

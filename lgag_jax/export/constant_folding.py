"""Reduces a function to the operations that depend on its inputs, and computes all others once."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.extend
from jax import lax

_CALLEE_PARAMETERS = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # Of operations that call a function.


def fold_constants(
  function: Callable, *inputs: jax.ShapeDtypeStruct, replacements: Mapping[str, Callable] = {}
) -> Callable:
  """Returns `function` with calls inlined, loops of known length unrolled and constants computed.

  The new function returns the list of the old one's leaves. It is for converters, whose time grows with
  the square of the operations and which support few kinds of calls. `replacements` are functions to use
  in place of operations, by the operations' names.
  """
  inlined = _inline(jax.make_jaxpr(function)(*inputs), replacements)
  flat = jax.make_jaxpr(inlined)(*inputs)
  varying, constant_equations = set(flat.jaxpr.invars), []
  for equation in flat.jaxpr.eqns:
    if varying.isdisjoint(_variables(equation.invars)):
      constant_equations.append(equation)
    else:
      varying.update(equation.outvars)
  equations = [equation for equation in flat.jaxpr.eqns if not varying.isdisjoint(equation.outvars)]
  computed = {variable for equation in constant_equations for variable in equation.outvars}
  used = [variable for equation in equations for variable in _variables(equation.invars)]
  used += _variables(flat.jaxpr.outvars)
  needed = [variable for variable in dict.fromkeys(used) if variable in computed]
  literals = dict(zip(flat.jaxpr.constvars, flat.consts, strict=True))

  @jax.jit
  def compute(values):
    environment = _evaluate(constant_equations, dict(zip(literals, values, strict=True)))
    return [environment[variable] for variable in needed]

  constants = literals | dict(zip(needed, compute(list(literals.values())), strict=True))

  def folded_function(*values):
    environment = constants | dict(zip(flat.jaxpr.invars, values, strict=True))
    environment = _evaluate(equations, environment)
    return [_value(variable, environment) for variable in flat.jaxpr.outvars]

  return folded_function


def _inline(closed: Any, replacements: Mapping[str, Callable]) -> Callable:
  """Returns the function of a closed jaxpr, with the functions that it calls inlined."""

  def function(*inputs):
    jaxpr = closed.jaxpr
    variables, values = [*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *inputs]
    environment = dict(zip(variables, values, strict=True))
    environment = _evaluate(jaxpr.eqns, environment, replacements)
    return [_value(variable, environment) for variable in jaxpr.outvars]

  return function


def _evaluate(
  equations: Iterable, environment: dict, replacements: Mapping[str, Callable] | None = None
) -> dict:
  """Adds the equations' results to values by variable; with `replacements` inlines calls and loops."""
  environment = dict(environment)
  for equation in equations:
    values = [_value(variable, environment) for variable in equation.invars]
    callee = next(
      (equation.params[name] for name in _CALLEE_PARAMETERS if name in equation.params), None
    )
    name = equation.primitive.name
    if replacements is not None and name in replacements:
      results = [replacements[name](*values)]
    elif replacements is not None and name == "scan":
      results = _unroll(equation.params, values, replacements)
    elif (
      replacements is not None and callee
      and len(getattr(callee, "jaxpr", callee).invars) == len(values)
    ):
      closed = callee if hasattr(callee, "consts") else jax.extend.core.ClosedJaxpr(callee, ())
      results = _inline(closed, replacements)(*values)
    else:
      parameters = equation.primitive.get_bind_params(equation.params)
      results = equation.primitive.bind(*values, **parameters)
      results = results if equation.primitive.multiple_results else [results]
    environment.update(zip(equation.outvars, results, strict=True))
  return environment


def _unroll(parameters: dict, values: list, replacements: Mapping[str, Callable]) -> list:
  """Evaluates a scan step by step; returns its final carry and its stacked outputs."""
  constant_count, carry_count = parameters["num_consts"], parameters["num_carry"]
  constants = values[:constant_count]
  carry = values[constant_count : constant_count + carry_count]
  sequences = values[constant_count + carry_count :]
  step, numbers = _inline(parameters["jaxpr"], replacements), range(parameters["length"])
  outputs = []
  for number in reversed(numbers) if parameters["reverse"] else numbers:
    inputs = [lax.index_in_dim(x, number, 0, keepdims=False) for x in sequences]
    results = step(*constants, *carry, *inputs)
    carry = results[:carry_count]
    outputs.append([lax.expand_dims(y, (0,)) for y in results[carry_count:]])
  if parameters["reverse"]:
    outputs.reverse()
  return [*carry, *(lax.concatenate(parts, 0) for parts in zip(*outputs, strict=True))]


def _variables(values: Iterable) -> list:
  return [value for value in values if not isinstance(value, jax.extend.core.Literal)]


def _value(variable: Any, environment: dict) -> Any:
  return variable.val if isinstance(variable, jax.extend.core.Literal) else environment[variable]

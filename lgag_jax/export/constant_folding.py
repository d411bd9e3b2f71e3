"""Functions reduced to what depends on their inputs: all else, such as tables, is computed once."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.extend
from jax import lax

_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # Where calls keep the function that they call.


def folded(
  function: Callable, *inputs: jax.ShapeDtypeStruct, instead: Mapping[str, Callable] = {}
) -> Callable:
  """Returns `function`, of plain operations alone, calls inlined, on constants that are worked out.

  It returns a list, the leaves of what `function` does. Loops of known length are unrolled. Converters
  take a time that grows with the square of the operations, and know some kinds of calls badly.
  `instead` has functions, by name, for operations that are to be put in other words.
  """
  flat = jax.make_jaxpr(_inlined(jax.make_jaxpr(function)(*inputs), instead))(*inputs)
  moving, still = set(flat.jaxpr.invars), []
  for equation in flat.jaxpr.eqns:
    if moving.isdisjoint(_variables(equation.invars)):
      still.append(equation)
    else:
      moving.update(equation.outvars)
  rest = [equation for equation in flat.jaxpr.eqns if not moving.isdisjoint(equation.outvars)]
  made = {variable for equation in still for variable in equation.outvars}
  read = [v for equation in rest for v in _variables(equation.invars)] + _variables(flat.jaxpr.outvars)
  wanted = [variable for variable in dict.fromkeys(read) if variable in made]
  constants = dict(zip(flat.jaxpr.constvars, flat.consts, strict=True))

  @jax.jit
  def work_out(values):
    places = _run(still, dict(zip(constants, values, strict=True)))
    return [places[variable] for variable in wanted]

  known = constants | dict(zip(wanted, work_out(list(constants.values())), strict=True))

  def result(*values):
    places = _run(rest, known | dict(zip(flat.jaxpr.invars, values, strict=True)))
    return [_value(variable, places) for variable in flat.jaxpr.outvars]

  return result


def _inlined(closed: Any, instead: Mapping[str, Callable]) -> Callable:
  """Returns a function that does what a jaxpr says, the functions that it calls included."""

  def function(*values):
    jaxpr = closed.jaxpr
    names, given = [*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *values]
    places = _run(jaxpr.eqns, dict(zip(names, given, strict=True)), instead)
    return [_value(variable, places) for variable in jaxpr.outvars]

  return function


def _run(equations: Iterable, places: dict, instead: Mapping[str, Callable] | None = None) -> dict:
  """Returns `places`, values by variable, with what the equations add.

  With `instead` calls are inlined and loops unrolled, too.
  """
  places = dict(places)
  for equation in equations:
    values = [_value(variable, places) for variable in equation.invars]
    called = next((equation.params[name] for name in _CALLS if name in equation.params), None)
    name, inline = equation.primitive.name, instead is not None
    if inline and name in instead:
      found = [instead[name](*values)]
    elif inline and name == "scan":
      found = _unrolled(equation.params, values, instead)
    elif inline and called is not None and len(_jaxpr(called).invars) == len(values):
      closed = called if hasattr(called, "consts") else jax.extend.core.ClosedJaxpr(called, ())
      found = _inlined(closed, instead)(*values)
    else:
      parameters = equation.primitive.get_bind_params(equation.params)
      found = equation.primitive.bind(*values, **parameters)
      found = found if equation.primitive.multiple_results else [found]
    places.update(zip(equation.outvars, found, strict=True))
  return places


def _unrolled(parameters: dict, values: list, instead: Mapping[str, Callable]) -> list:
  """Takes a loop's steps one after the other; returns what it carries, and what its steps yield."""
  constants, carried = parameters["num_consts"], parameters["num_carry"]
  fixed, state = values[:constants], values[constants : constants + carried]
  step, steps = _inlined(parameters["jaxpr"], instead), range(parameters["length"])
  yielded = []
  for number in reversed(steps) if parameters["reverse"] else steps:
    inputs = [lax.index_in_dim(x, number, 0, keepdims=False) for x in values[constants + carried :]]
    found = step(*fixed, *state, *inputs)
    state = found[:carried]
    yielded.append([lax.expand_dims(y, (0,)) for y in found[carried:]])
  if parameters["reverse"]:
    yielded.reverse()
  return [*state, *(lax.concatenate(parts, 0) for parts in zip(*yielded, strict=True))]


def _jaxpr(called: Any) -> Any:
  return getattr(called, "jaxpr", called)


def _variables(values: Iterable) -> list:
  return [value for value in values if not isinstance(value, jax.extend.core.Literal)]


def _value(variable: Any, places: dict) -> Any:
  return variable.val if isinstance(variable, jax.extend.core.Literal) else places[variable]

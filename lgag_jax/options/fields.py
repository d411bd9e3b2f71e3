"""Command-line flags defined by dataclass fields, typed and checked.

A flag that several modes share is defined once. If it is absent, each mode uses its own default.
"""

import dataclasses
import numbers
import os
from collections.abc import Iterable, Mapping
from typing import Any

from absl import flags

_DEFINE = {
  bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float,
  str: flags.DEFINE_string, tuple: flags.DEFINE_list,
}

_NUMBERS = {  # Lists.
  "bands": (int, "4,3,2"), "rgb_bands": (int, "4,3,2"), "cloud_classes": (int, "3,8,9"),
  "threshold": (float, "0.6"),
}


def flag(default: Any, help: str, *, empty: str = "all") -> Any:
  """Returns a dataclass field that is also a flag; `empty` is what an empty list by default means."""
  return dataclasses.field(default=default, metadata={"help": help, "empty": empty})


def require(condition: Any, options: Any, name: str, requirement: str) -> None:
  """Raises ValueError naming a flag and its value unless the condition holds."""
  if not condition:
    value = getattr(options, name)
    text = ",".join(map(str, value)) if isinstance(value, tuple) else value
    raise ValueError(f"--{name}={text}: must be {requirement}.")


def give_types(options: Any) -> None:
  """Gives each field the type of its default, as callers from Python may write it otherwise.

  A list is a tuple, a number is a tuple of one, 64.0 is 64, a path is its text and None is the default.
  Raises ValueError naming a field that holds anything else.
  """
  for field in dataclasses.fields(options):
    value = getattr(options, field.name)
    try:
      object.__setattr__(options, field.name, _typed(field, value))
    except (TypeError, ValueError, OverflowError):
      raise ValueError(
        f"--{field.name}={value!r:.80} ({type(value).__name__}): must be {_kind_text(field)}."
      ) from None


def _typed(field: dataclasses.Field, value: Any) -> Any:
  if value is None:
    return field.default
  if isinstance(field.default, tuple):
    parts = value if isinstance(value, Iterable) else (value,)
    return tuple(_number(_NUMBERS[field.name][0], part) for part in parts)
  if isinstance(field.default, str):
    return str(os.fspath(value) if isinstance(value, os.PathLike) else _text(value))
  return _number(type(field.default), value)


def _number(kind: type, value: Any) -> Any:
  if not isinstance(value, numbers.Real) or isinstance(value, bool) or kind(value) != value:
    raise TypeError
  return kind(value)


def _text(value: Any) -> str:
  if not isinstance(value, str):
    raise TypeError
  return value


def _kind_text(field: dataclasses.Field) -> str:
  """Returns what the type of a field is called in messages."""
  if isinstance(field.default, tuple):
    return f"numbers such as ({_NUMBERS[field.name][1]},)"
  return {str: "text", int: "a whole number", float: "a number"}[type(field.default)]


def help_text(field: dataclasses.Field, *, default: bool = True) -> str:
  """Returns the help text of a field made by `flag`, with its default value if `default` is set."""
  text = field.metadata["help"]
  return f"{text} Default: {_default_text(field)}." if default else text


def define(modes: Mapping[str, tuple[type, ...]]) -> None:
  """Defines a flag for each field that `flag` made in the modes' dataclasses."""
  definitions: dict[str, tuple[type, dict[str, list[str]]]] = {}  # Type, and modes by help text.
  for mode, classes in modes.items():
    for field in (field for cls in classes for field in dataclasses.fields(cls) if field.metadata):
      texts = definitions.setdefault(field.name, (type(field.default), {}))[1]
      texts.setdefault(help_text(field), []).append(mode)
  for name, (kind, texts) in definitions.items():
    _DEFINE[kind](name, None, " ".join(f"{', '.join(users)}: {t}" for t, users in texts.items()))


def read(cls: type, **other_fields: Any) -> Any:
  """Builds a mode's dataclass of flags and `other_fields`; raises ValueError naming an invalid flag."""
  values = {}
  for field in dataclasses.fields(cls):
    value = getattr(flags.FLAGS, field.name) if field.metadata else None
    if value is not None:
      values[field.name] = tuple(value) if isinstance(field.default, tuple) else value
  for name, (kind, example) in _NUMBERS.items():
    try:
      if name in values:
        values[name] = tuple(map(kind, values[name]))
    except ValueError:
      text = ",".join(values[name])
      raise ValueError(f"--{name}={text}: must be numbers such as {example}.") from None
  return cls(**values, **other_fields)


def parse(field: dataclasses.Field, text: str) -> Any:
  """Returns the value that a flag's text gives a field made by `flag`, but for Boolean ones.

  Raises ValueError for a text of another type.
  """
  if isinstance(field.default, tuple):
    return tuple(map(_NUMBERS[field.name][0], text.split(",")))
  return type(field.default)(text)


def _default_text(field: dataclasses.Field) -> str:
  default: Any = field.default
  if isinstance(default, tuple):
    return ",".join(map(str, default)) or field.metadata["empty"]
  return f"{default:g}" if isinstance(default, float) else str(default) or "none"

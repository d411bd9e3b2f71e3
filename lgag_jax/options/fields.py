"""Command-line flags made of a dataclass's fields: what a mode is told is typed, checked when built.

A flag that several modes take is defined once; not given, it is each one's own default.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from absl import flags

_DEFINE = {
  bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float,
  str: flags.DEFINE_string, tuple: flags.DEFINE_list,
}


def flag(default: Any, help: str) -> Any:
  """Returns a dataclass field that is a flag, too."""
  return dataclasses.field(default=default, metadata={"help": help})


def described(field: dataclasses.Field, *, default: bool = True) -> str:
  """Returns what a field that `flag` made means, with its default where that is wanted."""
  text = field.metadata["help"]
  return f"{text} Default: {_shown(field.default)}." if default else text


def define(modes: Mapping[str, tuple[type, ...]]) -> None:
  """Defines a flag for each field of the modes' dataclasses that `flag` made."""
  found: dict[str, tuple[type, dict[str, list[str]]]] = {}
  for mode, classes in modes.items():
    for field in (field for cls in classes for field in dataclasses.fields(cls) if field.metadata):
      texts = found.setdefault(field.name, (type(field.default), {}))[1]
      texts.setdefault(described(field), []).append(mode)
  for name, (kind, texts) in found.items():
    _DEFINE[kind](name, None, " ".join(f"{', '.join(users)}: {t}" for t, users in texts.items()))


def read(cls: type, **given: Any) -> Any:
  """Builds a mode's dataclass of the flags and what is `given`; raises ValueError naming a flag."""
  values = {}
  for field in dataclasses.fields(cls):
    value = getattr(flags.FLAGS, field.name) if field.metadata else None
    if value is not None:
      values[field.name] = tuple(value) if isinstance(field.default, tuple) else value
  if "bands" in values:
    try:
      values["bands"] = tuple(map(int, values["bands"]))
    except ValueError:
      raise ValueError(f"--bands={','.join(values['bands'])}: give numbers such as 4,3,2.") from None
  return cls(**values, **given)


def _shown(default: Any) -> str:
  if isinstance(default, tuple):
    return ",".join(default) or "all"
  return f"{default:g}" if isinstance(default, float) else str(default) or "none"

"""Checks of fields: each raises ValueError naming the field, its value and the remedy."""

import math
from typing import Any


def require(condition: bool, name: str, value: Any, remedy: str) -> None:
  if not condition:
    raise ValueError(f"config.{name}={value!r}: {remedy}")


def one_of(name: str, value: Any, choices: tuple) -> None:
  require(value in choices, name, value, f"must be one of {', '.join(map(repr, choices))}.")


def positive(group: str, settings: Any, *names: str) -> None:
  for name in names:
    value = getattr(settings, name)
    require(0 < value < math.inf, f"{group}.{name}", value, "must be positive, and finite.")


def not_negative(group: str, settings: Any, *names: str) -> None:
  for name in names:
    value = getattr(settings, name)
    require(0 <= value < math.inf, f"{group}.{name}", value, "must not be negative, nor infinite.")


def at_most(group: str, settings: Any, limit: int, *names: str) -> None:
  for name in names:
    value = getattr(settings, name)
    require(value <= limit, f"{group}.{name}", value, f"must be at most {limit}.")


def fraction(group: str, settings: Any, *names: str) -> None:
  for name in names:
    value = getattr(settings, name)
    require(0.0 <= value <= 1.0, f"{group}.{name}", value, "must lie in [0, 1].")

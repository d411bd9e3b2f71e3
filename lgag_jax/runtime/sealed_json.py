"""JSON files that contain a digest of their contents, to detect later damage.

A digest in the file itself stays with it when it is copied. Files of earlier releases have none.
"""

import hashlib
import json
import pathlib
from typing import Any

from lgag_jax.runtime import files

_KEY = "sha256"


def write(path: pathlib.Path, content: dict) -> None:
  """Writes JSON with the digest of its contents atomically."""
  files.write_json(path, {**content, _KEY: _digest(content)})


def read(path: pathlib.Path, remedy: str) -> Any:
  """Reads JSON without its digest; raises ValueError, with the remedy, if the digest does not match."""
  content = files.read_json(path)
  if isinstance(content, dict) and _KEY in content:
    digest = content.pop(_KEY)
    if digest != _digest(content):
      raise ValueError(
        f"{path} is damaged: its contents do not have its {_KEY}. {remedy} If you changed the file "
        f"yourself, remove its line {_KEY}."
      )
  return content


def is_number(value: Any, low: float, high: float) -> bool:
  """Returns whether a value of JSON is a number, not a Boolean, from `low` to `high`."""
  return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _digest(content: dict) -> str:
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

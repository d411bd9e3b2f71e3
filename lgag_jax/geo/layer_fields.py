"""Reads the fields of layers, and a review's decisions among them.

A GIS may change the case of field names: shapefiles often have DECISION for `decision`.
"""

import logging
import pathlib
import re
from collections.abc import Iterable

_LOG = logging.getLogger(__name__)

DECISION, NOT_LANDSLIDE = "decision", "not_landslide"
REVIEW_FIELDS = {"feature", "number", DECISION, "class"}  # `tiling.review_files` explains them.
_LANDSLIDES = {"accepted", "redrawn", "missed"}
_REVIEW_WORDS = {*_LANDSLIDES, "rejected", NOT_LANDSLIDE}
# Beginnings of other words for what is no landslide: "no", "non-landslide", "False", 0.
_DENIAL = re.compile(r"(no|non|not|none|reject\w*|false|0)(_|$)")


def name_in(fields: Iterable[str], name: str) -> str | None:
  """Returns the field with a name, else the first one whose name differs in case only."""
  fields = list(fields)
  if name in fields:
    return name
  return next((field for field in fields if field.lower() == name.lower()), None)


def of_review(fields: Iterable[str]) -> bool:
  """Returns whether a layer has the fields of an exported review."""
  return {field.lower() for field in fields} >= REVIEW_FIELDS


def text(value: object) -> str:
  """Returns a field's value as a table has it: null as "", and whole numbers without a point."""
  if value is None or value != value:
    return ""
  return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def decision_word(value: object) -> str:
  """Returns a decision in lower case, with underscores for blanks and hyphens."""
  return re.sub(r"[\s_-]+", "_", text(value).strip().lower())


def check_decisions(path: pathlib.Path, values: Iterable[object]) -> None:
  """Raises ValueError if the values in a field `decision` do not call all shapes landslides.

  Logs a warning if its words are not those of a review, such as notes of somebody's own.
  """
  words = {decision_word(value): text(value) for value in values}
  if words.keys() & _REVIEW_WORDS:
    others = words.keys() - _LANDSLIDES
  else:
    others = {word for word in words if _DENIAL.match(word)}
  if others:
    word = words[max(others)]  # Rather not the empty one.
    raise ValueError(
      f"{path} cannot be read as labels: its field {DECISION} says that some of its shapes are "
      f"{word or 'undecided'}, and all would count as landslides. Keep only the shapes of landslides "
      "in the layer. Only --mode=tile reads a layer of both, if the field says missed or "
      f"{NOT_LANDSLIDE} of each shape."
    )
  if unclear := sorted(words[word] for word in words.keys() - _LANDSLIDES - {""}):
    _LOG.warning(
      "%s: all of its shapes count as landslides, also those whose field %s says %s. Remove those that "
      "are none.", path, DECISION, ", ".join(map(repr, unclear[:5])),
    )

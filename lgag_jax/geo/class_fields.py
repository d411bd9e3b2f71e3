"""Reads from the fields of a layer which class each shape has, and whether a shape is no landslide."""

import pathlib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lgag_jax.geo import layer_fields

# Without --field, all shapes count as landslides, unless one of these fields says something else. So
# may fields whose names end in one of them, such as is_landslide, LS_Type or review_status.
_NAMES = ("class", "label", "type", "kind", "status", "landslide", "landslides", "review")
# What tools call the value of a raster that they draw polygons of, also of its background.
_DRAWN_VALUES = ("dn", "gridcode", "grid_code", "raster_val", "raster_value", "pixel_value")
_RASTER_VALUES = (*_DRAWN_VALUES, "value", "class_id", "mask", "pred", "prediction")
_LISTS = ("class", "label")  # Whoever names a class there tells it from the others.
_YES, _NO = {"1", "yes", "y", "true", "t"}, {"0", "no", "n", "false", "f"}
_DENIALS = {
  "rejected", "background", "negative", "false_positive", "false_alarm", "deleted", "removed",
  "discarded",
}
_CODES = {"0", "1", "2"}  # No, yes and, where there is a third, unsure.
_PLAIN = re.compile(r"[\w .,'=-]+")  # What a shell leaves as it is between double quotes.
_NEGATIONS = ("no", "non", "not", "no_", "non_", "not_", "not_a_")


def check_field(fields: Sequence[str], field: str, classes: tuple[str, ...]) -> None:
  """Raises ValueError unless a layer has the field --field, or needs none since there is one class."""
  if field and field not in fields:
    raise ValueError(f"it has no field {field!r}: choose one with --field, of {', '.join(fields)}")
  if not field and len(classes) > 1:
    raise ValueError(
      f"set --field to the one of its fields ({', '.join(fields)}) that holds the class, of "
      f"{', '.join(classes)}"
    )


def class_numbers(
  path: pathlib.Path, values: np.ndarray, field: str, classes: tuple[str, ...]
) -> np.ndarray:
  """Returns u8[n], the class of each value of --field; raises ValueError for values that are none."""
  texts = [layer_fields.text(value) for value in values.tolist()]
  names, inverse = np.unique(texts, return_inverse=True)
  for name in names:
    if name not in classes:
      raise ValueError(
        f"{path}: the field {field} holds {str(name)!r}, which is not among the classes "
        f"({', '.join(classes)}): add it to the classes, or keep only shapes of the classes (ogr2ogr "
        "-where)."
      )
  return np.array([classes.index(name) + 1 for name in names], np.uint8)[inverse]


def of_kinds(fields: Iterable[str]) -> list[str]:
  """Returns the fields that `check_kinds` reads, as the layer spells them."""
  return [field for field in fields if _name(field) or field.lower() in _RASTER_VALUES]


def check_kinds(
  path: pathlib.Path, values: Mapping[str, Iterable[object]], classes: tuple[str, ...], background: str
) -> None:
  """Raises ValueError if fields say that some shapes are no landslides, or are of several classes.

  `values` holds those of each field of `of_kinds`. Without --field, all shapes would count as
  landslides. An inventory with a field `type` of slides, flows and falls is taken as it is.
  """
  classes = tuple(map(layer_fields.decision_word, classes))
  denials = _DENIALS | {layer_fields.decision_word(background)}
  for field, column in values.items():
    column = list(column)
    by_word = _by_word(column)
    words = _denied(field.lower(), set(by_word), set(classes), denials - set(classes))
    if _name(field) in ("landslide", "landslides", *_LISTS) and _are_codes(column, set(by_word)):
      words |= {"0"}
    if not words:
      continue
    other = layer_fields.text(by_word[min(words)]).strip()
    kept = sorted(by_word.keys() - words, key=lambda word: (word not in classes, word))
    where = f"{field} = {_literal(by_word[kept[0]])}" if kept else ""
    quoted = f'"{where}"' if _PLAIN.fullmatch(where) else shlex.quote(where)
    raise ValueError(
      f"{path} cannot be read as labels: its field {field} says {other!r} of some of its shapes, and "
      f"all would count as landslides. Name the field: --field={field}. In --mode=tile it may hold "
      f"{background or 'the background'}, too. Or keep only the landslides"
      + (f": ogr2ogr -where {quoted} new.gpkg {shlex.quote(str(path))}" if where else "")
      + ". If the field says something else of the shapes, rename it."
    )


def check_negatives(
  path: pathlib.Path, values: Mapping[str, Iterable[object]], classes: tuple[str, ...]
) -> None:
  """Raises ValueError if fields of --negative_labels call a shape a landslide.

  The arguments are those of `check_kinds`.
  """
  landslides = {"landslide", "landslides", *map(layer_fields.decision_word, classes)}
  for field, column in values.items():
    by_word = _by_word(column)
    tells = _name(field) in ("landslide", "landslides")
    words = set(by_word) & (landslides | (_YES if tells else set()))
    if words:
      text = layer_fields.text(by_word[min(words)]).strip()
      raise ValueError(
        f"--negative_labels={path} holds landslides: its field {field} says {text!r}. Keep only the "
        f"shapes that are none. If one layer holds both, give it as --labels, with --field={field}."
      )


def _by_word(column: Iterable[object]) -> dict[str, object]:
  """Returns the different values of a field by their words, without the empty ones."""
  by_word = {layer_fields.decision_word(value): value for value in column}
  by_word.pop("", None)
  return by_word


def _name(field: str) -> str:
  """Returns which of _NAMES a field has, alone or at its end; "" if none."""
  field = field.lower()
  return next((name for name in _NAMES if field == name or field.endswith(f"_{name}")), "")


def _are_codes(column: list[object], words: set[str]) -> bool:
  """Returns whether numbers repeat as codes do; those of a list of shapes do not."""
  filled = sum(bool(layer_fields.decision_word(value)) for value in column)
  return {"0", "2"} <= words <= _CODES and filled > len(words)


def _denied(field: str, words: set[str], classes: set[str], denials: set[str]) -> set[str]:
  """Returns which words of a field name what is no landslide, or another class."""
  landslides = {"landslide", "landslides", *classes}
  denied = {*landslides, "slide", "slides"}
  found = words & (denials | {negation + name for negation in _NEGATIONS for name in denied})
  found -= classes
  tells = _name(field) in ("landslide", "landslides")
  if words <= _YES | _NO and (tells or (field in _LISTS and len(words) > 1)):
    found |= words & _NO
  if field in _RASTER_VALUES and (len(words) > 1 or field in _DRAWN_VALUES):
    found |= words & {"0"}
  if field in _LISTS and words & classes and len(words) > 1:
    found |= words - classes
  return found


def _literal(value: object) -> str:
  """Returns a value as SQL writes it."""
  if isinstance(value, str):
    return "'" + value.replace("'", "''") + "'"
  return layer_fields.text(int(value) if isinstance(value, bool) else value)

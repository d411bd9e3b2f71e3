"""The evaluation of scene maps as sentences and tables, for the page and for Markdown."""

import collections
from collections.abc import Iterable, Sequence

from lgag_jax.evaluation.tables import RATE_NAMES, number, rates
from lgag_jax.pages import rendering
from lgag_jax.pages.rendering import Table

MAX_ROWS = 500
_COUNTS = ("landslides", "detected", "missed", "polygons", "false_alarms")
_COUNT_NAMES = tuple(kind.replace("_", " ") for kind in _COUNTS)


def area(square_metres: float) -> str:
  """Returns an area in m², ha or km²."""
  if square_metres >= 1e6:
    return f"{square_metres / 1e6:,.2f} km²"
  if square_metres >= 1e4:
    return f"{square_metres / 1e4:,.2f} ha"
  return f"{square_metres:,.0f} m²" if square_metres >= 1 or not square_metres else (
    f"{square_metres:.2g} m²"
  )


def names_of(scenes: Sequence[dict]) -> dict[str, str]:
  """Returns each scene's file name by its stem, or its path if several scenes have this file name."""
  counts = collections.Counter(scene["file"] for scene in scenes)
  return {
    scene["stem"]: scene["file"] if counts[scene["file"]] == 1 else scene.get("path") or scene["stem"]
    for scene in scenes
  }


def notes(result: dict) -> list[str]:
  """Returns paragraphs that say what the figures of `judge.evaluate` cover."""
  return rendering.paragraphs("scene_notes.txt", result=result)


def tables(result: dict) -> list[Table]:
  """Returns the tables of what `judge.evaluate` returns."""
  by_class = result["classes"].items()
  return [
    _pixels(result),
    *(
      table for name, values in by_class for objects in values["objects"]
      for table in (_objects(name, objects), _sizes(name, objects))
    ),
    *(table(name, result) for name, _ in by_class for table in (_scene_pixels, _scene_objects)),
  ]


def markdown(result: dict) -> str:
  """Returns the Markdown of what `judge.evaluate` returns."""
  return rendering.markdown("scenes.md", notes=notes(result), tables=tables(result))


def _pixels(result: dict) -> Table:
  rows = []
  for name, values in result["classes"].items():
    index = values.get("colour_index")  # Not in files of earlier releases, or without a rule.
    for map_name, origin, figures in (
      ("network", _origin(result), values),
      *([(f"no network: {index['rule']}", "label-free", index)] if index else ()),
    ):
      for kind, label in (("label_free", origin), ("oracle", "oracle")):
        rows.append((name, map_name, label, number(figures[kind]["threshold"]), *rates(figures[kind])))
  return Table(("class", "map", "threshold from", "threshold", *RATE_NAMES), rows, "Pixels", 3)


def _origin(result: dict) -> str:
  """Returns where the maps' threshold comes from."""
  rule = result["threshold_rule"]
  return rule if rule.startswith("--") else "label-free"


def _amounts(values: dict, unit: str) -> Iterable[str]:
  """Yields each count with its area in brackets; areas outside the projection are unknown."""
  for kind in _COUNTS:
    size = values[f"{kind}_area"]
    if values[kind] and not size:
      yield f"{values[kind]:,} (area unknown)"
      continue
    yield f"{values[kind]:,} ({area(size) if unit == 'm2' else f'{size:,.0f} px'})"


def _objects(name: str, objects: dict) -> Table:
  metrics = (number(objects[key]) for key in ("precision", "recall", "f1"))
  columns = (*_COUNT_NAMES, "precision", "recall", "F1")
  rows = [(*_amounts(objects, objects["unit"]), *metrics)]
  return Table(columns, rows, f"Objects: {name}, count and area in {_unit(objects)}")


def _sizes(name: str, objects: dict) -> Table:
  rows, sizes = [], objects["sizes"]
  for i, row in enumerate(sizes):
    if any(row[kind] for kind in _COUNTS):
      upper = f" to {sizes[i + 1]['from_area']:,}" if i + 1 < len(sizes) else " or more"
      rows.append((f"{row['from_area']:,}{upper}", *_amounts(row, objects["unit"])))
  return Table((_unit(objects), *_COUNT_NAMES), rows, f"Objects by size: {name}")


def _unit(objects: dict) -> str:
  return "m²" if objects["unit"] == "m2" else "pixels"


def _scene_pixels(name: str, result: dict) -> Table:
  rows, names = [], names_of(result["scenes"])
  for scene in result["scenes"][:MAX_ROWS]:
    pixels, values = scene["pixels"], scene["classes"][name]
    label_free, oracle = values["label_free"], values["oracle"]
    rows.append((
      names[scene["stem"]], scene["reference"],
      *(f"{pixels[kind]:,}" for kind in ("judged", "no_data", "unknown")),
      f"{label_free['landslide_pixels']:,.0f}",
      *(number(label_free[rate]) for rate in ("precision", "recall", "iou")),
      number(oracle["threshold"]), number(oracle["iou"]),
    ))
  columns = (
    "scene", "reference", "evaluated", "nodata", "unknown", "landslide", "precision", "recall", "IoU",
    "oracle's threshold", "oracle's IoU",
  )
  return Table(columns, rows, _scenes_title("Pixels", name, result), 2)


def _scene_objects(name: str, result: dict) -> Table:
  rows, names = [], names_of(result["scenes"])
  for scene in result["scenes"][:MAX_ROWS]:
    objects = scene["classes"][name]["objects"]
    counts = (f"{objects[kind]:,}" for kind in (*_COUNTS, "unknown_polygons"))
    rows.append((names[scene["stem"]], *counts))
  columns = ("scene", *_COUNT_NAMES, "polygons on unknown ground")
  return Table(columns, rows, _scenes_title("Objects", name, result))


def _scenes_title(subject: str, name: str, result: dict) -> str:
  title, count = f"{subject} by scene: {name}", len(result["scenes"])
  return title if count <= MAX_ROWS else f"{title} ({MAX_ROWS} of {count:,}; scenes.json lists all)"

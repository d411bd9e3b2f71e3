"""What judging maps of scenes found, as tables, and as Markdown, for people."""

import dataclasses
import html

from lgag_jax.evaluation.tables import number

MOST_ROWS = 500
_RATES = ("precision", "recall", "f1", "iou", "accuracy", "kappa")
_COUNTS = ("landslides", "detected", "missed", "polygons", "false_alarms")


@dataclasses.dataclass(frozen=True)
class Table:
  """A table's cells, as plain text."""

  title: str
  columns: tuple[str, ...]
  rows: list[tuple[str, ...]]


def area(square_metres: float) -> str:
  """Returns an area in a unit that suits it."""
  if square_metres >= 1e6:
    return f"{square_metres / 1e6:,.2f} km²"
  return f"{square_metres / 1e4:,.2f} ha" if square_metres >= 1e4 else f"{square_metres:,.0f} m²"


def words(result: dict) -> list[str]:
  """Says what the figures are of, a paragraph each."""
  pixels, least = result["pixels"], f"{100 * result['min_overlap']:g} %"
  count = len(result["scenes"])
  text = [
    f"{'1 scene' if count == 1 else f'{count:,} scenes'}, maps of step {result['step']}. "
    f"{pixels['judged']:,} pixels are judged; {pixels['no_data']:,} hold no data, and of "
    f"{pixels['unknown']:,} the reference says nothing: they count nowhere. Counts are pooled over all "
    "scenes; the named class is positive. The label-free threshold follows the rule "
    f"\"{result['threshold_rule']}\", which has seen no mask: it is what the maps are drawn with. The "
    "oracle's is the best one in hindsight, read off these references.",
    "Landslides are the connected regions of the reference where the map has data, mapped polygons "
    f"those of the map that are large enough to be written. A landslide is detected when at least "
    f"{least} of it lies in polygons of its class, a polygon is a false alarm when less than {least} "
    "of what is known of it lies on landslides.",
  ]
  if result["probability"] == "percent":
    text.append("Probabilities were written as whole percent: the oracle chooses among 101 levels.")
  for name, values in result["classes"].items():
    if not values["label_free"]["landslide_pixels"]:
      text.append(f"No reference shows any {name}: its precision, recall, F1 and IoU say nothing.")
  if result["left_out"]:
    text.append("Not judged: " + "; ".join(f"{k}: {v}" for k, v in result["left_out"].items()) + ".")
  return text


def tables(result: dict) -> list[Table]:
  """Returns the tables of what `judge_scenes.evaluate` returns."""
  found = [_pixels(result)]
  for name, values in result["classes"].items():
    for objects in values["objects"]:
      found += [_objects(name, objects), _sizes(name, objects)]
  return [*found, *(_scenes(name, result) for name in result["classes"])]


def markdown(result: dict) -> str:
  """Renders what `judge_scenes.evaluate` returns."""
  lines = ["# Maps of scenes against references"]
  for paragraph in words(result):
    lines += ["", _plain(paragraph)]
  for table in tables(result):
    lines += ["", f"## {_plain(table.title)}", "", _line(table.columns)]
    lines += ["|" + " --- |" * len(table.columns), *map(_line, table.rows)]
  return "\n".join(lines) + "\n"


def _line(cells: tuple[str, ...]) -> str:
  return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
  """Keeps names of files and classes from being taken for markup."""
  return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def _pixels(result: dict) -> Table:
  rows = []
  for name, values in result["classes"].items():
    for kind in ("label_free", "oracle"):
      rates = values[kind]
      figures = (f"{rates[column]:.3f}" for column in ("threshold", *_RATES))
      rows.append((name, kind.replace("_", "-"), *figures))
  return Table("Pixels", ("class", "threshold", "value", *_RATES), rows)


def _amount(values: dict, kind: str, unit: str) -> str:
  size = values[f"{kind}_area"]
  return f"{values[kind]:,} ({area(size) if unit == 'm2' else f'{size:,.0f} px'})"


def _objects(name: str, objects: dict) -> Table:
  counts = (_amount(objects, kind, objects["unit"]) for kind in _COUNTS)
  rates = (number(objects[rate]) for rate in ("precision", "recall", "f1"))
  columns = (*(kind.replace("_", " ") for kind in _COUNTS), "precision", "recall", "f1")
  return Table(f"Objects: {name}, by area in {_unit(objects)}", columns, [(*counts, *rates)])


def _sizes(name: str, objects: dict) -> Table:
  rows, sizes = [], objects["sizes"]
  for i, row in enumerate(sizes):
    if not any(row[kind] for kind in _COUNTS):
      continue
    upper = f" to {sizes[i + 1]['from_area']:,}" if i + 1 < len(sizes) else " or more"
    rows.append((f"{row['from_area']:,}{upper}", *(_amount(row, k, objects["unit"]) for k in _COUNTS)))
  columns = (_unit(objects), *(kind.replace("_", " ") for kind in _COUNTS))
  return Table(f"Objects by size: {name}", columns, rows)


def _unit(objects: dict) -> str:
  return "m²" if objects["unit"] == "m2" else "pixels"


def _scenes(name: str, result: dict) -> Table:
  rows = []
  for scene in result["scenes"][:MOST_ROWS]:
    values, pixels = scene["classes"][name], scene["pixels"]
    rates, objects = values["label_free"], values["objects"]
    rows.append((
      scene["file"], scene["reference"], *(f"{pixels[k]:,}" for k in ("judged", "no_data", "unknown")),
      f"{rates['landslide_pixels']:,.0f}",
      *(f"{rates[rate]:.3f}" for rate in ("precision", "recall", "iou")),
      f"{values['oracle']['threshold']:.3f}", f"{values['oracle']['iou']:.3f}",
      *(f"{objects[kind]:,}" for kind in _COUNTS), str(objects["unknown_polygons"]),
    ))
  title = f"Scenes: {name}"
  if len(result["scenes"]) > len(rows):
    title += f" ({len(rows)} of {len(result['scenes']):,}; all are in scenes.json)"
  return Table(title, (
    "scene", "reference", "pixels judged", "no data", "unknown", "landslide pixels", "precision",
    "recall", "IoU", "oracle's threshold", "oracle's IoU", *(k.replace("_", " ") for k in _COUNTS),
    "polygons on unknown ground",
  ), rows)

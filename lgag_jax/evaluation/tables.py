"""An evaluation as sentences and tables, for the page and for Markdown."""

import dataclasses
from collections.abc import Iterable

from lgag_jax.pages import rendering
from lgag_jax.pages.rendering import Table

_RULES = {
  "otsu": "Otsu's split of the scores on training images that the classifier calls positive",
  "argmax": "equal scores of class and background",
  "agreement": "agreement with the labels of the training images, where their maps are steepest",
}
_RATES = ("precision", "recall", "f1", "iou", "accuracy", "kappa")
RATE_NAMES = ("precision", "recall", "F1", "IoU", "accuracy", "kappa")  # Columns of a table.


@dataclasses.dataclass(frozen=True)
class ClassSummary:
  """One class: figures of the image classifier, findings, and tables of its maps.

  `findings` are (level, text, remedy). Without mask pixels of the class, the tables of maps hold
  thresholds only and `sizes` is None.
  """

  name: str
  classifier: Table
  findings: list[tuple[str, str, str]]
  has_masks: bool
  pixels: Table
  rules: Table
  sizes: Table | None
  coverage: Table | None  # How much is mapped, by the images' labels; not in files of release 0.1.0.


def summarise(result: dict) -> list[ClassSummary]:
  """Returns a summary per class of what `evaluate.evaluate` returns."""
  return [_summary(name, values, result["map"]) for name, values in result["classes"].items()]


def evaluation(result: dict) -> str:
  """Returns the Markdown of what `evaluate.evaluate` returns."""
  return rendering.markdown("evaluation.md", result=result, classes=summarise(result))


def map_title(name: str) -> str:
  """Returns a map's name for readers."""
  return "anchor-guided" if name == "anchor_guided" else name.replace("_", " ")


def rule_title(rule: str) -> str:
  """Returns what a threshold rule does; the name of a rule of an earlier release."""
  return _RULES.get(rule, rule)


def number(value: float | None) -> str:
  """Returns three decimals, or a dash for None."""
  return "-" if value is None else f"{value:.3f}"


def rates(values: dict) -> list[str]:
  """Returns the cells under RATE_NAMES in a table."""
  return [number(values[name]) for name in _RATES]


def _summary(name: str, values: dict, main: str) -> ClassSummary:
  maps = values["maps"]
  masks = all(figures["label_free"]["landslide_pixels"] > 0 for figures in maps.values())
  kinds = {"label_free": "label-free", "oracle": "oracle"} if masks else {"label_free": "label-free"}
  pixels = [
    ((map_title(map_name), label), figures[kind])
    for map_name, figures in maps.items() for kind, label in kinds.items()
  ]
  index = values.get("colour_index")  # Not in files of release 0.1.0.
  if index and masks:
    pixels += [((f"no network: {index['rule']}", label), index[kind]) for kind, label in kinds.items()]
  rules = [((rule_title(rule),), figures) for rule, figures in maps[main]["rules"].items()]
  return ClassSummary(
    name=name, classifier=_classifier(values), has_masks=masks,
    findings=[(found["level"], found["text"], found["remedy"]) for found in values["diagnosis"]],
    pixels=_rate_table(("map", "threshold from"), pixels, masks),
    rules=_rate_table((f"threshold rule, {map_title(main)}",), rules, masks),
    sizes=_sizes(maps[main]["recall_by_size"], map_title(main)) if masks else None,
    coverage=_coverage(maps[main].get("coverage"), values.get("training_coverage")),
  )


def _coverage(validation: dict | None, training: dict | None) -> Table | None:
  """Returns the table of the sizes of maps, which need no masks."""
  if not validation:
    return None
  columns = {"validation": validation} | ({"training": training} if training else {})
  share = lambda value: "-" if value is None else f"{100 * value:.3g} %"
  rows = [
    ("positive images in which nothing is mapped",
     *(f"{v['black']} of {v['positive_images']}" for v in columns.values())),
    ("images called positive that are mapped nearly as a whole",
     *(f"{v['white']} of {v['found_images']}" for v in columns.values())),
    ("mapped share of negative images", *(share(v["negative_share"]) for v in columns.values())),
  ]
  return Table(("size of maps, by the labels of images", *columns), rows)


def _rate_table(
  columns: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], dict]], masks: bool
) -> Table:
  names = (*columns, "threshold", *(RATE_NAMES if masks else ()))
  cells = [
    (*labels, number(values["threshold"]), *(rates(values) if masks else ())) for labels, values in rows
  ]
  return Table(names, cells, text_columns=len(columns))


def _classifier(values: dict) -> Table:
  image, by_colours = values["image"], values.get("image_scores_of") == "colours"
  errors = [
    f"{int(image[kind])} of {int(image[total])} ({100 * image[rate]:.3g} %)" if image[total] else "-"
    for kind, total, rate in (
      ("false_alarms", "negatives", "false_alarm_rate"), ("missed", "positives", "missed_rate"),
    )
  ]
  return Table(("image classifier", "value"), [
    ("decides by", "colours" if by_colours else "the network's scores"),
    ("AUC", number(image["auc"])), ("accuracy", number(image["accuracy"])), ("F1", number(image["f1"])),
    ("expected calibration error, ten bins", number(image["expected_calibration_error"])),
    ("Brier score", number(image["brier"])), ("false alarms on negative images", errors[0]),
    ("missed positive images", errors[1]),
  ])


def _sizes(rows: list[dict], name: str) -> Table:
  cells = []
  for i, row in enumerate(rows):
    upper = f" to {rows[i + 1]['from_pixels'] - 1}" if i + 1 < len(rows) else " or more"
    recalls = [f"{row[key]:.2f}" if row["landslides"] else "-" for key in ("found", "pixel_recall")]
    cells.append((f"{row['from_pixels']}{upper}", row["landslides"], *recalls))
  columns = ("pixels", "landslides", "share at least half detected", "pixel recall")
  return Table(columns, cells, f"Landslides by size ({name}, label-free threshold)")

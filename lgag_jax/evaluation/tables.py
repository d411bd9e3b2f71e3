"""Metrics as Markdown, for people."""

MAP_NAMES = {
  "class_activation": "class activation", "anchor_guided": "anchor-guided",
  "segmentation": "segmentation",
}
_COLUMNS = ("precision", "recall", "f1", "iou", "accuracy", "kappa")

NO_MASKS = "No mask here shows any of this class: figures of its pixels say nothing."
HOW_TO_CHANGE = (
  "Settings under localize are changed in the workdir's config.json, and --mode=eval shows what they "
  "do; all others need a new training in another workdir."
)
NOTHING_FOUND = "None of the checks on the image classifier and the maps found anything wrong."


def has_masks(maps: dict) -> bool:
  """Whether the evaluated masks hold any pixel of a class."""
  return all(values["label_free"]["landslide_pixels"] > 0 for values in maps.values())


def evaluation(result: dict) -> str:
  """Renders what `evaluate.evaluate` returns."""
  masks = any(has_masks(values["maps"]) for values in result["classes"].values())
  lines = [
    f"# Evaluation at step {result['step']}",
    "",
    f"{result['examples']} examples of {result['data']}. Pixel counts are pooled over all images; "
    "the named class is positive. The label-free threshold follows the rule "
    f"\"{result['threshold_rule']}\" from training images and their image labels"
    + ("; the oracle's is the best one in hindsight, read off these masks." if masks else "."),
  ]
  lines += ["", "## Can the maps be trusted?"]
  for name, values in result["classes"].items():
    lines += ["", f"### {name}", "", *_images(values["image"]), "", *_findings(values["diagnosis"])]
  for name, values in result["classes"].items():
    lines += ["", f"## {name}: maps", ""]
    if has_masks(values["maps"]):
      lines += [*_pixels(values["maps"]), ""]
      lines += _sizes(values["maps"][result["map"]], MAP_NAMES[result["map"]])
    else:
      thresholds = (
        f"{MAP_NAMES[kind]} {found['label_free']['threshold']:.3f}"
        for kind, found in values["maps"].items()
      )
      lines += [f"{NO_MASKS} Label-free thresholds: {', '.join(thresholds)}."]
  return "\n".join(lines) + "\n"


def _pixels(maps: dict) -> list[str]:
  lines = [f"| map | threshold | value | {' | '.join(_COLUMNS)} |", "|" + " --- |" * 9]
  for name, values in maps.items():
    kinds = {"label-free": values["label_free"], "oracle": values["oracle"]}
    for kind, rates in kinds.items():
      numbers = " | ".join(f"{rates[column]:.3f}" for column in _COLUMNS)
      lines.append(f"| {MAP_NAMES[name]} | {kind} | {rates['threshold']:.3f} | {numbers} |")
  return lines


def number(value: float | None) -> str:
  """Three digits, or a dash where there is no value."""
  return "-" if value is None else f"{value:.3f}"


def errors(image: dict) -> tuple[str, str]:
  """Returns false alarms and missed of the image classifier, each with its rate."""
  return tuple(
    f"{int(image[kind])} of {int(image[of])} ({100 * image[rate]:.3g} %)" if image[of] else "-"
    for kind, of, rate in (
      ("false_alarms", "negatives", "false_alarm_rate"), ("missed", "positives", "missed_rate"),
    )
  )


def _images(image: dict) -> list[str]:
  false_alarms, missed = errors(image)
  return [
    f"Image classifier: AUC {number(image['auc'])}, accuracy {image['accuracy']:.3f}, F1 "
    f"{image['f1']:.3f}; false alarms on {false_alarms} negative images, missed {missed} positive "
    f"ones. Expected calibration error {number(image['expected_calibration_error'])} over ten bins, "
    f"Brier score {number(image['brier'])}."
  ]


def _findings(findings: list[dict]) -> list[str]:
  if not findings:
    return [NOTHING_FOUND]
  lines = [f"- {f['level'].upper()}: {f['text']} What to try: {f['remedy']}" for f in findings]
  return [*lines, "", HOW_TO_CHANGE]


def _sizes(values: dict, name: str) -> list[str]:
  lines = [
    f"Landslides by size ({name}, label-free threshold):", "",
    "| pixels | landslides | at least half found | pixel recall |", "| --- | --- | --- | --- |",
  ]
  rows = values["recall_by_size"]
  for i, row in enumerate(rows):
    upper = f" to {rows[i + 1]['from_pixels'] - 1}" if i + 1 < len(rows) else " or more"
    share = f"{row['found']:.2f} | {row['pixel_recall']:.2f}" if row["landslides"] else "- | -"
    lines.append(f"| {row['from_pixels']}{upper} | {row['landslides']} | {share} |")
  return lines

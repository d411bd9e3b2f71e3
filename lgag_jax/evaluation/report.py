"""The training report: one self-contained HTML page from the files of a workdir."""

import pathlib

from lgag_jax import config as configs
from lgag_jax.config import Config
from lgag_jax.evaluation import figures, tables
from lgag_jax.evaluation.tables import ClassSummary, map_title, number, rule_title
from lgag_jax.evaluation.thresholds_file import load_thresholds
from lgag_jax.method.registry import method_of
from lgag_jax.pages import pictures, rendering
from lgag_jax.pages.pictures import Picture
from lgag_jax.runtime import array_files, files, lock

_MAX_EXAMPLES = 1 << 30  # Bytes: of one class 14 MB at 256 pixels, and 0.5 GB of four at 1024.

def write_report(workdir: pathlib.Path) -> pathlib.Path:
  """Writes report.html, the workdir locked.

  Raises FileNotFoundError without an evaluation, ValueError if it is invalid or the workdir in use.
  """
  evaluation = workdir / "eval" / "validation.json"
  if not evaluation.exists():
    raise FileNotFoundError(f"{evaluation} is missing: finish the training, or run --mode=eval.")
  path = workdir / "report.html"
  with lock.acquire(workdir):
    try:
      page = _page(workdir, files.read_json(evaluation))
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
      raise ValueError(
        f"{workdir} holds invalid evaluation files ({error!r}): run --mode=eval again."
      ) from error
    files.write_text(path, page)
  return path


def _page(workdir: pathlib.Path, result: dict) -> str:
  config = configs.load(workdir / "config.json")
  classes = tables.summarise(result)
  names, main = config.data.classes, result["map"]
  colours = [figures.class_colour(k) for k in range(len(names))]
  return rendering.html(
    "training_report.html",
    workdir=workdir.name, data=str(result["data"]), method=config.model.method,
    trunk=config.model.trunk, supervision=_supervision(config), step=int(result["step"]),
    samples=int(result["examples"]), rule=rule_title(result["threshold_rule"]), classes=classes,
    map_cards={name: _map_cards(values["maps"], main) for name, values in result["classes"].items()},
    charts={
      summary.name: _chart(result["classes"][summary.name], main, summary) for summary in classes
    },
    legend_classes=list(zip(names, colours, strict=True)) if len(names) > 1 else [],
    examples=_examples(workdir, config, main), training=_training(workdir, classes),
    bank=_bank(workdir, config), config=(workdir / "config.json").read_text(),
  )


def _supervision(config: Config) -> str:
  labels = "image-level yes/no labels alone"
  if method_of(config).supervision == "labels":
    return labels
  return f"pseudo-masks made from {labels}" if config.data.pseudo_masks else "masks"


def _map_cards(maps: dict, main: str) -> list[tuple[str, str]]:
  label_free, oracle = maps[main]["label_free"], maps[main]["oracle"]
  return [
    (f"IoU, {map_title(main)}, label-free threshold", number(label_free["iou"])),
    ("F1, same map and threshold", number(label_free["f1"])),
    ("IoU at the oracle's threshold, which is chosen by the masks", number(oracle["iou"])),
  ]


def _chart(values: dict, main: str, summary: ClassSummary) -> Picture:
  if not summary.has_masks:
    return pictures.from_figure(figures.calibration(values["image"]), "Calibration")
  return pictures.from_figure(
    figures.distributions(values["maps"][main], values["image"]),
    "Calibration, IoU by image and recall by size",
  )


def _examples(workdir: pathlib.Path, config: Config, main: str) -> Picture | None:
  thresholds = load_thresholds(workdir, config)
  names = {"id", "image", "truth", "seeds", "probability", *thresholds}
  rows = array_files.read_arrays(workdir / "eval" / "panels.npz", names, _MAX_EXAMPLES)
  if not rows:
    return None
  return pictures.from_figure(figures.examples(rows, thresholds, main=main), "Examples of maps")


def _training(workdir: pathlib.Path, classes: list[ClassSummary]) -> Picture | None:
  path = workdir / "metrics.jsonl"
  lines = files.read_json_lines(path) if path.exists() else []
  without_masks = {summary.name for summary in classes if not summary.has_masks}
  figure = figures.curves(lines, without_masks)
  return figure and pictures.from_figure(figure, "Training curves")


def _bank(workdir: pathlib.Path, config: Config) -> Picture | None:
  anchors = array_files.read_arrays(workdir / "eval" / "bank.npz", ("features", "valid", "centres"))
  if not anchors["valid"].any():
    return None
  figure = figures.bank(**anchors, names=["background", *config.data.classes])
  return pictures.from_figure(figure, "Memory bank")

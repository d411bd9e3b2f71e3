"""The report: one self-contained HTML page made of what a workdir holds."""

import base64
import html
import io
import pathlib
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lgag_jax import config as configs
from lgag_jax.config import Config
from lgag_jax.evaluation import figures, tables
from lgag_jax.evaluation.tables import MAP_NAMES, NO_MASKS, has_masks, number
from lgag_jax.evaluation.threshold_rules import load_thresholds
from lgag_jax.method.registry import method_of
from lgag_jax.runtime import files

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#26323a;max-width:1080px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2.2rem}
p.lead{color:#55636b;margin-top:0}img{max-width:100%}
table{border-collapse:collapse;font-size:.88rem;margin:.6rem 0}
th,td{padding:.25rem .7rem;border-bottom:1px solid #e2e7ea;text-align:right}
th:first-child,td:first-child{text-align:left}th{color:#55636b;font-weight:600}
.cards{display:flex;gap:.8rem;flex-wrap:wrap}
.card{border:1px solid #e2e7ea;border-radius:8px;padding:.6rem 1rem;min-width:8.5rem}
.card b{display:block;font-size:1.5rem}.card span{color:#55636b;font-size:.8rem}
.finding{border:1px solid #e2e7ea;border-left:5px solid #9aa7ae;border-radius:8px;margin:.8rem 0;
padding:.6rem 1rem;overflow-wrap:anywhere}.finding p{margin:.2rem 0}
.error{border-left-color:#b3261e}.warning{border-left-color:#c77700}
.tag{font-size:.75rem;font-weight:600;text-transform:uppercase;letter-spacing:.04em;color:#55636b}
.error .tag{color:#b3261e}.warning .tag{color:#a86200}
pre{background:#f5f7f8;padding:.8rem;font-size:.78rem;overflow:auto;max-height:24rem}
"""
_COLUMNS = ("threshold", "precision", "recall", "f1", "iou", "accuracy", "kappa")
_RULES = {
  "otsu": "Otsu's split of the scores on training images found positive",
  "argmax": "draw between class and background",
  "agreement": "best agreement of the maps with the training images' labels",
}


def write_report(workdir: pathlib.Path) -> pathlib.Path:
  """Writes report.html to a workdir and returns its path.

  Raises FileNotFoundError when nothing has been evaluated there yet, ValueError when what is there is
  not what an evaluation writes.
  """
  try:
    page = _page(workdir)
  except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
    raise ValueError(
      f"{workdir} does not hold what an evaluation writes ({error!r}): run --mode=eval again."
    ) from error
  path = workdir / "report.html"
  files.write_text(path, page)
  return path


def _page(workdir: pathlib.Path) -> str:
  evaluation = workdir / "eval" / "validation.json"
  if not evaluation.exists():
    raise FileNotFoundError(f"{evaluation} is missing: let the training finish, or run --mode=eval.")
  config = configs.load(workdir / "config.json")
  result = files.read_json(evaluation)
  metrics = workdir / "metrics.jsonl"
  lines = files.read_json_lines(metrics) if metrics.exists() else []
  rows = files.read_arrays(workdir / "eval" / "panels.npz")
  anchors = files.read_arrays(workdir / "eval" / "bank.npz")
  thresholds = load_thresholds(workdir, config)
  main = result["map"]
  parts = [_head(config, result), "<h2>Can the maps be trusted?</h2>"]
  for name, values in result["classes"].items():
    parts += [f"<h3>{html.escape(name)}</h3>", _classifier(values["image"])]
    parts += [_findings(values["diagnosis"])]
  for name, values in result["classes"].items():
    parts += [
      f"<h2>{html.escape(name)}: maps</h2>",
      f"<p><b>{NO_MASKS}</b></p>" if not has_masks(values["maps"]) else "",
      _cards(values, main), _pixel_table(values["maps"]),
      _rule_table(values["maps"][main], main),
      picture(
        figures.distributions(values["maps"][main], values["image"]),
        "Calibration, IoU by image and recall by size",
      ),
    ]
  parts += [
    f"<h2>Examples</h2><p>Held-out images, evenly picked; p is the image score.{_legend(config)}</p>",
    picture(
      figures.panels(rows, thresholds, main=main),
      "Examples of maps",
    ) if rows else "<p>None.</p>",
    "<h2>Training</h2>", picture(figures.curves(lines), "Training curves"),
  ]
  if anchors["valid"].any():
    names = ["background", *config.data.classes]
    parts += ["<h2>Memory bank</h2>", picture(figures.bank(**anchors, names=names), "Memory bank")]
  parts += [
    "<h2>Configuration</h2>",
    f"<pre>{html.escape((workdir / 'config.json').read_text())}</pre>",
  ]
  return (
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
    f"content='width=device-width'><title>lgag_jax: {html.escape(workdir.name)}</title>"
    f"<style>{STYLE}</style>{''.join(parts)}</html>\n"
  )


def _legend(config: Config) -> str:
  """Tells the colours of several classes' masks."""
  colours = figures.CLASS_COLOURS
  named = [
    f"<b style='color:{colours[k % len(colours)]}'>{html.escape(name)}</b>"
    for k, name in enumerate(config.data.classes)
  ]
  return f" In masks: {', '.join(named)}; heat is the highest class's." if len(named) > 1 else ""


def _head(config: Config, result: dict) -> str:
  data = html.escape(str(result["data"]))
  taught = "image-level yes/no labels alone"
  if method_of(config).supervision == "masks":
    taught = f"pseudo-masks made from {taught}" if config.data.pseudo_masks else "masks"
  return (
    f"<h1>Landslide maps: {data}</h1><p class=lead>Method {html.escape(config.model.method)} on "
    f"{html.escape(config.model.trunk)}, trained on {taught} for {int(result['step'])} steps; judged "
    f"on {int(result['examples'])} held-out images. Threshold rule: "
    f"{html.escape(_RULES[result['threshold_rule']])}; no mask was seen by it.</p>"
  )


def _classifier(image: dict) -> str:
  false_alarms, missed = tables.errors(image)
  return card_row((
    (number(image["auc"]), "image-level AUC"), (number(image["f1"]), "image-level F1"),
    (number(image["expected_calibration_error"]), "expected calibration error"),
    (number(image["brier"]), "Brier score"),
    (false_alarms, "false alarms, of images without"), (missed, "missed, of images with"),
  ))


def _findings(findings: list[dict]) -> str:
  if not findings:
    return f"<p>{tables.NOTHING_FOUND}</p>"
  parts = []
  for finding in findings:
    level, text, remedy = (html.escape(finding[name]) for name in ("level", "text", "remedy"))
    parts.append(
      f"<div class='finding {level}'><span class=tag>{level}</span><p>{text}</p>"
      f"<p><b>What to try:</b> {remedy}</p></div>"
    )
  return f"{''.join(parts)}<p>{tables.HOW_TO_CHANGE}</p>"


def _cards(values: dict, main: str) -> str:
  best = values["maps"][main]
  cards = (
    (best["label_free"]["iou"], f"IoU, {MAP_NAMES[main]}, label-free threshold"),
    (best["label_free"]["f1"], "F1, same"),
    (best["oracle"]["iou"], "IoU at the oracle's threshold (sees the masks)"),
  )
  return card_row([(number(value), text) for value, text in cards])


def card_row(cards: Sequence[tuple[str, str]]) -> str:
  """Returns numbers with what they are, in a row; both are HTML already."""
  body = "".join(f"<div class=card><b>{value}</b><span>{text}</span></div>" for value, text in cards)
  return f"<div class=cards>{body}</div>"


def _pixel_table(maps: dict) -> str:
  rows = []
  for name, values in maps.items():
    rows.append((f"{MAP_NAMES[name]}, label-free", values["label_free"]))
    rows.append((f"{MAP_NAMES[name]}, oracle", values["oracle"]))
  return "<h3>Pixels, pooled over all images</h3>" + _table("map", rows)


def _rule_table(values: dict, main: str) -> str:
  rows = [(_RULES[rule], rates) for rule, rates in values["rules"].items()]
  return f"<h3>Label-free thresholds, {MAP_NAMES[main]}</h3>" + _table("rule", rows)


def _table(first: str, rows: list[tuple[str, dict]]) -> str:
  head = "".join(f"<th>{name}</th>" for name in (first, *_COLUMNS))
  body = "".join(
    f"<tr><td>{html.escape(name)}</td>"
    + "".join(f"<td>{rates[column]:.3f}</td>" for column in _COLUMNS) + "</tr>"
    for name, rates in rows
  )
  return f"<table><tr>{head}</tr>{body}</table>"


def picture(figure: Figure, text: str) -> str:
  """Returns a figure, which is closed, as an image within the page; `text` describes it."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png")
  plt.close(figure)
  data = base64.b64encode(buffer.getvalue()).decode()
  return f"<img alt='{html.escape(text)}' src='data:image/png;base64,{data}'>"

"""The doctor's page: one self-contained HTML file; every name from outside is escaped."""

import base64
import collections
import dataclasses
import html
import io
import json
from collections.abc import Sequence

from PIL import Image

from lgag_jax.config import Config
from lgag_jax.doctor.findings import NOTE, SEVERITIES, Finding, plural
from lgag_jax.doctor.survey import SPLITS, Example, Survey
from lgag_jax.evaluation.report import STYLE
from lgag_jax.imagery import scaling

_STYLE = STYLE + """
p.lead{overflow-wrap:anywhere}
ul{margin:.3rem 0;padding-left:1.2rem;font-size:.85rem}li{font-family:ui-monospace,monospace}
.pictures{display:flex;gap:1rem;flex-wrap:wrap;margin:.5rem 0}
figure{margin:0;max-width:300px}figure img{width:112px;height:112px;object-fit:contain;
image-rendering:pixelated;background:#eef1f2;border:1px solid #cfd6da;border-radius:4px;
margin-right:4px}
figcaption{font-size:.72rem;color:#55636b}
"""
_SIDE = 112  # Of a thumbnail, in pixels.
_MOST_GROUPS = 6  # Of pictures shown with a finding.


def make(survey: Survey, findings: Sequence[Finding], config: Config) -> str:
  """Returns the page; of the pictures it shows, the files are read once more."""
  data = html.escape(config.data.directory or config.data.builder)
  notes = [f for f in findings if f.severity == NOTE]
  worse = [f for f in findings if f.severity != NOTE]
  parts = [
    f"<h1>Data set: {data}</h1><p class=lead>What lgag_jax sees in it before training; "
    f"source {html.escape(config.data.source)}, splits {html.escape(config.data.train_split)} and "
    f"{html.escape(config.data.validation_split)}.</p>",
    _cards(survey, findings), "<h2>What is wrong</h2>",
    "".join(_finding(f, survey, config) for f in worse)
    or "<p>Nothing worse than the notes below.</p>",
    "<h2>Notes</h2>", "".join(_finding(f, survey, config) for f in notes),
    "<h2>What is there</h2>", _table(_classes(survey, config)), _table(_shapes(survey.examples)),
    "<h2>Configuration of the data</h2>",
    f"<pre>{html.escape(json.dumps(dataclasses.asdict(config.data), indent=2))}</pre>",
  ]
  return (
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
    f"content='width=device-width'><title>lgag_jax doctor: {data}</title>"
    f"<style>{_STYLE}</style>{''.join(parts)}</html>\n"
  )


def _cards(survey: Survey, findings: Sequence[Finding]) -> str:
  count = collections.Counter(f.severity for f in findings)
  cards = [
    *((f"{count[s]:,}", s if count[s] == 1 else f"{s}s") for s in SEVERITIES),
    (f"{len(survey.examples):,}", "images read"),
    (f"{survey.rate:,.0f}", f"images a second, {survey.workers} threads"),
  ]
  body = "".join(f"<div class=card><b>{value}</b><span>{text}</span></div>" for value, text in cards)
  return f"<div class=cards>{body}</div>"


def _finding(finding: Finding, survey: Survey, config: Config) -> str:
  names = "".join(f"<li>{html.escape(name)}</li>" for name in finding.files)
  more = finding.count - len(finding.files)
  rest = f"<p>and {more:,} more</p>" if finding.files and more > 0 else ""
  remedy = f"<p><b>What to do:</b> {html.escape(finding.remedy)}</p>" if finding.remedy else ""
  return (
    f"<div class='finding {finding.severity}'><span class=tag>{finding.severity}</span>"
    f"<p>{html.escape(finding.what)}</p>{remedy}{f'<ul>{names}</ul>' if names else ''}{rest}"
    f"{_pictures(finding, survey, config)}</div>"
  )


def _pictures(finding: Finding, survey: Survey, config: Config) -> str:
  groups = []
  for group in finding.pictures[:_MOST_GROUPS]:
    members = [survey.examples[i] for i in group]
    shown = "".join(
      f"<img alt='{html.escape(e.name)}' src='data:image/png;base64,{_thumbnail(e, survey, config)}'>"
      for e in members
    )
    captions = "<br>".join(
      f"{html.escape(e.name)}: {e.split}, {html.escape(_label(e, config))}" for e in members
    )
    groups.append(f"<figure>{shown}<figcaption>{captions}</figcaption></figure>")
  return f"<div class=pictures>{''.join(groups)}</div>" if groups else ""


def _label(example: Example, config: Config) -> str:
  names = [n for n, there in zip(config.data.classes, example.label, strict=True) if there]
  return " and ".join(names) or config.data.background


def _thumbnail(example: Example, survey: Survey, config: Config) -> str:
  """Returns a small PNG in base64; "" if the image is gone."""
  try:
    image, _ = survey.sources[example.split].read(example.index)
  except Exception:  # Read a moment ago: the page does without, whatever happened to the file.
    return ""
  picture = Image.fromarray(scaling.picture(image, config.model.rgb_bands))
  picture.thumbnail((_SIDE, _SIDE))
  buffer = io.BytesIO()
  picture.save(buffer, format="png")
  return base64.b64encode(buffer.getvalue()).decode()


def _classes(survey: Survey, config: Config) -> list[tuple]:
  """Rows for a table, the head first: how many images of each class a split has."""
  rows = [("split", "images", config.data.background, *config.data.classes, "with known mask pixels")]
  for split in SPLITS:
    examples = survey.of(split)
    rows.append((
      split, len(examples), sum(not e.positive for e in examples),
      *(sum(e.label[k] > 0 for e in examples) for k in range(len(config.data.classes))),
      sum(e.known > 0 for e in examples),
    ))
  return rows


def _shapes(examples: Sequence[Example]) -> list[tuple]:
  """Rows for a table, the head first: sizes and types by frequency, the rarest in one row."""
  count = collections.Counter(
    (f"{e.shape[0]} x {e.shape[1]}", len(e.mean), e.dtype) for e in examples
  )
  usual = count.most_common(8)
  rest = len(examples) - sum(n for _, n in usual)
  rows = [("size (rows x columns)", "channels", "type", "images"), *((*k, n) for k, n in usual)]
  return [*rows, (plural(len(count) - 8, "other kind"), "", "", rest)] if rest else rows


def _table(rows: Sequence[tuple]) -> str:
  cell = lambda tag, value: f"<{tag}>{html.escape(str(value))}</{tag}>"
  head, *body = rows
  return "<table><tr>" + "".join(cell("th", v) for v in head) + "</tr>" + "".join(
    "<tr>" + "".join(cell("td", v) for v in row) + "</tr>" for row in body
  ) + "</table>"

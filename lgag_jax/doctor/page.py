"""The doctor's page: one self-contained HTML file."""

import collections
import dataclasses
import json
from collections.abc import Sequence

from PIL import Image

from lgag_jax.config import Config
from lgag_jax.doctor.findings import NOTE, SEVERITIES, Finding, plural
from lgag_jax.doctor.survey import SPLITS, Example, Survey
from lgag_jax.imagery import scaling
from lgag_jax.pages import pictures, rendering
from lgag_jax.pages.pictures import Picture
from lgag_jax.pages.rendering import Table

_THUMBNAIL_SIDE = 112  # Pixels.
_MAX_GROUPS = 6  # Groups of pictures shown with a finding.
_MAX_SHAPES = 8  # Rows of the table of image sizes.


def render(survey: Survey, findings: Sequence[Finding], config: Config) -> str:
  """Returns the page; reads the pictured files once more."""
  entries = [(finding, _groups(finding, survey, config)) for finding in findings]
  return rendering.html(
    "doctor_report.html", data=config.data.directory or config.data.builder, source=config.data.source,
    train_split=config.data.train_split, validation_split=config.data.validation_split,
    cards=_cards(survey, findings), problems=[entry for entry in entries if entry[0].severity != NOTE],
    notes=[entry for entry in entries if entry[0].severity == NOTE],
    tables=[_class_table(survey, config), _shape_table(survey.examples)],
    config=json.dumps(dataclasses.asdict(config.data), indent=2),
  )


def _cards(survey: Survey, findings: Sequence[Finding]) -> list[tuple[str, str]]:
  count = collections.Counter(f.severity for f in findings)
  return [
    *((s if count[s] == 1 else f"{s}s", f"{count[s]:,}") for s in SEVERITIES),
    ("images read", f"{len(survey.examples):,}"),
    (f"images per second, {survey.workers} threads", f"{survey.rate:,.0f}"),
  ]


def _groups(finding: Finding, survey: Survey, config: Config) -> list[tuple[list[Picture], list[str]]]:
  """Returns pictures and captions of the finding's first groups; deleted images have no picture."""
  groups = []
  for group in finding.pictures[:_MAX_GROUPS]:
    members = [survey.examples[i] for i in group]
    thumbnails = [_thumbnail(example, survey, config) for example in members]
    captions = [f"{e.name}: {e.split}, {_label(e, config)}" for e in members]
    groups.append(([thumbnail for thumbnail in thumbnails if thumbnail], captions))
  return groups


def _label(example: Example, config: Config) -> str:
  names = [name for name, value in zip(config.data.classes, example.label, strict=True) if value]
  return " and ".join(names) or config.data.background


def _thumbnail(example: Example, survey: Survey, config: Config) -> Picture | None:
  try:
    pixels, _ = survey.sources[example.split].read(example.index)
  except Exception:  # The survey has read the file; the page does not need the picture.
    return None
  image = Image.fromarray(scaling.picture(pixels, config.model.rgb_bands))
  return pictures.from_image(image, _THUMBNAIL_SIDE, example.name)


def _class_table(survey: Survey, config: Config) -> Table:
  rows = []
  for split in SPLITS:
    examples = survey.of(split)
    rows.append((
      split, len(examples), sum(not e.positive for e in examples),
      *(sum(e.label[k] > 0 for e in examples) for k in range(len(config.data.classes))),
      sum(e.known_pixels > 0 for e in examples),
    ))
  columns = (
    "split", "images", config.data.background, *config.data.classes, "images with known mask pixels"
  )
  return Table(columns, rows)


def _shape_table(examples: Sequence[Example]) -> Table:
  """Returns the most frequent sizes and types; the last row sums up the others."""
  count = collections.Counter((f"{e.shape[0]} x {e.shape[1]}", len(e.mean), e.dtype) for e in examples)
  frequent = count.most_common(_MAX_SHAPES)
  rows: list[tuple[str | int, ...]] = [(*shape, number) for shape, number in frequent]
  if others := len(examples) - sum(number for _, number in frequent):
    rows.append((plural(len(count) - _MAX_SHAPES, "other kind"), "", "", others))
  return Table(("size (rows x columns)", "channels", "type", "images"), rows)

"""Pages and Markdown show names from outside as text, whatever they hold."""

import html.parser
import pathlib

import jinja2
import numpy as np
import pytest

from lgag_jax.evaluation import figures, size_figures
from lgag_jax.pages import rendering
from lgag_jax.pages.rendering import Table

TEMPLATES = pathlib.Path(rendering.__file__).parent / "templates"
HOSTILE = "<i onclick='x'>\"&amp;|`*[a](b)\\ \n\n# heading\n---"


class Parser(html.parser.HTMLParser):
  """Collects tags, attributes and text as a browser reads them."""

  def __init__(self, page):
    super().__init__()
    self.tags, self.attributes, self.text = [], [], ""
    self.feed(page)

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    self.attributes += [value for _, value in attributes]

  def handle_data(self, data):
    self.text += data


@pytest.fixture
def macros():
  return rendering._HTML.get_template("macros.html").module


def test_html_shows_a_hostile_name_as_text_and_as_an_attribute(macros):
  content = Table((HOSTILE, "b"), [(HOSTILE, 1)], HOSTILE)
  picture = {"description": HOSTILE, "uri": f"data:{HOSTILE}"}
  parts = [
    macros.table(content), macros.cards([(HOSTILE, HOSTILE)]), macros.picture(picture),
    macros.finding("error", HOSTILE, HOSTILE), macros.configuration(HOSTILE),
    macros.legend([(HOSTILE, HOSTILE)]),
  ]
  page = Parser("".join(parts))
  assert "i" not in page.tags and page.text.count(HOSTILE) == 9
  assert page.attributes.count(HOSTILE) == 1 and f"data:{HOSTILE}" in page.attributes


def test_markdown_shows_a_hostile_name_in_one_cell():
  text = rendering.markdown_table(("a", HOSTILE), [(HOSTILE, 2)])
  name = r"&lt;i onclick='x'&gt;\"&amp;amp;\|\`\*\[a\](b)\\ # heading ---".replace(r"\"", '"')
  assert text.splitlines() == [f"| a | {name} |", "| --- | --- |", f"| {name} | 2 |"]


def test_markdown_shows_hostile_names_outside_of_tables_in_one_line():
  text = rendering.markdown("scenes.md", notes=[HOSTILE], tables=[Table(("a",), [("b",)], HOSTILE)])
  lines = text.splitlines()
  assert sum(line.startswith("#") for line in lines) == 2
  assert not any(line == "---" for line in lines) and "<i" not in text


def test_bytes_of_file_names_that_are_not_utf8_are_spelled_out():
  values = {"notes": ["l\udcff.png"], "tables": []}
  assert r"l\udcff.png" in rendering.markdown("scenes.md", **values)


@pytest.mark.parametrize("template", sorted(path.name for path in TEMPLATES.iterdir()))
def test_a_missing_value_is_an_error(template):
  if template.endswith((".md", "report.html")) and not template.startswith("macros"):
    render = rendering.html if template.endswith(".html") else rendering.markdown
    with pytest.raises(jinja2.UndefinedError):
      render(template)


def titles(figure):
  return [axis.get_title() for axis in figure.axes]


@pytest.mark.parametrize("masks", [True, False])
def test_pixel_curves_and_truth_appear_only_with_masks(masks):
  train = [{"step": step, "split": "train", "loss": 1.0, "contrast": 0.5} for step in (1, 2)]
  validation = {"step": 2, "split": "validation", "a/auc": 0.9, "a/segmentation_oracle_iou": 0.0}
  figure = figures.curves([*train, validation], () if masks else {"a"})
  legend = figure.axes[2].get_legend_handles_labels()[1]
  assert ("a/segmentation oracle iou" in legend) == masks and "a/auc" in legend
  pixels = np.zeros((2, 8, 8, 1), np.float16)
  rows = {
    "id": np.array(["x", "$y$"]), "image": np.zeros((2, 8, 8, 3), np.uint8), "segmentation": pixels,
    "truth": np.full((2, 8, 8), 0 if masks else 255, np.uint8), "probability": np.zeros((2, 1)),
  }
  shown = titles(figures.examples(rows, {"segmentation": [0.5]}, main="segmentation"))
  assert ("truth" in shown) == masks and "predicted mask" in shown


@pytest.mark.parametrize("count", [1, 30, 150_000])
def test_the_chart_of_sizes_shows_the_share_of_every_area_in_few_points(count):
  areas = np.random.default_rng(0).lognormal(5, 2, count).round(2)
  counts, cumulative = size_figures.sizes(areas.tolist()).axes
  assert sum(bar.get_height() for bar in counts.patches) == count
  x, y = cumulative.lines[0].get_data()
  assert len(x) == min(count, size_figures._MAX_STEPS)  # Drawing takes time per point.
  assert x[0] == areas.min() and x[-1] == areas.max() and y[-1] == pytest.approx(1)
  for k in np.linspace(0, len(x) - 1, 7).astype(int):
    assert y[k] == pytest.approx(areas[areas <= x[k]].sum() / areas.sum())


def test_curves_without_values_are_not_drawn():
  train = {"step": 1, "split": "train", "loss": 1.0, "contrast": 0.5}
  assert titles(figures.curves([train])) == ["Training loss", "Loss terms, before weighting"]
  only_pixels = {"step": 2, "split": "validation", "a/segmentation_oracle_iou": 0.0}
  assert figures.curves([only_pixels], {"a"}) is None and figures.curves([]) is None

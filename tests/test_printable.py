"""Names from outside neither control a terminal, in logs and pages, nor are formulas in tables."""

import csv
import io
import logging
import pathlib

import numpy as np
import pytest

from lgag_jax import main
from lgag_jax.cli import standard_streams
from lgag_jax.imagery import tables
from lgag_jax.pages import rendering
from lgag_jax.runtime import printable
from tests.commands import call

HOSTILE = {
  "\x1b[31mred": r"\x1b[31mred", "a\x1b]0;title\x07": r"a\x1b]0;title\x07", "\x9b2J": r"\x9b2J",
  "a\rERROR": r"a\x0dERROR", "\udce4": r"\udce4", "\x7f\x00\x08": r"\x7f\x00\x08",
  "a\u202egnp.tif": r"a\u202egnp.tif", "\u2028line": r"\u2028line", "\u2066a\u2069": r"\u2066a\u2069",
  "ж 滑 é ب": "ж 滑 é ب",
}


@pytest.mark.parametrize(("name", "shown"), HOSTILE.items(), ids=ascii)
def test_names_are_escaped_in_logs_pages_and_messages(name, shown):
  assert printable.text(f"{name}\n\t") == f"{shown}\n\t"
  stream = io.StringIO()
  handler = logging.StreamHandler(stream)
  handler.addFilter(printable.Filter())
  record = logging.LogRecord("x", 30, "x", 1, "%s: %s, %d of %.1f\n%r", (
    f"{name}\nERROR: forged", pathlib.Path(name.replace("\0", "0")), np.int64(3), np.float32(2), [1]
  ), None)
  handler.handle(record)
  assert stream.getvalue().splitlines()[0].startswith(f"{shown}\\nERROR: forged: ")
  assert "3 of 2.0" in stream.getvalue() and len(stream.getvalue().splitlines()) == 2
  assert shown in rendering.html("scene_report.html", **PAGE | {"description": name})
  table = rendering.markdown_table(("a",), [(f"x{name}x",)])
  assert printable.text(table) == table and table.count("\n") == 2
  line = main._one_line(ValueError(f"{name}\n next"))
  assert printable.text(line) == line and line.endswith(" next") and "\n" not in line


PAGE = {
  "events": (), "title": "", "maps_digest": "", "cards": [], "skipped_count": 0, "evaluation": None,
  "histograms": [], "flat_counts": False, "cloud_counts": False, "densities": [], "comparisons": 0,
  "warnings": rendering.Table((), []), "scenes": [], "names": [], "more_scenes": 0, "pictures": [],
  "legend_classes": [], "all_pictures": True, "findings": [],
}


def test_the_standard_output_shows_no_control_characters(tmp_path):
  with (tmp_path / "out").open("wb") as file:
    output = standard_streams._Output(file, encoding="utf-8")
    for name in HOSTILE:
      print(name, file=output)
    output.flush()
    output.detach()
  assert (tmp_path / "out").read_text().splitlines() == list(HOSTILE.values())


@pytest.mark.parametrize("error", [
  RuntimeError("RESOURCE_EXHAUSTED: out\nof memory"), MemoryError(), KeyError("x"),
  AssertionError("no"), RecursionError("deep"), ZeroDivisionError("division by zero"),
])
def test_errors_of_libraries_are_one_line_that_names_their_kind(monkeypatch, error):
  def fail():
    raise error

  monkeypatch.setattr(main.command_line, "mode_arguments", fail)
  with pytest.raises(SystemExit) as ended:
    main.main(["lgag"])
  assert str(ended.value).startswith(f"Error: {type(error).__name__}: ")
  assert len(str(ended.value).splitlines()) == 1 and "--verbosity=1" in str(ended.value)


@pytest.mark.longest
def test_verbosity_shows_where_an_error_arose(tmp_path):
  arguments = ["--mode=eval", f"--workdir={tmp_path}/\x1b[31mnone"]
  short, long = call(*arguments), call(*arguments, "--verbosity=1")
  assert short.returncode == long.returncode == 1
  assert len(short.stderr.splitlines()) == 1 and "\x1b" not in short.stderr
  assert r"\x1b[31mnone" in short.stderr and "Traceback" in long.stderr


TEXTS = [
  "=1+1", "+1", "-1", "@A1", "=HYPERLINK(\"https://x\")", "'=1", "''+1", "'plain", "plain", "'", " =1",
  "\uff1d1", "-", "a-b", "1e5", "don't",
]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_text_that_is_a_formula_is_escaped_and_read_back(tmp_path, separator):
  path = tmp_path / "table.csv"
  with path.open("w", newline="") as file:
    writer = csv.writer(file, delimiter=separator)
    writer.writerow(map(tables.cell, ("image", "=name", "number")))
    for text in (*TEXTS, "\t=1", "\r=1", "\n=1"):
      writer.writerow(map(tables.cell, (f"{text}x", text, -1.5)))
  with path.open(newline="") as file:
    rows = list(csv.reader(file, delimiter=separator))
  starts = {cell[:1] for row in rows for cell in row[:2]}
  assert starts.isdisjoint("=+-@\uff1d\t\r\n ")
  assert {row[2] for row in rows[1:]} == {"-1.5"}
  lines = [line for _, line in tables.read_table(path, ("image",))]
  assert [line["=name"] for line in lines] == [*TEXTS, "\t=1", "\r=1", "\n=1"]
  assert [line["image"] for line in lines] == [f"{line['=name']}x" for line in lines]
  assert all(tables.cell(value) is value for value in (-1, -2.5, None, 0))

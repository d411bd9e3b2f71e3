"""Fills the templates of HTML pages and Markdown texts. Both escape every value."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, cast

import jinja2
from markupsafe import Markup

from lgag_jax.runtime import printable

_MARKDOWN_SYNTAX = re.compile(r"[\\`*\[\]|]")


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of plain text and numbers, with an optional title."""

  columns: Sequence[str]
  rows: Sequence[Sequence[str | int]]
  title: str = ""
  text_columns: int = 1  # On an HTML page, the first columns are aligned left, the others right.


def html(template: str, **values) -> str:
  """Returns an HTML page or a QGIS style; shows control characters, and bytes not in UTF-8, escaped."""
  return printable.text(_HTML.get_template(template).render(values))


def markdown(template: str, **values) -> str:
  """Returns a Markdown text. A value is text of one line; empty lines in a row become one."""
  text = printable.text(_MARKDOWN.get_template(template).render(values))
  return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def paragraphs(template: str, **values) -> list[str]:
  """Returns the paragraphs of a text, each in one line, which a page escapes when it shows them."""
  text = _TEXT.get_template(template).render(values)
  return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str | int]]) -> str:
  """Returns a Markdown table without a final line break."""
  macros = cast(Any, _MARKDOWN.get_template("macros.md").module)
  return printable.text(macros.table(Table(columns, rows))).rstrip("\n")


def _markdown_text(value: object) -> Markup:
  """Escapes a value for Markdown, unless a template has marked it as safe."""
  if hasattr(value, "__html__"):
    return Markup(value)  # Calls __html__.
  line = " ".join(str(value).split())
  text = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
  return Markup(_MARKDOWN_SYNTAX.sub(r"\\\g<0>", text))


def _environment(*, autoescape: bool = True, **options) -> jinja2.Environment:
  return jinja2.Environment(
    loader=jinja2.PackageLoader("lgag_jax.pages"), autoescape=autoescape, trim_blocks=True,
    undefined=jinja2.StrictUndefined, lstrip_blocks=True, keep_trailing_newline=True, **options,
  )


_HTML = _environment()
_TEXT = _environment(autoescape=False)
_MARKDOWN = _environment(finalize=_markdown_text)

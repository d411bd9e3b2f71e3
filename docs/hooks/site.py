"""Makes mkdocs pages from files outside of docs/, from notebooks and from code, and adapts all links.

README.md, CHANGELOG.md and others become pages without a copy in docs/. The references of settings and
commands are generated from the code. Links are written as they work in the repository. Here they become
links between pages, or plain text if they lead to a file that is not a page.
"""

import json
import pathlib
import posixpath
import re
import sys

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))  # lgag_jax need not be installed.

import configuration
import equations

from lgag_jax.cli import command_line
from lgag_jax.cli.modes import MODES

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Pages whose files lie outside of docs/.
PAGES = {
  "index.md": "README.md", "results.md": "benchmarks/RESULTS.md", "security.md": "SECURITY.md",
  "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md",
  "datasets.md": "data/README.md", "synthetic_landslides.md": "data/synthetic_landslides/README.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds the pages that have no file in docs/."""
  content = {page: (ROOT / source).read_text() for page, source in PAGES.items()}
  content["reference/configuration.md"] = configuration.page(ROOT / "lgag_jax" / "config.py")
  content["reference/commands.md"] = commands()
  for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
    content[f"notebooks/{path.stem}.md"] = notebook(path)
  for page, text in content.items():
    files.append(File.generated(config, page, content=text))
  return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_) -> str:
  """Replaces links within the repository by links between pages."""
  place = page.file.src_uri
  source = PAGES.get(place, f"docs/{place}")
  pages = {path: name for name, path in PAGES.items()}

  def page_link(match: re.Match) -> str:
    picture, text, target, anchor = match.groups()
    if ":" in target:
      return match[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    name = pages.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
    if name is None:
      return text
    link = posixpath.relpath(name, posixpath.dirname(place) or ".")
    return f"{picture}[{text}]({link}{anchor or ''})"

  # Odd parts are code, which stays unchanged.
  parts = _FENCE.split(markdown)
  return "".join(part if i % 2 else _LINK.sub(page_link, part) for i, part in enumerate(parts))


def on_page_content(html: str, page: Page, **_) -> str:
  """Draws the equations, so that the page needs no script for them."""
  return equations.draw(html, page.file.src_uri)


def commands() -> str:
  """Returns the page of all modes, with their --help."""
  parts = [
    "# Commands",
    "Which modes are there, and which flags do they take? These commands print this page:",
    "    lgag --help\n    lgag --mode=predict --help",
    "In a checkout that is not installed, use `python -m lgag_jax.main` in place of `lgag`.",
    f"```text\n{command_line.help_text(None, 'lgag')}\n```",
  ]
  for name in MODES:
    parts += [f"## {name}", f"```text\n{command_line.help_text(name, 'lgag')}\n```"]
  return "\n\n".join(parts)


def notebook(path: pathlib.Path) -> str:
  """Returns a notebook as a page: its text, its code and a link to the file."""
  parts = []
  for cell in json.loads(path.read_text())["cells"]:
    text = "".join(cell["source"])
    parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
  title, *rest = parts
  return "\n\n".join([title, f"The notebook: [{path.name}]({path.name}).", *rest])

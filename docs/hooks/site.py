"""What mkdocs makes of this repository: pages of files that lie elsewhere, and links between them all.

README.md, CHANGELOG.md and the like are pages without a copy in docs/, notebooks are pages too, and
the references of settings and commands are written from the code. A link is written as it works in the
repository; here it becomes one between pages, or where it leads to no page plain text.
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
# Pages that are files elsewhere in the repository.
PAGES = {
  "index.md": "README.md", "results.md": "benchmarks/RESULTS.md", "security.md": "SECURITY.md",
  "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md",
  "datasets.md": "data/README.md", "synthetic_landslides.md": "data/synthetic_landslides/README.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds the pages that no file of docs/ is."""
  content = {page: (ROOT / source).read_text() for page, source in PAGES.items()}
  content["reference/configuration.md"] = configuration.page(ROOT / "lgag_jax" / "config.py")
  content["reference/commands.md"] = commands()
  for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
    content[f"notebooks/{path.stem}.md"] = notebook(path)
  for page, text in content.items():
    files.append(File.generated(config, page, content=text))
  return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_) -> str:
  """Turns links within the repository into links between pages."""
  place = page.file.src_uri
  source = PAGES.get(place, f"docs/{place}")
  pages = {path: name for name, path in PAGES.items()}

  def moved(match: re.Match) -> str:
    picture, text, target, anchor = match.groups()
    if ":" in target:
      return match[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    name = pages.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
    if name is None:
      return text
    link = posixpath.relpath(name, posixpath.dirname(place) or ".")
    return f"{picture}[{text}]({link}{anchor or ''})"

  # Code stays as it is.
  parts = _FENCE.split(markdown)
  return "".join(part if i % 2 else _LINK.sub(moved, part) for i, part in enumerate(parts))


def on_page_content(html: str, page: Page, **_) -> str:
  """Draws the equations, so that no script need be fetched to read them."""
  return equations.draw(html, page.file.src_uri)


def commands() -> str:
  """Returns the page of all modes: what --help says."""
  parts = [
    "# Commands",
    "What `lgag --help` and `lgag --mode=NAME --help` say. In a checkout that is not installed, "
    "`python -m lgag_jax.main` stands for `lgag`.",
    f"```text\n{command_line.help_text(None, 'lgag')}\n```",
  ]
  for name in MODES:
    parts += [f"## {name}", f"```text\n{command_line.help_text(name, 'lgag')}\n```"]
  return "\n\n".join(parts)


def notebook(path: pathlib.Path) -> str:
  """Returns a notebook as a page: its words, its code, and where to get it."""
  parts = []
  for cell in json.loads(path.read_text())["cells"]:
    text = "".join(cell["source"])
    parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
  title, *rest = parts
  return "\n\n".join([title, f"The notebook: [{path.name}]({path.name}).", *rest])

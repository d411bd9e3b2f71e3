"""The documentation: links lead somewhere, examples run, references say what the code says."""

import ast
import collections
import dataclasses
import html
import json
import os
import pathlib
import re
import runpy
import subprocess
import sys

import nbclient
import nbformat
import pytest
import yaml
from absl.testing import flagsaver

from lgag_jax import __version__, methods
from lgag_jax.cli import command_line
from lgag_jax.cli.modes import MODES
from lgag_jax.config import Config
from lgag_jax.method import registry

ROOT = pathlib.Path(__file__).parent.parent
TRACKED = [
  ROOT / name for name in subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True,
    capture_output=True, check=True,
  ).stdout.split("\n")[:-1]
]
PAGES = [path for path in TRACKED if path.suffix == ".md" and path.is_file()]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def test_links_lead_to_files_of_the_repository():
  """As a reader follows them there; those of the site are checked when it is built."""
  generated = {"reference/configuration.md", "reference/commands.md"}  # By the site.
  targets = []
  for path in PAGES:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s#]+)[^)]*\)", text)
    targets += [path.parent / link for link in found if ":" not in link and link not in generated]
  assert len(targets) > 100
  assert [target for target in targets if not target.exists()] == []


def commands(path):
  """Returns the commands of a page that start the command line, on their own line or in a sentence."""
  text, program = path.read_text().replace("\\\n", " "), r"(?:lgag|python -m lgag_jax\.main)"
  lines = re.findall(rf"^\s*(?:srun .*?)?(?:\.venv/bin/)?{program} (--.*)$", text, re.MULTILINE)
  lines += re.findall(rf"`{program} (--[^`]+)`", text)
  lines = [line for line in lines if "..." not in line and "NAME" not in line]
  return [line.split(" # ")[0].rstrip(" &") for line in lines]


COMMANDS = [(path.relative_to(ROOT), command) for path in PAGES for command in commands(path)]


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=lambda part: str(part)[:60])
def test_commands_are_understood(page, command, monkeypatch, tmp_path):
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
  monkeypatch.setattr(methods, "SETTINGS", dict(methods.SETTINGS))
  method_file = re.search(r"```python\n(.*?)```", (ROOT / "docs/research.md").read_text(), re.DOTALL)
  (tmp_path / "nearest.py").write_text(method_file[1])
  arguments = ["lgag", *command.replace("'", "").replace("$i", "0").split()]
  arguments = [a.replace("$SLURM_ARRAY_TASK_ID", "1") for a in arguments]
  arguments = [a.replace("=nearest.py", f"={tmp_path}/nearest.py") for a in arguments]
  monkeypatch.setattr(sys, "argv", arguments)  # Fields of a config are looked for there.
  with flagsaver.flagsaver():
    if "--help" in command:
      with pytest.raises(SystemExit) as stop:
        command_line.parse_flags(arguments)
      assert stop.value.code == 0
    else:
      assert command_line.parse_flags(arguments) == ["lgag"]
      assert command_line.mode_arguments() is not None


def test_pages_with_commands_were_found():
  count = collections.Counter(str(page) for page, _ in COMMANDS)
  assert count["README.md"] == 12
  assert count["docs/tutorial.md"] >= 4
  assert all(count[f"docs/{name}.md"] for name in ("cluster", "inventories", "research", "running"))


def hook(name):
  return runpy.run_path(str(ROOT / "docs" / "hooks" / f"{name}.py"))


def test_the_configuration_page_tells_every_default():
  page = hook("configuration")["page"](ROOT / "lgag_jax" / "config.py")
  rows = dict(re.findall(r"^\| `([\w.]+)` \| `[^|]*` \| `([^|]*)` \|", page, re.MULTILINE))
  mode_arguments = {name: ast.literal_eval(value) for name, value in rows.items()}
  groups = dataclasses.asdict(Config())
  assert mode_arguments == {f"{g}.{n}": v for g, group in groups.items() for n, v in group.items()}
  assert "| Or \"resnet50\", or a Vision Transformer such as \"dinov2_vits14\". |" in page


@pytest.mark.parametrize("name", ["x", "x_i", r"\frac{1}{2}", r"\sum_{i} x_i^2"])
def test_equations_are_drawn_with_their_words(name):
  page = f'<p>As <span class="arithmatex">\\({html.escape(name)}\\)</span> says.</p>'
  drawn = hook("equations")["draw"](page, "a.md")
  assert drawn.count("<svg") == 1
  assert f'aria-label="{html.escape(name)}"' in drawn
  width, height = (float(v) for v in re.findall(r":([\d.]+)em;", drawn)[:2])
  assert 0.3 < width < 5
  assert 0.3 < height < 5


def test_an_equation_that_cannot_be_drawn_is_named():
  with pytest.raises(ValueError, match=r"docs/a\.md: .*nosuch"):
    hook("equations")["draw"](r'<span class="arithmatex">\(\nosuch{x}\)</span>', "a.md")


def test_the_citation_and_the_issue_forms_are_whole():
  citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
  assert {"cff-version", "message", "title", "authors"} <= set(citation)
  assert citation["version"] == __version__
  for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"):
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= set(form)
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(set(ids)) == len(ids)
    assert all(part["attributes"] for part in form["body"])


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
  result = subprocess.run(
    [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
    cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
  )
  assert result.returncode == 0, result.stderr
  assert "WARNING" not in result.stderr
  pages = {p.relative_to(tmp_path / "site").as_posix(): p.read_text()
           for p in (tmp_path / "site").rglob("*.html")}
  for mode in MODES:
    assert f'id="{mode}"' in pages["reference/commands.html"]
  assert 'id="lgag_jax.method.sol.overlap"' in pages["reference/method.html"]
  assert pages["method.html"].count("<svg role") > 10
  for name, page in pages.items():
    assert "arithmatex" not in page, name
    # Nothing is fetched from elsewhere to show a page.
    assert not re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(?:https?:)?//[^"]*"', page), name


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_run(path, tmp_path, monkeypatch):
  book = nbformat.read(path, 4)
  nbformat.validate(book)
  assert not any(cell.get("outputs") or cell.get("execution_count") for cell in book.cells)
  for name, value in {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_NUM_CPU_DEVICES": "1", "LGAG_NOTEBOOK": "small",
    "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "MPLBACKEND": "agg",
  }.items():
    monkeypatch.setenv(name, value)
  resources = {"metadata": {"path": str(tmp_path)}}
  nbclient.NotebookClient(book, timeout=300, kernel_name="python3", resources=resources).execute()
  printed = "".join(
    output.get("text", "") for cell in book.cells for output in cell.get("outputs", ())
  )
  wanted = {"labels_to_map": "polygons with id", "new_aggregation": "anchors in the bank"}
  assert wanted[path.stem] in printed


def test_a_notebook_is_a_page_of_the_site():
  pages = yaml.safe_load(re.sub(r"#.*", "", (ROOT / "mkdocs.yml").read_text()).split("\nnav:")[1])
  named = json.dumps(pages)
  assert NOTEBOOKS
  assert all(f"notebooks/{path.stem}.md" in named for path in NOTEBOOKS)

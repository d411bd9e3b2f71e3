"""Writes the reference of all settings from the dataclasses of lgag_jax/settings and their comments."""

import ast
import io
import pathlib
import tokenize

_HEAD = """# Configuration

Which settings are there, and what are their defaults? Set one on the command line:

    lgag --config=configs/image_folder.py --config.data.directory=my_images --workdir=runs/mine \\
      --config.optim.learning_rate=0.05

In a config file, assign to the field: `config.optim.learning_rate = 0.05`. Every setting is a typed
field and is checked when a run starts. An unknown name, a wrong type or a value out of range is an
error that names the field. `<workdir>/config.json` contains the settings of a run.

This page is generated from `lgag_jax/settings`. The defaults are the form of the method that measured
best. [The method](../method.md) says why. The [glossary](../glossary.md) explains the terms.
"""


def page(path: pathlib.Path) -> str:
  """Returns the page of config.py and its settings; raises ValueError for another layout."""
  classes, comments = {}, {}
  for file in (path, *sorted((path.parent / "settings").glob("*.py"))):
    source = file.read_text()
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    classes |= {node.name: node for node in nodes}
    comments |= {node.name: _comments(source) for node in nodes}
  if "Config" not in classes:
    raise ValueError(f"{path} has no class Config.")
  parts = [_HEAD]
  for group in _fields(classes["Config"]):
    node = classes[ast.unparse(group.annotation)]
    lines = [f"## {group.target.id}", ast.get_docstring(node)]
    lines.append("| field | type | default | |\n| --- | --- | --- | --- |\n" + "\n".join(
      "| " + " | ".join([
        f"`{group.target.id}.{field.target.id}`", _code(field.annotation), _code(field.value),
        _escaped(comments[node.name].get(field.end_lineno, "")),
      ]) + " |"
      for field in _fields(node)
    ))
    parts.append("\n\n".join(lines))
  return "\n\n".join(parts) + "\n"


def _fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
  return [each for each in node.body if isinstance(each, ast.AnnAssign)]


def _comments(source: str) -> dict[int, str]:
  """Returns the comments by line number."""
  tokens = tokenize.generate_tokens(io.StringIO(source).readline)
  return {
    token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT
  }


def _code(node: ast.expr) -> str:
  return f"`{_escaped(ast.unparse(node))}`"


def _escaped(text: str) -> str:
  return text.replace("|", "\\|").replace("<", "&lt;")

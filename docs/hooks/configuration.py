"""The reference of all settings, read from the dataclasses of lgag_jax/settings and their comments."""

import ast
import io
import pathlib
import tokenize

_HEAD = """# Configuration

Every setting is a typed field, checked when a run starts: an unknown name, a wrong type or a value out
of range is an error that names the field. A config file assigns to fields
(`config.optim.learning_rate = 0.05`), and so does the command line
(`--config.optim.learning_rate=0.05`). What a run used is kept in `<workdir>/config.json`.

This page is written from `lgag_jax/settings`. The defaults are the method as it measured best;
[the method](../method.md) says why.
"""


def page(path: pathlib.Path) -> str:
  """Returns the page of config.py and the groups beside it; ValueError for another layout."""
  classes, comments = {}, {}
  for file in (path, *sorted((path.parent / "settings").glob("*.py"))):
    source = file.read_text()
    own = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    classes |= {node.name: node for node in own}
    comments |= {node.name: _comments(source) for node in own}
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
  """Returns each comment by the number of its line."""
  tokens = tokenize.generate_tokens(io.StringIO(source).readline)
  return {
    token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT
  }


def _code(node: ast.expr) -> str:
  return f"`{_escaped(ast.unparse(node))}`"


def _escaped(text: str) -> str:
  return text.replace("|", "\\|").replace("<", "&lt;")

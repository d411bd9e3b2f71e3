"""Paths as users type them: expands ~ and variables, which shells do not do after "="."""

import glob
import os
import pathlib
import re

_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|(\w+))", re.ASCII)  # What os.path.expandvars replaces.


def expanded(path: str | os.PathLike, name: str) -> str:
  """Returns a path or glob with ~, $NAME and ${NAME} replaced; an address (https://) stays as it is.

  `name` says where the path was given. Raises ValueError naming a user or variable that is unknown,
  unless a file of this literal name exists.
  """
  text = os.fspath(path)
  if "://" in text:
    return text
  with_home = os.path.expanduser(text)
  unset = [a or b for a, b in _VARIABLE.findall(with_home) if (a or b) not in os.environ]
  unknown_user = text.startswith("~") and with_home == text
  if not unset and not unknown_user:
    return os.path.expandvars(with_home)
  if os.path.lexists(text) or glob.glob(text, recursive=True):
    return text
  if unset:
    raise ValueError(
      f"{name}={text}: the environment variable {unset[0]} is not set. Set it, or write out the path."
    )
  raise ValueError(
    f"{name}={text}: there is no home folder of {text.partition('/')[0]}. Write out the path; for a "
    f"file of this name write ./{text}."
  )


def not_a_flag(word: str) -> str:
  """Returns what to do about a word that no flag takes."""
  path = pathlib.Path(word)
  if not path.exists():
    return f"Error: {word!r} is not a flag. Flags begin with --; see --help."
  return (
    f"Error: no flag takes the file {word!r}. If you typed a pattern without quotes, the shell has "
    f"replaced it by file names: quote it, such as --input='{path.parent / ('*' + path.suffix)}'."
  )

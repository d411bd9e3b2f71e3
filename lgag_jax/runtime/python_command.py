"""Starts Python processes that import no module of the current folder.

That folder may hold data of a stranger, and with them a module that is named as a library's.
"""

import contextlib
import pathlib
import sys

from lgag_jax.runtime import packaged

NO_MODULES = packaged.PACKAGE / "pages" / "templates"  # A folder of this package without any module.


def lgag_is_here() -> bool:
  """Returns whether the current folder holds lgag itself, as a checkout that is not installed does."""
  return pathlib.Path.cwd() == packaged.PACKAGE.parent


def python_command(*words: str) -> list[str]:
  """Returns the command of this Python with `words`, such as "-m" and a module."""
  return [sys.executable, *(() if lgag_is_here() else ("-P",)), *words]


def away_from_modules() -> contextlib.AbstractContextManager[None]:
  """Changes to a folder without modules until the block ends, unless the current one holds lgag."""
  return contextlib.chdir("." if lgag_is_here() else NO_MODULES)

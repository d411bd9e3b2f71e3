"""Paths that pyogrio takes as they are.

It reads paths as URLs: "a!b.gpkg" is a file in an archive, and what follows a semicolon is lost.
"""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator

import pyogrio.util


@contextlib.contextmanager
def plain_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a path of a folder, perhaps through a link, below which pyogrio opens what is named."""
  probe = f"{folder}/x.gpkg"
  if pyogrio.util.vsi_path(probe) == probe:
    yield folder
    return
  with tempfile.TemporaryDirectory() as name:
    link = pathlib.Path(name, "folder")
    link.symlink_to(folder.absolute())
    yield link

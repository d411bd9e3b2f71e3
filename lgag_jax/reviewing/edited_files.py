"""Recognises a review's GeoPackages that others have changed, and moves them to `edited/`."""

import contextlib
import datetime
import hashlib
import logging
import os
import pathlib
import re
import sqlite3
from collections.abc import Callable

from lgag_jax.geo import layer_files, sqlite_files
from lgag_jax.runtime import files

_LOG = logging.getLogger(__name__)

FOLDER = "edited"
NO_DIGEST = "0" * 64
_DERIVED = re.compile(rb"rtree_|sqlite_|gpkg_ogr_contents$")
_CHANGED = (b"gpkg_contents", "last_change")


def keep_edited(path: pathlib.Path, is_as_written: Callable[[pathlib.Path], bool]) -> None:
  """Moves a file that another program has changed or written to `edited/`, before it is replaced.

  What a GIS has saved beside it moves with it. Raises OSError, and leaves the file, if another program
  has it open; ValueError for a symbolic link.
  """
  folder = path.parent / FOLDER
  for place in (path, folder):
    files.require_plain(place)
  sqlite_files.make_whole(path)
  if not path.exists():
    return
  with contextlib.suppress(RuntimeError, ValueError, LookupError, TypeError, sqlite3.Error):
    if is_as_written(path):
      return
  folder.mkdir(exist_ok=True)
  now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
  kept = folder / f"{path.stem}_{now}.gpkg"
  while os.path.lexists(kept):
    kept = kept.with_stem(f"{kept.stem}_")
  for part in (*sqlite_files.side_files(path), path):  # A file of another format may have some.
    part.rename(kept.with_name(kept.name + part.name.removeprefix(path.name)))
  _LOG.warning(
    "%s was changed by another program, or is of an earlier release. It is kept as %s. If it holds "
    "decisions, --mode=tile takes it as --labels; the page does not show its changes.", path, kept,
  )


def seal(path: pathlib.Path) -> None:
  """Writes the digest of a GeoPackage's content into its notes, in place of `NO_DIGEST`.

  Raises sqlite3.Error if it cannot be written.
  """
  digest = digest_of(path)
  with contextlib.closing(sqlite3.connect(path)) as database:
    database.execute("UPDATE gpkg_metadata SET metadata = replace(metadata, ?, ?)", (NO_DIGEST, digest))
    database.commit()


def digest_of(path: pathlib.Path, own_digest: str = NO_DIGEST) -> str:
  """Returns a digest of all tables, fields and cells of a GeoPackage, but of its own digest.

  Leaves out what a GIS may change while nobody edits: the time of the last change, the indices, and the
  counts of features. Raises ValueError for a file that is unsafe, sqlite3.Error for a damaged one.
  """
  layer_files.check_geopackage(path)
  digest, own = hashlib.sha256(), own_digest.encode()
  address = f"{path.absolute().as_uri()}?mode=ro"
  with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
    database.text_factory = bytes
    definitions = database.execute(
      "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name").fetchall()
    for kind, name, sql in definitions:
      digest.update(repr((kind, name, sql)).encode())
      if kind != b"table" or _DERIVED.match(name):
        continue
      quoted = name.decode().replace('"', '""')
      rows = database.execute(f'SELECT * FROM "{quoted}"')
      unused = {i for i, field in enumerate(rows.description) if (name, field[0]) == _CHANGED}
      for row in rows:
        cells = [cell for i, cell in enumerate(row) if i not in unused]
        if name == b"gpkg_metadata":
          cells = [
            cell.replace(own, NO_DIGEST.encode()) if isinstance(cell, bytes) else cell for cell in cells
          ]
        digest.update(repr(cells).encode())
  return digest.hexdigest()

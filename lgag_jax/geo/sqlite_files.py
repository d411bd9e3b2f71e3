"""The files of an SQLite database, such as a GeoPackage: the main one and those beside it.

A GIS that edits a GeoPackage saves into `-wal`, and merges that into the main file later.
"""

import contextlib
import os
import pathlib
import sqlite3

from lgag_jax.runtime import files

_SUFFIXES = ("-journal", "-wal", "-shm")
_HEADER = b"SQLite format 3\0"
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # The end of a journal that names another file.
_OWN_TABLES = ("gpkg_", "rtree_", "sqlite_")  # Of the GeoPackage standard and of SQLite.
_PATIENCE = 1.0  # Seconds.


def side_files(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files that SQLite keeps beside a database, as far as there are any."""
  places = [path.with_name(path.name + suffix) for suffix in _SUFFIXES]
  return [place for place in places if os.path.lexists(place)]


def tables(path: pathlib.Path) -> set[str]:
  """Returns the names of a GeoPackage's tables that hold features or other contents, not its own."""
  address = f"{path.absolute().as_uri()}?mode=ro"
  with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
  return {name for (name,) in rows if not name.startswith(_OWN_TABLES)}


def remove_side_files(path: pathlib.Path) -> None:
  """Removes the files beside a database that nobody needs: SQLite would take them for a new one's."""
  for place in side_files(path):
    place.unlink(missing_ok=True)


def make_whole(path: pathlib.Path) -> None:
  """Merges the files beside a database into it, before it is moved or replaced.

  Those beside a missing file are removed, and those beside a file of another format stay. Raises
  OSError, and leaves all files, if another program has the database open or if they cannot be merged;
  ValueError for links.
  """
  beside = side_files(path)
  for place in (path, *beside):
    files.require_plain(place)
  if not path.exists():
    remove_side_files(path)
    return
  with path.open("rb") as file:
    if file.read(len(_HEADER)) != _HEADER:
      return
  journal = path.with_name(path.name + _SUFFIXES[0])
  if journal in beside and _names_another_file(journal):
    raise OSError(
      f"{journal} names another file, which SQLite would delete as it undoes changes, so lgag does "
      f"not replace {path}: move both elsewhere, and run the command once more."
    )
  try:
    _merge(path)
  except sqlite3.Error as error:
    busy = "locked" in str(error)
    if not busy and not beside:
      return  # Damaged, but in one file.
    reason = "is open in another program" if busy else f"cannot be joined with {beside[0].name}"
    raise OSError(
      f"{path} {reason} ({error}), so that lgag does not replace it: close it in the GIS, or move it "
      f"elsewhere with the files {path.name}-* beside it. Then run the command once more."
    ) from error
  remove_side_files(path)  # What is left of a journal holds nothing any more.


def _names_another_file(journal: pathlib.Path) -> bool:
  """Returns whether SQLite would delete another file, which a journal names, after undoing changes."""
  with journal.open("rb") as file:
    file.seek(max(0, journal.stat().st_size - len(_SUPER_JOURNAL)))
    return file.read() == _SUPER_JOURNAL


def _merge(path: pathlib.Path) -> None:
  """Saves what lies beside a database into it; raises sqlite3.Error if another program has it open."""
  address = f"{path.absolute().as_uri()}?mode=rw"
  with contextlib.closing(
    sqlite3.connect(address, uri=True, timeout=_PATIENCE, isolation_level=None)
  ) as database:
    # Ends the log of a database, which others may not have open then.
    (mode,) = database.execute("PRAGMA journal_mode = DELETE").fetchone()
    if mode != "delete":
      raise sqlite3.OperationalError(f"its journal stays in the mode {mode}")
    database.execute("BEGIN EXCLUSIVE")  # Others may be changing one without a log.
    database.execute("ROLLBACK")

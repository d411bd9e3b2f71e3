"""Checks an untrusted GeoPackage before GDAL opens it.

The order matters: nothing is read from a table before its definition and its pages are checked.
"""

import contextlib
import pathlib
import re
import sqlite3

from lgag_jax.geo import sqlite_files
from lgag_jax.imagery import plain_crs
from lgag_jax.runtime import files

_MAX_SQL_STEPS = 10_000  # Thousands of steps of SQLite's machine.
_STEPS_PER_BYTE = 16  # Of the file, while all rows are visited.
_MAX_VALUE_BYTES = 1 << 24  # Of a definition or a CRS.
_MAX_DEFAULTS = 1000  # Characters in a table. SQLite fills every row that lacks the column with them.
_MAX_TABLES = 600  # GDAL lists all of them for each layer that it opens.
# What a GeoPackage consists of, as SQLite writes it, and views that the standard names.
_PLAIN = re.compile(
  r'CREATE (TABLE|TRIGGER|INDEX|UNIQUE INDEX|VIRTUAL TABLE ("[^"]+"|\w+) USING rtree\s*\()'
)
_VIEW = re.compile(r'CREATE VIEW "?((?:st_)?(?:spatial_ref_sys|geometry_columns))"? AS ')
_ODD_VALUE = re.compile(r"[\w-]+ value in ")  # Of another type than its column's, which harms nobody.
_IDS = (b"GPKG", b"GP10", b"GP11")  # At byte 68 of an SQLite file.


def is_geopackage(header: bytes) -> bool:
  """Returns whether the first 72 bytes of a file are those of a GeoPackage."""
  return header.startswith(b"SQLite format 3\0") and header[68:72] in _IDS


def check_geopackage(path: pathlib.Path) -> None:
  """Raises ValueError with the reason why GDAL must not open a file as GeoPackage.

  A CRS may name other files. Virtual tables open them, and views and generated columns, which run when
  a layer is listed or read, take any time and memory. So do long defaults, which each row repeats, and
  pages that are part of several tables or places.
  """
  with files.open_regular(path) as file:
    if not is_geopackage(file.read(72)):
      raise ValueError("it is no GeoPackage")
  _check_side_files(path)
  address = f"{path.absolute().as_uri()}?mode=ro"
  try:
    with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
      _limit_steps(database, _MAX_SQL_STEPS)
      database.text_factory = lambda data: data.decode("latin-1")
      longest = database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
      views = _check_definitions(database)
      _check_columns(database)
      database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, longest)  # A shape may be longer.
      _check_pages(database, path)
      database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
      _check_layers(database, views)
      _check_counts(database)
      for row in database.execute("SELECT * FROM gpkg_spatial_ref_sys"):
        for value in row:
          if isinstance(value, bytes):  # GDAL takes them for text.
            value = database.execute("SELECT CAST(? AS TEXT)", (value,)).fetchone()[0]
          if isinstance(value, str):
            check_crs(value)
  except sqlite3.Error as error:
    raise ValueError(str(error)) from error


def _check_side_files(path: pathlib.Path) -> None:
  """Raises ValueError for a pipe or device beside a database: SQLite would wait for it."""
  for place in sqlite_files.side_files(path):
    if place.exists() and not (place.is_file() or place.is_dir()):
      raise ValueError(f"{place.name} beside it is not a regular file: remove that one")


def check_crs(text: str) -> None:
  """Raises ValueError for a CRS that names other files."""
  if plain_crs.names_files(text):
    raise ValueError(f"its CRS names other files, which lgag does not open: {text!r:.300}")


def _limit_steps(database: sqlite3.Connection, thousands: int) -> None:
  steps = iter(range(thousands))
  database.set_progress_handler(lambda: next(steps, -1) < 0, 1000)


def _check_definitions(database: sqlite3.Connection) -> set[str]:
  """Returns the names of the views, all of them the standard's; reads no table that has a name."""
  views = set()
  # SQLite makes what the text says, whatever the other columns of sqlite_master say.
  for (text,) in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"):
    if (view := _VIEW.match(text)) and "(" not in text:
      views.add(view[1])
    elif not _PLAIN.match(text):
      raise ValueError(_runs(text))
  return views


def _runs(text: str) -> str:
  return (
    f"it holds a view or a virtual table ({text[:100]!r}), which may open other files or never end: "
    "save its features as a layer"
  )


def _check_columns(database: sqlite3.Connection) -> None:
  count = database.execute("SELECT count(*) FROM pragma_table_list WHERE type = 'table'").fetchone()[0]
  if count > _MAX_TABLES:
    raise ValueError(
      f"it holds {count} tables, more than the {_MAX_TABLES} that are supported: save the layer with "
      "the labels alone"
    )
  for name, hidden, defaults in database.execute(
    "SELECT t.name, max(x.hidden), sum(length(x.dflt_value)) "
    "FROM pragma_table_list t, pragma_table_xinfo(t.name) x "
    "WHERE t.type IN ('table', 'shadow') GROUP BY t.name"
  ):
    if hidden:
      raise ValueError(f"its table {name!r} holds generated columns, which may take any memory")
    if (defaults or 0) > _MAX_DEFAULTS:
      raise ValueError(
        f"the defaults of the columns of its table {name!r} have {defaults} characters, more than the "
        f"{_MAX_DEFAULTS} that are supported, since each row may repeat them: export the layer to a "
        "new GeoPackage"
      )


def _check_pages(database: sqlite3.Connection, path: pathlib.Path) -> None:
  """Raises ValueError if the file is damaged, such as by pages in several places of a table."""
  parts = (path, path.with_name(f"{path.name}-wal"))
  size = sum(file.stat().st_size for file in parts if file.is_file())
  _limit_steps(database, max(_MAX_SQL_STEPS, _STEPS_PER_BYTE * size // 1000))
  database.execute("PRAGMA ignore_check_constraints=1")  # They may take any memory.
  fault = database.execute("PRAGMA quick_check(1)").fetchone()[0]
  if fault != "ok" and not _ODD_VALUE.match(fault):
    fault = " ".join(fault.replace("*** in database main ***", "").split())
    raise ValueError(f"it is damaged ({fault[:200]}): export its layer to a new GeoPackage")
  _limit_steps(database, _MAX_SQL_STEPS)


def _check_layers(database: sqlite3.Connection, views: set[str]) -> None:
  """Raises ValueError for a view that is a layer: GDAL would read it."""
  layers = {name for (name,) in database.execute("SELECT lower(table_name) FROM gpkg_contents")}
  for view in views & layers:
    raise ValueError(_runs(f"CREATE VIEW {view}"))


def _check_counts(database: sqlite3.Connection) -> None:
  """Raises ValueError if a layer has more features than it says, since GDAL reads no more."""
  tables = {name for (name,) in database.execute("SELECT lower(name) FROM sqlite_master")}
  if "gpkg_ogr_contents" not in tables:
    return
  rows = database.execute("SELECT lower(table_name), feature_count FROM gpkg_ogr_contents").fetchall()
  for table, stated in rows:
    if stated is None or table not in tables:
      continue
    name = table.encode("latin-1").decode()
    quoted = name.replace('"', '""')
    count = database.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0]
    if count > stated:
      raise ValueError(f"its layer {name!r} has {count} features, but says that it only has {stated}")

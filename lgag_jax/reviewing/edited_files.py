"""Recognises a review's GeoPackages that others have changed, and moves them to `edited/`."""

import contextlib
import datetime
import hashlib
import logging
import os
import pathlib
from collections.abc import Callable

import pyogrio
import pyogrio.raw
import shapely

from lgag_jax.geo import sqlite_files
from lgag_jax.reviewing import outlines
from lgag_jax.runtime import files

_LOG = logging.getLogger(__name__)


def keep_edited(path: pathlib.Path, is_as_written: Callable[[pathlib.Path], bool]) -> None:
  """Moves a file that another program has changed or written to `edited/`, before it is replaced.

  What a GIS has saved beside it moves with it. Raises OSError, and leaves the file, if another program
  has it open; ValueError for a symbolic link.
  """
  folder = path.parent / "edited"
  for place in (path, folder):
    files.require_plain(place)
  sqlite_files.make_whole(path)
  if not path.exists():
    return
  with contextlib.suppress(RuntimeError, ValueError, LookupError, TypeError, shapely.GEOSException):
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


def holds(
  path: pathlib.Path, layers: set[str], layer: str, fields: dict[str, type], names: tuple[str, ...],
  digest: str,
) -> bool:
  """Returns whether a file has these layers, and one of them these fields and cells of this digest."""
  meta, _, wkb, data = pyogrio.raw.read(path, layer=layer)
  columns = dict(zip(meta["fields"].tolist(), data, strict=True))
  cells = (columns[name].tolist() for name in names)
  return (
    {name for name, kind in pyogrio.list_layers(path) if kind is not None} == layers
    and set(columns) == set(fields)
    and digest_of(list(zip(shapely.from_wkb(wkb), *cells, strict=True))) == digest
  )


def _text(cell: object) -> str:
  """Returns a cell as text; GeoPackages do not tell an empty text, a missing one and NaN apart."""
  return "" if cell is None or cell != cell else str(cell)


def digest_of(rows: list[tuple]) -> str:
  """Returns a digest of geometries and the cells beside them."""
  digest = hashlib.sha256()
  for geometry, *texts in rows:
    if geometry is not None:
      digest.update(shapely.to_wkb(outlines.as_multi(geometry)))
    digest.update(repr([_text(text) for text in texts]).encode())
  return digest.hexdigest()

"""Landslides as vector files: GeoPackage in the scene's coordinates, GeoJSON in WGS84."""

import contextlib
import errno
import functools
import itertools
import logging
import pathlib
import tempfile
import warnings
from collections.abc import Iterable

import numpy as np
import pyogrio
import pyogrio.errors
import pyogrio.raw
import shapely

from lgag_jax.geo.grid import Grid
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.runtime import files

_LOG = logging.getLogger(__name__)

LAYER = "landslides"
_FIELDS = (
  ("id", np.int64), ("class", object), ("area_m2", np.float64), ("perimeter_m", np.float64),
  ("mean_probability", np.float64), ("max_probability", np.float64), ("pixels", np.int64),
  ("source", object),
)
# RFC 7946 asks for WGS84, outlines anticlockwise and holes clockwise; seven decimals are a centimetre.
_GEOJSON = {"RFC7946": "YES", "COORDINATE_PRECISION": "7"}
_AT_ONCE = 5000
_SIDE_FILES = ("-journal", "-wal", "-shm")  # SQLite's.


def write(
  landslides: Iterable[Landslide], grid: Grid, gpkg_path: pathlib.Path, geojson_path: pathlib.Path
) -> list[pathlib.Path]:
  """Writes a GeoPackage, layer "landslides", and a GeoJSON; returns the files written.

  A scene with no place on the Earth has no GeoJSON, and an older one of that name is removed; without
  any CRS the GeoPackage's is undefined, and its coordinates are what the scene's transform makes of
  columns and rows. Unknown figures are null. A few thousand landslides are in memory at once. An
  OSError names the file that could not be written.
  """
  crs = grid.crs.to_wkt() if grid.crs else None
  with _written(gpkg_path) as partial:
    count, placed = _write_layer(partial, landslides, crs)
    _check(partial, count)
    if _has_index() and not pyogrio.read_info(partial)["capabilities"]["fast_spatial_filter"]:
      raise pyogrio.errors.DataLayerError("the spatial index was not written")
    # Of a database that this one replaces, a GIS may have it open: SQLite would take them for its own.
    _remove_side_files(gpkg_path)
  if grid.to_wgs84() is None:
    geojson_path.unlink(missing_ok=True)
    return [gpkg_path]
  with _written(geojson_path) as partial:
    # A polygon without an area lies where the projection has no coordinates.
    with pyogrio.raw.open_arrow(gpkg_path, where="area_m2 IS NOT NULL") as (meta, stream):
      pyogrio.raw.write_arrow(
        stream, partial, layer=LAYER, driver="GeoJSON", geometry_type="Polygon", crs=crs,
        geometry_name=meta["geometry_name"], **_GEOJSON,
      )
    _check(partial, placed)
  return [gpkg_path, geojson_path]


@contextlib.contextmanager
def _written(path: pathlib.Path):
  """Yields a place beside `path` as `files.beside` does; leaves none of SQLite's own files there."""
  with files.atomic_path(path) as partial:
    partial.unlink(missing_ok=True)  # Of a run that was killed: GDAL would add to it.
    _remove_side_files(partial)
    try:
      yield partial
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
      raise OSError(errno.EIO, f"{error} (is the disk full?)", str(path)) from error
    finally:
      _remove_side_files(partial)


@functools.cache
def _has_index() -> bool:
  """Whether SQLite has R-trees: where TensorFlow was imported before pyogrio, GDAL gets one without."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "probe.gpkg")
    geometry = shapely.to_wkb(np.array([shapely.box(0, 0, 1, 1)], object))
    pyogrio.raw.write(
      path, geometry, [], [], layer=LAYER, driver="GPKG", geometry_type="Polygon", crs="EPSG:4326"
    )
    found = pyogrio.read_info(path, layer=LAYER)["capabilities"]["fast_spatial_filter"]
  if not found:
    _LOG.warning("GeoPackages have no spatial index: import pyogrio before TensorFlow.")
  return found


def _remove_side_files(path: pathlib.Path) -> None:
  for suffix in _SIDE_FILES:
    path.with_name(path.name + suffix).unlink(missing_ok=True)


def _write_layer(path, landslides: Iterable[Landslide], crs: str | None) -> tuple[int, int]:
  """Writes a GeoPackage; returns the numbers of landslides, and of those that have an area."""
  landslides, count, placed = iter(landslides), 0, 0
  indexed = "YES" if _has_index() else "NO"
  while (batch := list(itertools.islice(landslides, _AT_ONCE))) or not path.exists():
    columns = zip(*map(_row, batch), strict=True) if batch else [()] * len(_FIELDS)
    with warnings.catch_warnings():
      warnings.filterwarnings("ignore", message="'crs' was not provided")  # There may be none.
      pyogrio.raw.write(
        path, shapely.to_wkb(np.array([landslide.geometry for landslide in batch], object)),
        [np.array(column, kind) for column, (_, kind) in zip(columns, _FIELDS, strict=True)],
        [name for name, _ in _FIELDS], layer=LAYER, driver="GPKG", geometry_type="Polygon", crs=crs,
        promote_to_multi=False, append=path.exists(), layer_options={"SPATIAL_INDEX": indexed},
      )
    count += len(batch)
    placed += sum(landslide.area_m2 is not None for landslide in batch)
  return count, placed


def _check(path: pathlib.Path, count: int) -> None:
  """GDAL closes a GeoPackage that did not fit on the disk without a word: without layer or index."""
  found = pyogrio.read_info(path, layer=LAYER, force_feature_count=True)["features"]
  if found != count:
    raise pyogrio.errors.DataLayerError(f"{found} of {count} polygons written")


def _row(landslide: Landslide) -> tuple:
  return (
    landslide.id, _text(landslide.class_name), landslide.area_m2, landslide.perimeter_m,
    landslide.mean_probability, landslide.max_probability, landslide.pixels, _text(landslide.source),
  )


def _text(name: str) -> str:
  """A file's name may hold bytes that are no text."""
  return name.encode(errors="backslashreplace").decode()

"""Writes landslides as vector files: GeoPackage in the scene's coordinates, GeoJSON in WGS84."""

import contextlib
import errno
import functools
import itertools
import logging
import pathlib
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

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
# RFC 7946: WGS84, outlines anticlockwise, holes clockwise. Seven decimals are about a centimetre.
_GEOJSON: dict[str, Any] = {"RFC7946": "YES", "COORDINATE_PRECISION": "7"}
_LANDSLIDES_AT_ONCE = 5000
_SQLITE_SUFFIXES = ("-journal", "-wal", "-shm")


def write(
  landslides: Iterable[Landslide], grid: Grid, gpkg_path: pathlib.Path, geojson_path: pathlib.Path
) -> list[pathlib.Path]:
  """Writes a GeoPackage with the layer "landslides", and a GeoJSON; returns the files written.

  If the scene has no place on the Earth, no GeoJSON is written, and an older one of that name is
  removed. Without a CRS, the GeoPackage has none either: its coordinates are the scene's transform of
  columns and rows. Unknown figures are null. At most 5,000 landslides are in memory at once. Raises
  OSError naming a file that cannot be written.
  """
  crs = grid.crs.to_wkt() if grid.crs else None
  with _beside(gpkg_path) as partial:
    count, with_area = _write_layer(partial, landslides, crs)
    _check_count(partial, count)
    if _can_index() and not pyogrio.read_info(partial)["capabilities"]["fast_spatial_filter"]:
      raise pyogrio.errors.DataLayerError("the spatial index was not written")
    # A GIS may have the replaced database open: SQLite would read its side files as the new one's.
    _remove_side_files(gpkg_path)
  if grid.to_wgs84() is None:
    geojson_path.unlink(missing_ok=True)
    return [gpkg_path]
  with _beside(geojson_path) as partial:
    # A polygon without an area lies outside the projection: it has no coordinates in WGS84.
    with pyogrio.raw.open_arrow(gpkg_path, where="area_m2 IS NOT NULL") as (meta, stream):
      pyogrio.raw.write_arrow(
        stream, partial, layer=LAYER, driver="GeoJSON", geometry_type="Polygon", crs=crs,
        geometry_name=meta["geometry_name"], **_GEOJSON,
      )
    _check_count(partial, with_area)
  return [gpkg_path, geojson_path]


@contextlib.contextmanager
def _beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Does what `files.atomic_path` does; removes SQLite's side files before and after."""
  with files.atomic_path(path) as partial:
    partial.unlink(missing_ok=True)  # GDAL would append to the file of a killed run.
    _remove_side_files(partial)
    try:
      yield partial
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
      raise OSError(errno.EIO, f"{error} (is the disk full?)", str(path)) from error
    finally:
      _remove_side_files(partial)


@functools.cache
def _can_index() -> bool:
  """Whether SQLite has R-trees. GDAL gets one without if TensorFlow is imported before pyogrio."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "probe.gpkg")
    geometry = shapely.to_wkb(np.array([shapely.box(0, 0, 1, 1)], object))
    pyogrio.raw.write(
      path, geometry, [], [], layer=LAYER, driver="GPKG", geometry_type="Polygon", crs="EPSG:4326"
    )
    indexed = pyogrio.read_info(path, layer=LAYER)["capabilities"]["fast_spatial_filter"]
  if not indexed:
    _LOG.warning("GeoPackages have no spatial index: import pyogrio before TensorFlow.")
  return indexed


def _remove_side_files(path: pathlib.Path) -> None:
  for suffix in _SQLITE_SUFFIXES:
    path.with_name(path.name + suffix).unlink(missing_ok=True)


def _write_layer(path, landslides: Iterable[Landslide], crs: str | None) -> tuple[int, int]:
  """Writes a GeoPackage; returns the number of landslides and of those with an area."""
  landslides, count, with_area = iter(landslides), 0, 0
  indexed = "YES" if _can_index() else "NO"
  while (batch := list(itertools.islice(landslides, _LANDSLIDES_AT_ONCE))) or not path.exists():
    columns = zip(*map(_row, batch), strict=True) if batch else [()] * len(_FIELDS)
    with warnings.catch_warnings():
      warnings.filterwarnings("ignore", message="'crs' was not provided")  # Some scenes have none.
      pyogrio.raw.write(
        path, shapely.to_wkb(np.array([landslide.geometry for landslide in batch], object)),
        [np.array(column, kind) for column, (_, kind) in zip(columns, _FIELDS, strict=True)],
        [name for name, _ in _FIELDS], layer=LAYER, driver="GPKG", geometry_type="Polygon", crs=crs,
        promote_to_multi=False, append=path.exists(), layer_options={"SPATIAL_INDEX": indexed},
      )
    count += len(batch)
    with_area += sum(landslide.area_m2 is not None for landslide in batch)
  return count, with_area


def _check_count(path: pathlib.Path, count: int) -> None:
  """Raises DataLayerError if polygons are missing: GDAL does not report that the disk was full."""
  written = pyogrio.read_info(path, layer=LAYER, force_feature_count=True)["features"]
  if written != count:
    raise pyogrio.errors.DataLayerError(f"{written} of {count} polygons written")


def _row(landslide: Landslide) -> tuple:
  return (
    landslide.id, _text(landslide.class_name), landslide.area_m2, landslide.perimeter_m,
    landslide.mean_probability, landslide.max_probability, landslide.pixels, _text(landslide.source),
  )


def _text(name: str) -> str:
  """Escapes the bytes of a file name that are not valid text."""
  return name.encode(errors="backslashreplace").decode()

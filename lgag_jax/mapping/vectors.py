"""Writes landslides as vector files: GeoPackage in the scene's coordinates, GeoJSON in WGS84."""

import contextlib
import functools
import hashlib
import itertools
import logging
import math
import os
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

from lgag_jax.geo import antimeridian, sqlite_files, vector_paths
from lgag_jax.geo.grid import Grid
from lgag_jax.mapping import geoparquet, schemas
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.mapping.schemas import Profile, Provenance
from lgag_jax.runtime import files

_LOG = logging.getLogger(__name__)

LAYER = "landslides"
_SOURCE_TABLE = "source"
# RFC 7946: WGS84, outlines anticlockwise, holes clockwise.
_GEOJSON: dict[str, Any] = {"RFC7946": "YES", "WRAPDATELINE": "NO"}
_CENTIMETRE = 7  # Decimals of degrees.
_MOST_DECIMALS = 13  # That a double has for degrees.
_METRES_PER_DEGREE = 111_320  # Along the equator.
FEATURES_AT_ONCE = 5000


def write(
  landslides: Iterable[Landslide], grid: Grid, gpkg_path: pathlib.Path,
  geojson_path: pathlib.Path | None = None,
  provenance: Provenance = Provenance(), profile: Profile = schemas.PROFILES["plain"],
  table: geoparquet.Table | None = None,
) -> list[pathlib.Path]:
  """Writes a GeoPackage with the layer "landslides", and a GeoJSON if asked; returns the files written.

  Adds the landslides to `table`, a GeoParquet, if there is one and the scene has a place on the Earth.

  Polygons have the attributes of `profile`, which may add a table "source" to the GeoPackage.
  If the scene has no place on the Earth, no GeoJSON is written, and an older one of that name is
  removed. Without a CRS, the GeoPackage has none either: its coordinates are the scene's transform of
  columns and rows. Unknown figures are null. At most 5,000 landslides are in memory at once. Raises
  OSError naming a file that cannot be written.
  """
  gpkg_path.parent.mkdir(parents=True, exist_ok=True)
  with vector_paths.plain_folder(gpkg_path.parent) as folder:
    paths = [gpkg_path, *([geojson_path] if geojson_path and grid.to_wgs84() else ())]
    plain_paths = (folder / path.name for path in paths)
    _write_files(landslides, grid, provenance, profile, table, *plain_paths)
  if geojson_path and len(paths) == 1:
    geojson_path.unlink(missing_ok=True)
  return paths


def _write_files(
  landslides: Iterable[Landslide], grid: Grid, provenance: Provenance, profile: Profile,
  table: geoparquet.Table | None, gpkg_path: pathlib.Path, geojson_path: pathlib.Path | None = None,
) -> None:
  in_degrees = geojson_path and _temporary_path(geojson_path)
  try:
    with beside(gpkg_path) as partial:
      count, with_area = _write_layers(
        partial, in_degrees, landslides, grid, provenance, profile, table)
      _write_sources(partial, provenance, profile)
      check_count(partial, count)
      info = pyogrio.read_info(partial, layer=LAYER)
      if _can_index() and not info["capabilities"]["fast_spatial_filter"]:
        raise pyogrio.errors.DataLayerError("the spatial index was not written")
      sqlite_files.remove_side_files(gpkg_path)
    if geojson_path is None:
      return
    with beside(geojson_path) as partial:
      # GDAL takes nines before the last decimals, as in 179.9999998, for a rounding error.
      decimals = str(min(_MOST_DECIMALS, _decimals(grid) + 5))
      with pyogrio.raw.open_arrow(in_degrees) as (meta, stream):
        pyogrio.raw.write_arrow(
          stream, partial, layer=LAYER, driver="GeoJSON", geometry_type="Unknown", crs="EPSG:4326",
          geometry_name=meta["geometry_name"], COORDINATE_PRECISION=decimals, **_GEOJSON,
        )
      check_count(partial, with_area)
  finally:
    if in_degrees:
      remove(in_degrees)


def _temporary_path(path: pathlib.Path) -> pathlib.Path:
  """Returns where a map's polygons are kept in longitude and latitude until all are written."""
  digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
  return path.with_name(f".partial-{digest}.gpkg")


def _decimals(grid: Grid) -> int:
  """Returns the decimals of degrees that are a centimetre, or a tenth of a smaller pixel."""
  gsd = grid.gsd() or 1.0
  return max(_CENTIMETRE, min(_MOST_DECIMALS, math.ceil(-math.log10(gsd / 10 / _METRES_PER_DEGREE))))


@contextlib.contextmanager
def beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Does what `files.atomic_path` does; removes SQLite's side files before and after."""
  with files.atomic_path(path) as partial:
    remove(partial)  # GDAL would append to the file of a killed run.
    try:
      yield partial
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
      raise files.write_error(path, error) from error
    finally:
      sqlite_files.remove_side_files(partial)


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


def remove(path: pathlib.Path) -> None:
  """Removes a GeoPackage that may not exist, and SQLite's files beside it."""
  path.unlink(missing_ok=True)
  sqlite_files.remove_side_files(path)


def _write_layers(
  path: pathlib.Path, in_degrees: pathlib.Path | None, landslides: Iterable[Landslide], grid: Grid,
  provenance: Provenance, profile: Profile, table: geoparquet.Table | None,
) -> tuple[int, int]:
  """Writes a GeoPackage, and one in longitude and latitude of the landslides with an area.

  Also adds the latter to `table`.

  Returns the number of landslides and of those with an area. A polygon without an area lies outside the
  projection: it has no coordinates in WGS84.
  """
  for one in filter(None, (path, in_degrees)):
    remove(one)  # GDAL would append to the file of a killed run.
  landslides, count, with_area = iter(landslides), 0, 0
  while (batch := list(itertools.islice(landslides, FEATURES_AT_ONCE))) or not path.exists():
    geometries = np.array([landslide.geometry for landslide in batch], object)
    columns = {field.name: field.column(batch, provenance) for field in profile.fields}
    write_batch(path, columns, geometries, grid.crs.to_wkt() if grid.crs else None, "Polygon")
    measured = [number for number, landslide in enumerate(batch) if landslide.area_m2 is not None]
    polygons = geometries[measured]
    if in_degrees or (table and measured):
      polygons = to_degrees(polygons, grid)
    if in_degrees:
      columns = {name: column[measured] for name, column in columns.items()}
      write_batch(in_degrees, columns, polygons, "EPSG:4326", "Unknown")
    if table and measured:
      table.add([batch[number] for number in measured], polygons)
    count += len(batch)
    with_area += len(measured)
  return count, with_area


def to_degrees(polygons: np.ndarray, grid: Grid) -> np.ndarray:
  """Returns polygons in longitude and latitude, cut at the 180th meridian.

  GDAL would cut and round them, too, but leaves lines and invalid parts where one is narrow.
  """
  degrees = _transformed(polygons, grid)
  if (near_pole := antimeridian.needs_more_points(degrees)).any():
    # The longer side: by the shorter one of a very narrow pixel the points would be without number.
    pixel = max(math.hypot(*grid.transform[:4:3]), math.hypot(*grid.transform[1:5:3]))
    degrees[near_pole] = _transformed(shapely.segmentize(polygons[near_pole], pixel), grid)
  return antimeridian.cut(degrees, 10.0 ** -_decimals(grid))


def _transformed(polygons: np.ndarray, grid: Grid) -> np.ndarray:
  transformer = grid.to_wgs84()
  assert transformer is not None
  points = np.stack(transformer.transform(*shapely.get_coordinates(polygons).T), axis=1)
  return shapely.set_coordinates(polygons.copy(), points)


def write_batch(
  path: pathlib.Path, columns: dict[str, np.ndarray], geometries: np.ndarray, crs: str | None,
  kind: str, layer: str = LAYER,
) -> None:
  """Writes features of a kind of geometry to a GeoPackage, or appends them to the layer there."""
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="'crs' was not provided")  # Some scenes have none.
    pyogrio.raw.write(
      path, shapely.to_wkb(geometries), [np.ma.getdata(column) for column in columns.values()],
      list(columns), layer=layer, driver="GPKG", crs=crs,
      field_mask=[np.ma.getmaskarray(c) if np.ma.is_masked(c) else None for c in columns.values()],
      append=path.exists(), geometry_type=kind, promote_to_multi=False,
      layer_options={"SPATIAL_INDEX": "YES" if kind != "Unknown" and _can_index() else "NO"},
    )


def _write_sources(path: pathlib.Path, provenance: Provenance, profile: Profile) -> None:
  """Adds the table of the imagery to a GeoPackage, if the profile has one."""
  if not profile.source_fields:
    return
  names, kinds, values = zip(*profile.source_fields, strict=True)
  columns = [
    np.array([value(provenance)], kind) for kind, value in zip(kinds, values, strict=True)
  ]
  pyogrio.raw.write(
    path, None, columns, list(names), layer=_SOURCE_TABLE, driver="GPKG", geometry_type=None, crs=None
  )


def check_count(path: pathlib.Path, count: int, layer: str = LAYER) -> None:
  """Raises DataLayerError if features are missing: GDAL does not report that the disk was full."""
  written = pyogrio.read_info(path, layer=layer, force_feature_count=True)["features"]
  if written != count:
    raise pyogrio.errors.DataLayerError(f"{written} of {count} features written (is the disk full?)")

"""Writes landslides as GeoParquet 1.1, in longitude and latitude: https://geoparquet.org/releases/v1.1.0."""

import contextlib
import json
import pathlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import shapely

from lgag_jax.mapping.polygons import Landslide
from lgag_jax.mapping.schemas import Profile, Provenance
from lgag_jax.runtime import files


class Table:
  """A GeoParquet while it is written, batch by batch; `create` makes it."""

  def __init__(self, path: pathlib.Path, provenance: Provenance, profile: Profile):
    self._path, self._provenance, self._fields = path, provenance, profile.fields
    columns = [(field.name, _type(field.dtype)) for field in self._fields]
    schema = pa.schema([*columns, ("geometry", pa.binary())])
    # PyArrow takes a relative path such as s3:x for an address.
    self._writer = pyarrow.parquet.ParquetWriter(path.absolute(), schema, compression="zstd")
    self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

  def add(self, landslides: list[Landslide], in_degrees: np.ndarray) -> None:
    """Adds landslides with their polygons in longitude and latitude, object[N]."""
    schema = self._writer.schema
    columns = [
      _column(field.column(landslides, self._provenance), schema.field(field.name).type)
      for field in self._fields
    ]
    table = [*columns, pa.array(shapely.to_wkb(in_degrees), pa.binary())]
    self._writer.write_table(pa.Table.from_arrays(table, schema=schema))
    low, high = np.split(shapely.total_bounds(in_degrees), 2)
    self._bounds = np.concatenate([np.fmin(self._bounds[:2], low), np.fmax(self._bounds[2:], high)])

  def close(self) -> None:
    """Adds what makes the file a GeoParquet; without a CRS there it is in longitude and latitude."""
    column: dict = {"encoding": "WKB", "geometry_types": ["Polygon", "MultiPolygon"]}
    if np.isfinite(self._bounds).all():
      column["bbox"] = self._bounds.tolist()
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    self._writer.add_key_value_metadata({"geo": json.dumps(geo)})
    self._writer.close()


@contextlib.contextmanager
def create(path: pathlib.Path, provenance: Provenance, profile: Profile) -> Iterator[Table]:
  """Yields a new GeoParquet to add landslides to; the file is in place once the block ends.

  It has the attributes of `profile`, in which unknown values are null.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  # An error of the block is not one of this file, so that only its end may name it.
  rows = path.with_name(f"{files.partial_name(path)}-rows.parquet")
  try:
    rows.unlink(missing_ok=True)  # Of a killed run; a symbolic link would be followed.
    table = Table(rows, provenance, profile)
    yield table
    with files.atomic_path(path) as partial:
      table.close()
      rows.rename(partial)
  finally:
    rows.unlink(missing_ok=True)


def _type(dtype: str) -> pa.DataType:
  if dtype == "object":
    return pa.string()
  if dtype.startswith("datetime64"):
    return pa.date32()
  return pa.from_numpy_dtype(np.dtype(dtype))


def _column(values: np.ndarray, kind: pa.DataType) -> pa.Array:
  """Returns a column of `Field.column`; unknown values, NaN among them, are null."""
  if isinstance(values, np.ma.MaskedArray):
    return pa.array(values.data, kind, mask=np.ma.getmaskarray(values))
  return pa.array(values, kind, from_pandas=True)

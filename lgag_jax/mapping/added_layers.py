"""Writes layers that go with a map's polygons: a GeoPackage each, while the polygons are traced."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import shapely

from lgag_jax.geo import vector_paths
from lgag_jax.geo.grid import Grid
from lgag_jax.mapping import vectors
from lgag_jax.runtime import files


class AddedLayer:
  """The layer of a GeoPackage while it is written; at most some thousand features are in memory."""

  def __init__(
    self, path: pathlib.Path, grid: Grid, name: str, kind: str, fields: Mapping[str, type]
  ):
    """Takes features with `fields`, names and types, and geometries of one `kind`, in `grid`'s CRS."""
    self.count = 0
    self._path, self._crs = path, grid.crs.to_wkt() if grid.crs else None
    self._name, self._kind, self._fields = name, kind, fields
    self._rows: list[tuple[Sequence, shapely.Geometry]] = []

  def add(self, values: Sequence, geometry: shapely.Geometry) -> None:
    """Adds a feature with the values of its fields."""
    self._rows.append((values, geometry))
    if len(self._rows) >= vectors.FEATURES_AT_ONCE:
      self.flush()

  def flush(self) -> None:
    """Writes what is in memory; the first time also if there is nothing, so that the layer exists."""
    if not self._rows and self.count:
      return
    columns = {
      name: np.array([values[i] for values, _ in self._rows], dtype)
      for i, (name, dtype) in enumerate(self._fields.items())
    }
    geometries = np.array([geometry for _, geometry in self._rows], object)
    vectors.write_batch(self._path, columns, geometries, self._crs, self._kind, self._name)
    self.count += len(self._rows)
    self._rows.clear()


@contextlib.contextmanager
def create(
  path: pathlib.Path, grid: Grid, name: str, kind: str, fields: Mapping[str, type]
) -> Iterator[AddedLayer]:
  """Yields the layer `name` of a new GeoPackage; the file is in place once the block ends.

  The other arguments are those of `AddedLayer`. Raises OSError naming the file if it cannot be written.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with vector_paths.plain_folder(path.parent) as folder:
    # An error of the block is not one of this file, so that only its end may name it.
    rows = folder / f"{files.partial_name(path)}-rows.gpkg"
    vectors.remove(rows)
    try:
      layer = AddedLayer(rows, grid, name, kind, fields)
      yield layer
      with vectors.beside(folder / path.name) as partial:
        layer.flush()
        vectors.check_count(rows, layer.count, name)
        rows.rename(partial)
    finally:
      vectors.remove(rows)

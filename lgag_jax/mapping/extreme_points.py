"""Writes the highest and the lowest point of the terrain under each landslide (--dem).

They estimate where a landslide begins and ends. Their layer has other fields than polygons, so that
nothing takes it for an inventory (`geo.shapes.refuse_points`).
"""

import contextlib
import pathlib
from collections.abc import Iterator

import numpy as np
import shapely

from lgag_jax.geo import vector_paths
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.shapes import POINT_FIELDS
from lgag_jax.mapping import vectors
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.runtime import files

LAYER = "landslide_points"
KINDS = ("highest", "lowest")


class Points:
  """The points of a GeoPackage while it is written; at most some thousand are in memory."""

  def __init__(self, path: pathlib.Path, grid: Grid):
    self.count = 0
    self._path, self._crs = path, grid.crs.to_wkt() if grid.crs else None
    self._rows: list[tuple[str, str, float, tuple[float, float]]] = []

  def add(self, landslide: Landslide) -> None:
    """Adds both points of a landslide, if the DEM has heights there."""
    under = landslide.terrain
    places, heights = (under.highest_place, under.lowest_place), (under.highest, under.lowest)
    for kind, place, height in zip(KINDS, places, heights, strict=True):
      if place is not None and height is not None:
        self._rows.append((landslide.stable_id, kind, height, place))
    if len(self._rows) >= vectors.FEATURES_AT_ONCE:
      self.flush()

  def flush(self) -> None:
    """Writes the points in memory; the first time also if there are none, so that the layer exists."""
    if not self._rows and self.count:
      return
    columns: dict[str, np.ndarray] = {
      name: np.array([row[i] for row in self._rows], dtype)
      for i, (name, dtype) in enumerate(zip(POINT_FIELDS, (object, object, np.float64), strict=True))
    }
    places = np.array([row[3] for row in self._rows], np.float64).reshape(-1, 2)
    geometries = np.array(shapely.points(places), object)
    vectors.write_batch(self._path, columns, geometries, self._crs, "Point", LAYER)
    self.count += len(self._rows)
    self._rows.clear()


@contextlib.contextmanager
def create(path: pathlib.Path, grid: Grid) -> Iterator[Points]:
  """Yields a new GeoPackage to add landslides to; it is in place once the block ends.

  Points are in the coordinates of `grid`. Raises OSError naming the file if it cannot be written.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with vector_paths.plain_folder(path.parent) as folder:
    # An error of the block is not one of this file, so that only its end may name it.
    rows = folder / f"{files.partial_name(path)}-rows.gpkg"
    vectors.remove(rows)
    try:
      points = Points(rows, grid)
      yield points
      with vectors.beside(folder / path.name) as partial:
        points.flush()
        vectors.check_count(rows, points.count, LAYER)
        rows.rename(partial)
    finally:
      vectors.remove(rows)

"""Writes the highest and the lowest point of the terrain under each landslide (--dem).

They estimate where a landslide begins and ends. Their layer has other fields than polygons, so that
nothing takes it for an inventory (`geo.shapes.refuse_points`).
"""

import contextlib
import pathlib
from collections.abc import Iterator

import numpy as np
import shapely

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.shapes import POINT_FIELDS
from lgag_jax.mapping import added_layers
from lgag_jax.mapping.added_layers import AddedLayer
from lgag_jax.mapping.polygons import Landslide

LAYER = "landslide_points"
KINDS = ("highest", "lowest")


class Points:
  """The points of a GeoPackage while it is written."""

  def __init__(self, layer: AddedLayer):
    self._layer = layer

  def add(self, landslide: Landslide) -> None:
    """Adds both points of a landslide, if the DEM has heights there."""
    under = landslide.terrain
    places, heights = (under.highest_place, under.lowest_place), (under.highest, under.lowest)
    for kind, place, height in zip(KINDS, places, heights, strict=True):
      if place is not None and height is not None:
        self._layer.add((landslide.stable_id, kind, height), shapely.Point(place))


@contextlib.contextmanager
def create(path: pathlib.Path, grid: Grid) -> Iterator[Points]:
  """Yields a new GeoPackage to add landslides to; it is in place once the block ends.

  Points are in the coordinates of `grid`. Raises OSError naming the file if it cannot be written.
  """
  fields: dict[str, type] = dict(zip(POINT_FIELDS, (object, object, np.float64), strict=True))
  with added_layers.create(path, grid, LAYER, "Point", fields) as layer:
    yield Points(layer)

"""Writes the outlines of polygons that were split at their necks, as they were (--split_necks).

The attribute `part_of` of a polygon is the `stable_id` of the outline that it is a part of.
"""

import contextlib
import pathlib
from collections.abc import Iterator

import numpy as np

from lgag_jax.geo.grid import Grid
from lgag_jax.mapping import added_layers
from lgag_jax.mapping.added_layers import AddedLayer
from lgag_jax.mapping.polygons import Landslide, Whole

LAYER = "unsplit_landslides"
_FIELDS: dict[str, type] = {"stable_id": object, "class": object, "area_m2": np.float64}


class Outlines:
  """The outlines of a GeoPackage while it is written."""

  def __init__(self, layer: AddedLayer):
    self._layer = layer
    self._last: Whole | None = None

  def add(self, landslide: Landslide) -> None:
    """Adds the outline that a landslide is a part of, once for all parts, which follow each other."""
    whole = landslide.whole
    if whole is not None and whole is not self._last:
      self._layer.add((whole.stable_id, whole.class_name, whole.area_m2), whole.geometry)
      self._last = whole


@contextlib.contextmanager
def create(path: pathlib.Path, grid: Grid) -> Iterator[Outlines]:
  """Yields a new GeoPackage to add landslides to; it is in place once the block ends.

  Outlines are in the coordinates of `grid`. Raises OSError naming the file if it cannot be written.
  """
  with added_layers.create(path, grid, LAYER, "Polygon", _FIELDS) as layer:
    yield Outlines(layer)

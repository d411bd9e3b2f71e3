"""Finds and draws what lies in a window of a layer's shapes.

Time follows what lies in the window, also if a polygon has a million vertices or a hundred thousand
holes. GDAL would look at all of them for each row of pixels.
"""

import functools
from typing import Any

import numpy as np
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window
from shapely import GeometryType

INSET = 1e-6  # Pixels. Shapes that end on a window's border do not reach into it.
_LARGE = 512  # Vertices. Polygons with more are cut before they are drawn.
_RUN = 64  # Edges of a polygon that are looked at together.
_MARGIN = 2.0  # Pixels around a window in which a polygon keeps its outline.


class ShapeIndex:
  """Polygons or points in pixels, with their classes; the last of several at a place wins."""

  def __init__(self, geometries: np.ndarray, classes: np.ndarray):
    points = shapely.get_type_id(geometries) == GeometryType.MULTIPOINT
    if points.any():
      geometries, owners = shapely.get_parts(geometries, return_index=True)
      classes = classes[owners]
    self._geometries, self._classes = geometries, classes
    self._are_points = len(geometries) > 0 and shapely.get_type_id(geometries[0]) == GeometryType.POINT
    is_large = shapely.get_num_coordinates(geometries) > _LARGE
    self._large = np.flatnonzero(is_large)
    self._large_bounds = shapely.bounds(geometries[is_large])
    small = geometries.copy()
    small[is_large] = None  # The tree skips these, and numbers the others as here.
    self._tree = shapely.STRtree(small)
    self._outline = functools.cache(lambda number: _Outline(self._geometries[number]))

  def read(self, window: Window) -> np.ndarray:
    """Returns the classes in a window, u8[h, w], 0 where there is no shape."""
    values = np.zeros((int(window.height), int(window.width)), np.uint8)
    box = _box(window, 0.0)
    hits = np.sort(self._tree.query(box, predicate="intersects"))  # In the layer's order.
    if self._are_points:
      x, y = shapely.get_coordinates(self._geometries[hits]).T
      rows, cols = (np.floor([y - window.row_off, x - window.col_off])).astype(np.int64)
      inside = (rows < window.height) & (cols < window.width)
      values[rows[inside], cols[inside]] = self._classes[hits[inside]]
      return values
    shapes = dict(zip(hits.tolist(), self._geometries[hits], strict=True)) | self._cut(box, _MARGIN)
    pairs = [(shapes[number], int(self._classes[number])) for number in sorted(shapes)]
    if not pairs:
      return values
    origin = Affine.translation(window.col_off, window.row_off)
    return rasterize(pairs, out=values, transform=origin)

  def near(self, window: Window, distance: float) -> bool:
    """Returns whether a shape lies in a window or within so many pixels of it."""
    box = _box(window, INSET)
    if len(self._tree.query(box, predicate="dwithin", distance=distance)):
      return True
    shapes = self._cut(box, distance + _MARGIN).values()
    return any(shapely.dwithin(shape, box, distance) for shape in shapes)

  def _cut(self, box: shapely.Polygon, margin: float) -> dict[int, shapely.Geometry]:
    """Returns the large polygons that may reach a box, by number, cut to the box and a margin."""
    left, top, right, bottom = box.bounds
    low, high = np.array([left, top]) - margin, np.array([right, bottom]) + margin
    bounds = self._large_bounds
    hits = self._large[(bounds[:, :2] <= high).all(axis=1) & (bounds[:, 2:] >= low).all(axis=1)]
    shapes = {number: self._outline(number).cut(low, high) for number in hits.tolist()}
    return {number: shape for number, shape in shapes.items() if shape is not None}


def _box(window: Window, inset: float) -> shapely.Polygon:
  return shapely.box(
    window.col_off + inset, window.row_off + inset,
    window.col_off + window.width - inset, window.row_off + window.height - inset,
  )


class _Outline:
  """The rings of a polygon in runs of edges, with the bounds of each run."""

  def __init__(self, polygon: Any):
    parts = shapely.get_parts(polygon)
    rings, self._part_of_ring = shapely.get_rings(parts, return_index=True)
    self._points = shapely.get_coordinates(rings)
    ends = np.cumsum(shapely.get_num_coordinates(rings)) - 1  # The last point of a ring is its first.
    firsts = np.r_[0, ends[:-1] + 1]
    runs = -(-(ends - firsts) // _RUN)
    self._ring = np.repeat(np.arange(len(rings)), runs)
    number = np.arange(len(self._ring)) - np.repeat(np.cumsum(runs) - runs, runs)
    self._start = firsts[self._ring] + number * _RUN
    self._stop = np.minimum(self._start + _RUN, ends[self._ring])
    # The run before each in its ring.
    self._before = np.arange(len(self._ring)) - 1
    first = np.flatnonzero(number == 0)
    self._before[first] = first + runs - 1
    edges = np.stack([self._points[:-1], self._points[1:]])  # Those between rings are in no run.
    at = np.stack([self._start, self._stop], axis=1).ravel()
    at = at[:-1] if len(edges[0]) == at[-1] else at
    self._low = np.minimum.reduceat(edges.min(axis=0), at)[::2]
    self._high = np.maximum.reduceat(edges.max(axis=0), at)[::2]

  def cut(self, low: np.ndarray, high: np.ndarray) -> shapely.Geometry | None:
    """Returns the polygon with the same edges and the same interior in a box; None if it is not there.

    Runs of edges that lie wholly on one side of the box, such as left of it, become one edge on that
    side. The other edges keep their exact ends, so that pixels get the same values.
    """
    sides = np.select(
      [self._high[:, 0] < low[0], self._low[:, 0] > high[0], self._high[:, 1] < low[1],
       self._low[:, 1] > high[1]], [1, 2, 3, 4], 0,
    )
    kept = np.where(sides == 0, self._stop - self._start, sides != sides[self._before])
    index = np.repeat(self._start - (np.cumsum(kept) - kept), kept) + np.arange(kept.sum())
    counts = np.bincount(self._ring, weights=kept, minlength=len(self._part_of_ring)).astype(np.int64)
    ring = np.repeat(self._ring, kept)
    closed = counts[ring] >= 3  # Two points hold no area.
    if not closed.any():
      return None
    numbers, indices = np.unique(ring[closed], return_inverse=True)
    rings = shapely.linearrings(self._points[index[closed]], indices=indices)
    parts = self._part_of_ring[numbers]
    outer = np.r_[True, parts[1:] != parts[:-1]]
    is_shell = np.r_[True, self._part_of_ring[1:] != self._part_of_ring[:-1]][numbers]
    groups = np.split(np.asarray(rings), np.flatnonzero(outer)[1:])
    polygons = [  # Holes without a shell lie elsewhere.
      shapely.Polygon(group[0], group[1:])
      for group, shell in zip(groups, is_shell[outer], strict=True) if shell
    ]
    if not polygons:
      return None
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)

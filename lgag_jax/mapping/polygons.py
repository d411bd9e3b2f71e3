"""Traces the connected regions of a map into landslide polygons and measures them on the ground."""

import dataclasses
import itertools
import logging
from collections.abc import Generator

import numpy as np
import shapely
from affine import Affine

from lgag_jax.geo.grid import GEOD, Grid
from lgag_jax.mapping import regions
from lgag_jax.mapping.rasters import MapRaster

_LOG = logging.getLogger(__name__)

_MAX_HOLES = 10_000  # More are not simplified: the time grows with the square of their number.
_POLYGONS_AT_ONCE = 1000  # Coordinates are only projected fast in bulk.


@dataclasses.dataclass(frozen=True)
class Landslide:
  """A connected region of one class. Figures are those of its pixels; only `geometry` is simplified."""

  id: int  # From 1, in the order of last pixels, row by row from the top.
  class_name: str
  geometry: shapely.Polygon  # In the scene's coordinates; valid, never empty.
  area_m2: float | None  # On the WGS84 ellipsoid; None if the scene has no place on the Earth.
  perimeter_m: float | None  # Likewise; of outline and holes together, along the pixels' edges.
  mean_probability: float | None  # 0..1, of its own class; None if none of its pixels has one.
  max_probability: float | None  # Likewise.
  pixels: int
  source: str


def trace(
  mask: MapRaster, probability: MapRaster, classes: tuple[str, ...], source: str, *,
  min_area: float = 0, simplify: float = 0,
) -> Generator[Landslide, None, None]:
  """Yields the landslides of a map as they end: memory does not grow with their number.

  The mask holds 0, class 1..C or 255; the probability has one band per class. Regions smaller than
  `min_area`, in square metres, are skipped. `simplify` is the tolerance in metres of the
  Douglas-Peucker simplification, converted by the resolution at the scene's centre. Each polygon is
  simplified separately, so that neighbours of two classes may overlap slightly. If the scene has no
  place on the Earth, both are in pixels. A region whose area is zero is no landslide; their number is
  logged. Raises ValueError naming a raster that does not fit,
  ImageError naming a damaged one.
  """
  grid, numbers, without_area = mask.grid, itertools.count(1), 0
  _check(mask, probability, grid, len(classes))
  for group in regions.find_regions(mask, probability, len(classes)):
    areas, perimeters = _ground_measures(group.outlines, grid)
    measured = group.pixels if grid.to_wgs84() is None else areas
    without_area += np.count_nonzero(measured == 0)
    # Written as "not smaller": an area that cannot be measured is NaN, and its region is kept.
    large = np.flatnonzero(~((measured < min_area) | (measured == 0)))
    to_scene = lambda points: _apply(grid.transform, points)
    geometries = _simplify(shapely.transform(group.outlines[large], to_scene), grid, simplify)
    for i, geometry in zip(large, geometries, strict=True):
      yield Landslide(
        next(numbers), classes[group.class_index[i] - 1], geometry, _or_none(areas[i]),
        _or_none(perimeters[i]), _or_none(group.mean[i]), _or_none(group.maximum[i]),
        int(group.pixels[i]), source,
      )
  if without_area:
    _LOG.warning(
      "%s: %d regions have an area of 0 m², so they are no landslides. They lie at or beyond a pole: "
      "check the scene's CRS and its coordinates.", source, without_area,
    )


def _check(mask: MapRaster, probability: MapRaster, grid: Grid, classes: int) -> None:
  if dataclasses.astuple(grid) != dataclasses.astuple(probability.grid):
    raise ValueError(
      f"{probability.path} and {mask.path} differ in size, transform or CRS: make the map again."
    )
  bands, types = probability.dataset.count, set(probability.dataset.dtypes)
  if bands != classes or types not in ({"uint8"}, {"float32"}):
    raise ValueError(
      f"{probability.path} has {bands} bands of {', '.join(sorted(types))}: it must have {classes}, "
      "one per class, of uint8 percent or float32. Make the map again."
    )
  if mask.dataset.count != 1 or mask.dataset.dtypes[0] != "uint8":
    raise ValueError(
      f"{mask.path} has {mask.dataset.count} bands of {mask.dataset.dtypes[0]}: it must have one of "
      "uint8. Make the map again."
    )


def _apply(transform: Affine, points: np.ndarray) -> np.ndarray:
  a, b, c, d, e, f = transform[:6]
  x, y = points.T
  return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)


def _ground_measures(outlines: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
  """Returns areas in square metres and perimeters in metres on the ellipsoid; NaN if unknown.

  Edges are first cut at every pixel: a straight line on the map is not the shortest line on the
  ellipsoid, between which areas are computed. So the area is exactly the sum of the pixels' areas.
  """
  areas, perimeters = np.full((2, len(outlines)), np.nan)
  transformer = grid.to_wgs84()
  if transformer is None:
    return areas, perimeters
  for start in range(0, len(outlines), _POLYGONS_AT_ONCE):
    rings, polygon = shapely.get_rings(outlines[start : start + _POLYGONS_AT_ONCE], return_index=True)
    rings = shapely.segmentize(rings, 1.0)
    points = _apply(grid.transform, shapely.get_coordinates(rings))
    longitudes, latitudes = transformer.transform(*points.T)
    stops = np.cumsum(shapely.get_num_coordinates(rings))
    previous = None
    for ring_start, stop, i in zip(np.r_[0, stops], stops, polygon + start, strict=False):
      ring = slice(ring_start, stop)
      area, length = GEOD.polygon_area_perimeter(longitudes[ring], latitudes[ring])
      if i != previous:  # A polygon's first ring is its outline; the others are holes.
        areas[i], perimeters[i] = abs(area), length
      else:
        areas[i], perimeters[i] = areas[i] - abs(area), perimeters[i] + length
      previous = i
  return areas, perimeters


def _simplify(geometries: np.ndarray, grid: Grid, tolerance: float) -> np.ndarray:
  """Simplifies polygons by metres, or pixels without a place on the Earth, unless that breaks one."""
  if not tolerance:
    return geometries
  pixel_side = abs(grid.transform.determinant) ** 0.5  # In the CRS's units.
  tolerance *= pixel_side / (grid.gsd() or 1.0)
  few_holes = shapely.get_num_interior_rings(geometries) <= _MAX_HOLES
  simple = geometries.copy()
  simple[few_holes] = shapely.simplify(geometries[few_holes], tolerance, preserve_topology=True)
  # A polygon no wider than the tolerance would become a splinter.
  broken = ~shapely.is_valid(simple) | (shapely.area(simple) < shapely.area(geometries) / 2)
  return np.where(broken, geometries, simple)


def _or_none(value: float) -> float | None:
  return float(value) if np.isfinite(value) else None

"""Landslides as polygons: the connected regions of a mapped scene, with what was measured of each."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np
import rasterio
import shapely
from affine import Affine

from lgag_jax.geo.formats import SCENE_OPTIONS
from lgag_jax.geo.grid import GEOD, Grid
from lgag_jax.imagery import opening, reading
from lgag_jax.mapping import regions

_MOST_HOLES = 10_000  # Of a polygon that is simplified: the time grows with their square.
_AT_ONCE = 1000  # Polygons measured together: coordinates are projected fast only in bulk.


@dataclasses.dataclass(frozen=True)
class Landslide:
  """A connected region of one class. All figures are of its pixels; only `geometry` is simplified."""

  id: int  # From 1, by last pixel: row by row from the top, each from the left.
  class_name: str
  geometry: shapely.Polygon  # In the scene's coordinates; valid, never empty.
  area_m2: float | None  # On the WGS84 ellipsoid; None where the scene has no place on the Earth.
  perimeter_m: float | None  # Likewise, of outline and holes together, along the pixels' edges.
  mean_probability: float | None  # 0..1, of its own class; None where none of its pixels has one.
  max_probability: float | None
  pixels: int
  source: str


def find(
  mask_path: pathlib.Path, probability_path: pathlib.Path, classes: tuple[str, ...], source: str, *,
  min_area: float = 0, simplify: float = 0,
) -> Iterator[Landslide]:
  """Yields the landslides of a map: mask (0, class 1..C, 255) and probability (a band a class).

  Regions below `min_area`, in square metres, are left out. `simplify` is the tolerance of Douglas and
  Peucker's simplification, in metres by the resolution at the scene's centre; each polygon is
  simplified by itself, so that neighbours of two classes may come to overlap slightly. Both are in
  pixels where the scene has no place on the Earth. Rasters are read by blocks of rows, and a landslide
  is yielded where it ends: memory does not follow their number. Raises ValueError naming a file that
  does not fit, ImageError naming a damaged one.
  """
  with (
    rasterio.Env(**SCENE_OPTIONS),
    reading.open_raster(mask_path) as mask,
    reading.open_raster(probability_path) as probability,
    opening.error_context(f"{mask_path} or {probability_path}", "Make the map again."),
  ):
    _check(mask, probability, len(classes))
    grid, number = Grid.from_raster(mask), itertools.count(1)
    for found in regions.closed(mask, probability, len(classes)):
      areas, perimeters = _on_the_ground(found.outlines, grid)
      # Not the opposite comparison: an area that could not be measured is NaN, and is kept.
      kept = np.flatnonzero(~((found.pixels if grid.to_wgs84() is None else areas) < min_area))
      geometries = _simplified(_mapped(found.outlines[kept], grid.transform), grid, simplify)
      for i, geometry in zip(kept, geometries, strict=True):
        yield Landslide(
          next(number), classes[found.value[i] - 1], geometry, _known(areas[i]), _known(perimeters[i]),
          _known(found.mean[i]), _known(found.maximum[i]), int(found.pixels[i]), source,
        )


def _check(mask, probability, classes):
  grids = [dataclasses.astuple(Grid.from_raster(raster)) for raster in (mask, probability)]
  if grids[0] != grids[1]:
    raise ValueError(
      f"{probability.name} and {mask.name} differ in size, transform or CRS: make the map again."
    )
  kinds = set(probability.dtypes)
  if probability.count != classes or kinds not in ({"uint8"}, {"float32"}):
    raise ValueError(
      f"{probability.name} has {probability.count} bands of {', '.join(sorted(kinds))}: it must have "
      f"{classes}, one a class, of uint8 percent or float32. Make the map again."
    )
  if mask.count != 1 or mask.dtypes[0] != "uint8":
    raise ValueError(
      f"{mask.name} has {mask.count} bands of {mask.dtypes[0]}: it must have one of uint8. Make the "
      "map again."
    )


def _applied(transform: Affine, points: np.ndarray) -> np.ndarray:
  a, b, c, d, e, f = transform[:6]
  x, y = points.T
  return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)


def _mapped(outlines: np.ndarray, transform: Affine) -> np.ndarray:
  return shapely.transform(outlines, lambda points: _applied(transform, points))


def _on_the_ground(outlines: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
  """Returns areas in square metres and perimeters in metres on the ellipsoid, NaN where none.

  Edges are cut at each pixel first, since what is straight on a map is none of the shortest lines that
  the ellipsoid's areas are between; so the area is exactly the sum of the pixels' areas.
  """
  areas, perimeters = np.full((2, len(outlines)), np.nan)
  transformer = grid.to_wgs84()
  if transformer is None:
    return areas, perimeters
  for start in range(0, len(outlines), _AT_ONCE):
    rings, polygon = shapely.get_rings(outlines[start : start + _AT_ONCE], return_index=True)
    rings = shapely.segmentize(rings, 1.0)
    points = _applied(grid.transform, shapely.get_coordinates(rings))
    longitudes, latitudes = transformer.transform(*points.T)
    stops = np.cumsum(shapely.get_num_coordinates(rings))
    last = None
    for ring_start, stop, i in zip(np.r_[0, stops], stops, polygon + start, strict=False):
      ring = slice(ring_start, stop)
      area, length = GEOD.polygon_area_perimeter(longitudes[ring], latitudes[ring])
      if i != last:  # A polygon's first ring is its outline, any other a hole.
        areas[i], perimeters[i] = abs(area), length
      else:
        areas[i], perimeters[i] = areas[i] - abs(area), perimeters[i] + length
      last = i
  return areas, perimeters


def _simplified(geometries: np.ndarray, grid: Grid, tolerance: float) -> np.ndarray:
  """Simplifies outlines by a tolerance in metres or else pixels; keeps what would not survive it."""
  if not tolerance:
    return geometries
  side = abs(grid.transform.determinant) ** 0.5  # Of a pixel, in the CRS's units.
  tolerance *= side / (grid.gsd() or 1.0)
  few = shapely.get_num_interior_rings(geometries) <= _MOST_HOLES
  simple = geometries.copy()
  simple[few] = shapely.simplify(geometries[few], tolerance, preserve_topology=True)
  # What is no wider than the tolerance would become a splinter.
  broken = ~shapely.is_valid(simple) | (shapely.area(simple) < shapely.area(geometries) / 2)
  return np.where(broken, geometries, simple)


def _known(value: float) -> float | None:
  return float(value) if np.isfinite(value) else None

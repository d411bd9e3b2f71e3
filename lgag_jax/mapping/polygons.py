"""Traces the connected regions of a map into landslide polygons and measures them on the ground."""

import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Generator, Iterable, Sequence

import numpy as np
import shapely

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.terrain import Terrain
from lgag_jax.mapping import ground_measures, necks, regions
from lgag_jax.mapping.rasters import MapRaster
from lgag_jax.mapping.regions import Regions
from lgag_jax.mapping.terrain_filter import TerrainFilter

_LOG = logging.getLogger(__name__)

_MAX_HOLES = 10_000  # More are not simplified: the time grows with the square of their number.
_ID_DIGITS = 16  # Hexadecimal.
_CONFIDENCES = ("low", "medium", "high")  # Thirds of the scores from the threshold to one.


@dataclasses.dataclass(frozen=True)
class Whole:
  """A connected region that was split at its necks into several landslides."""

  stable_id: str  # That of its polygon in a map without splitting.
  class_name: str
  geometry: shapely.Polygon  # As that of a landslide.
  area_m2: float | None  # Likewise.


@dataclasses.dataclass(frozen=True)
class Landslide:
  """A connected region of one class, or a part of one that was split.

  Figures are those of its pixels; only `geometry` is simplified.
  """

  id: int  # From 1, in the order of last pixels, row by row from the top.
  class_name: str
  geometry: shapely.Polygon  # In the scene's coordinates; valid, never empty.
  area_m2: float | None  # On the WGS84 ellipsoid; None if the scene has no place on the Earth.
  perimeter_m: float | None  # Likewise; of outline and holes together, along the pixels' edges.
  mean_probability: float | None  # 0..1, of its own class; None if none of its pixels has one.
  max_probability: float | None  # Likewise.
  pixels: int
  source: str
  stable_id: str = ""  # The same whenever the same map is made again, whatever else is on it.
  confidence: str | None = None  # By the mean probability: low, medium or high; None if unknown.
  length_m: float | None = None  # Of the smallest rectangle around it; None if its place is unknown.
  width_m: float | None = None  # Likewise.
  bearing_deg: float | None = None  # Of the rectangle's long side, 0..180 clockwise from true north.
  touches_missing: bool = False  # A pixel without data lies beside one of its pixels.
  touches_border: bool = False  # It reaches the scene's border.
  terrain: Terrain = Terrain()
  longitude: float | None = None  # Of a point inside it, in degrees of WGS84; None if unknown.
  latitude: float | None = None
  pixel: tuple[int, int] = (0, 0)  # Row and column of its centroid, or if outside, of a point inside.
  whole: Whole | None = None  # What it is a part of.


def trace(
  mask: MapRaster, probability: MapRaster, classes: tuple[str, ...], source: str, *,
  min_area: float = 0, simplify: float = 0, split_necks: float = 0, thresholds: Sequence[float] = (),
  terrain: TerrainFilter | None = None,
) -> Generator[Landslide, None, None]:
  """Yields the landslides of a map as they end: memory does not grow with their number.

  The mask holds 0, class 1..C or 255; the probability has one band per class. Regions smaller than
  `min_area`, in square metres, are skipped. `simplify` is the tolerance in metres of the
  Douglas-Peucker simplification, converted by the resolution at the scene's centre. Each polygon is
  simplified separately, so that neighbours may overlap slightly. Regions are split at necks narrower
  than `split_necks` metres (`necks.split`). If the scene has no place on the Earth, all three are in
  pixels. A region whose area is zero is no landslide; their number is logged. Without `thresholds`, one
  score per class, the confidence is unknown. `terrain` measures slopes and drops flat regions. Raises
  ValueError naming a raster that does not fit, ImageError naming a damaged one.
  """
  _check(mask, probability, mask.grid, len(classes))
  groups = regions.find_regions(mask, probability, len(classes))
  if split_necks:
    groups = necks.split(groups, mask, probability, split_necks, min_area)
  yield from describe(
    groups, mask.grid, classes, source, min_area=min_area, simplify=simplify, thresholds=thresholds,
    terrain=terrain,
  )


def describe(
  groups: Iterable[Regions], grid: Grid, classes: tuple[str, ...], source: str, *,
  min_area: float = 0, simplify: float = 0, thresholds: Sequence[float] = (),
  terrain: TerrainFilter | None = None,
) -> Generator[Landslide, None, None]:
  """Yields the landslides of regions, whose outlines are in pixels of `grid`; see `trace`."""
  numbers, without_area = itertools.count(1), 0
  for group in groups:
    areas, perimeters = ground_measures.areas_and_perimeters(group.outlines, grid)
    measured = group.pixels if grid.to_wgs84() is None else areas
    without_area += np.count_nonzero(measured == 0)
    # Written as "not smaller": an area that cannot be measured is NaN, and its region is kept.
    kept = ~((measured < min_area) | (measured == 0))
    terrains = [Terrain()] * len(kept)
    if terrain:
      terrains, flat = terrain.examine(group.class_index, group.outlines, kept)
      kept &= ~flat
    large = np.flatnonzero(kept)
    geometries = _geometries(group.outlines[large], grid, simplify)
    more = _details(group, large, grid, classes, source, thresholds)
    wholes = _wholes(group, large, grid, classes, source, simplify)
    for i, geometry, details, whole in zip(large, geometries, more, wholes, strict=True):
      yield Landslide(
        next(numbers), classes[group.class_index[i] - 1], geometry, _or_none(areas[i]),
        _or_none(perimeters[i]), _or_none(group.mean[i]), _or_none(group.maximum[i]),
        int(group.pixels[i]), source, terrain=terrains[i], whole=whole, **details,
      )
  if without_area:
    _LOG.warning(
      "%s: %d regions have an area of 0 m², so they are no landslides. They lie at or beyond a pole: "
      "check the scene's CRS and its coordinates.", source, without_area,
    )


def _details(
  group: Regions, numbers: np.ndarray, grid: Grid, classes: tuple[str, ...], source: str,
  thresholds: Sequence[float],
) -> Generator[dict, None, None]:
  """Yields the fields of `Landslide` beyond its figures, for the regions `numbers` of a group."""
  outlines = group.outlines[numbers]
  rectangles = ground_measures.rectangles(outlines, grid)
  points = ground_measures.inner_points(outlines, grid)
  pixels = ground_measures.central_pixels(outlines)
  left, top, right, bottom = shapely.bounds(outlines).T
  at_border = (left <= 0) | (top <= 0) | (right >= grid.width) | (bottom >= grid.height)
  if group.at_border is not None:
    at_border = group.at_border[numbers]
  ids = _stable_ids(outlines, group.class_index[numbers], grid, classes, source)
  for i, rectangle, point, (row, col), border, stable_id in zip(
    numbers, rectangles, points, pixels.tolist(), at_border, ids, strict=True
  ):
    c = int(group.class_index[i]) - 1
    length, width, bearing = map(_or_none, rectangle)
    longitude, latitude = map(_or_none, point)
    yield {
      "stable_id": stable_id,
      "confidence": _confidence(float(group.mean[i]), thresholds[c]) if thresholds else None,
      "length_m": length, "width_m": width, "bearing_deg": bearing,
      "longitude": longitude, "latitude": latitude, "pixel": (row, col),
      "touches_missing": bool(group.touches_missing[i]), "touches_border": bool(border),
    }


def _wholes(
  group: Regions, numbers: np.ndarray, grid: Grid, classes: tuple[str, ...], source: str,
  tolerance: float,
) -> list[Whole | None]:
  """Returns what the regions `numbers` of a group are parts of; the parts of one share the object."""
  if group.wholes is None:
    return [None] * len(numbers)
  owners = {id(group.wholes[i]): i for i in numbers if group.wholes[i] is not None}
  owning = np.array(list(owners.values()), np.int64)
  outlines, class_index = group.wholes[owning], group.class_index[owning]
  wholes = {
    key: Whole(stable_id, classes[c - 1], geometry, _or_none(area))
    for key, stable_id, c, geometry, area in zip(
      owners, _stable_ids(outlines, class_index, grid, classes, source), class_index,
      _geometries(outlines, grid, tolerance), ground_measures.areas_and_perimeters(outlines, grid)[0],
      strict=True,
    )
  }
  return [wholes.get(id(group.wholes[i])) for i in numbers]


def _stable_ids(
  outlines: np.ndarray, class_index: np.ndarray, grid: Grid, classes: tuple[str, ...], source: str
) -> list[str]:
  """Returns digests of outlines in pixels, with their classes, numbered from 1, and their places."""
  # Where a block of rows began is no part of a landslide's identity, so corners are put in order.
  ordered = shapely.to_wkb(shapely.normalize(outlines), byte_order=1)
  places = [
    f"{source}\n{tuple(grid.transform[:6])}\n{name}\n".encode(errors="backslashreplace")
    for name in classes
  ]
  return [
    hashlib.sha256(places[c - 1] + outline).hexdigest()[:_ID_DIGITS]
    for c, outline in zip(class_index, ordered, strict=True)
  ]


def _confidence(mean: float, threshold: float) -> str | None:
  if not np.isfinite(mean):
    return None
  part = (mean - threshold) / max(1.0 - threshold, 1e-6)
  return _CONFIDENCES[int(np.clip(part * len(_CONFIDENCES), 0, len(_CONFIDENCES) - 1))]


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


def _geometries(outlines: np.ndarray, grid: Grid, tolerance: float) -> np.ndarray:
  """Returns outlines, given in pixels, in the scene's coordinates.

  Simplifies them by metres, or pixels without a place on the Earth, unless that breaks one.
  """
  to_scene = lambda points: ground_measures.apply(grid.transform, points)
  geometries = shapely.transform(outlines, to_scene)
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

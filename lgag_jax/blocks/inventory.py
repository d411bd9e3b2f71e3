"""Writes the landslides of an area: one GeoParquet of all, and a GeoPackage per UTM zone."""

import dataclasses
import heapq
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from lgag_jax.blocks import plan, region_files, seams
from lgag_jax.blocks.plan import Block
from lgag_jax.geo.grid import Grid
from lgag_jax.mapping import geoparquet, polygons, vectors
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.mapping.schemas import Profile, Provenance

_AT_ONCE = 5000  # Landslides in memory.
_LARGEST = 20  # Landslides that the page lists.
_NEAR_BORDER = 0.05  # Degrees from a zone's border within which another zone may show a landslide, too.
NAME = "landslides"


@dataclasses.dataclass(frozen=True)
class Tracing:
  """How regions become landslides."""

  classes: tuple[str, ...]
  min_area: float  # Square metres.
  simplify: float  # Metres.
  provenance: Provenance
  profile: Profile


@dataclasses.dataclass
class Inventory:
  """The landslides of an area that were written, in brief."""

  areas: dict[str, list[float]]  # Square metres, by class.
  largest: list[Landslide] = dataclasses.field(default_factory=list)  # The largest one first.
  files: list[str] = dataclasses.field(default_factory=list)

  @property
  def count(self) -> int:
    """The number of landslides."""
    return sum(map(len, self.areas.values()))

  def add(self, landslides: Sequence[Landslide]) -> None:
    """Counts landslides."""
    for one in landslides:
      self.areas[one.class_name].append(one.area_m2 or 0.0)
    self.largest = heapq.nlargest(
      _LARGEST, [*self.largest, *landslides], key=lambda one: (one.area_m2 or 0.0, -one.id)
    )


def write(
  folder: pathlib.Path, output: pathlib.Path, blocks: Mapping[Block, bool], side: int,
  resolution: float, area: BaseGeometry | None, tracing: Tracing,
) -> Inventory:
  """Writes landslides.parquet and a GeoPackage per zone; returns what they hold.

  `blocks` are the mapped ones, and whether they have regions. A landslide over several blocks is one
  polygon, and one over two zones belongs to one of them. Those that do not touch the area are left out.
  """
  folder.mkdir(parents=True, exist_ok=True)
  numbers, claimed = itertools.count(1), _Claimed()
  inventory = Inventory({name: [] for name in tracing.classes}, files=[f"{NAME}.parquet"])
  zones = sorted({block.epsg for block in blocks})
  with geoparquet.create(
    folder / f"{NAME}.parquet", tracing.provenance, tracing.profile
  ) as table:
    for epsg in zones:
      grid = zone_grid(epsg, resolution)
      own = {(block.row, block.col): has for block, has in blocks.items() if block.epsg == epsg}

      def read(row: int, col: int, epsg=epsg, own=own) -> region_files.BlockRegions | None:
        name = Block(epsg, row, col).name
        return region_files.read(output / "regions" / f"{name}.npz") if own[row, col] else None

      groups = seams.join(own, side, read)
      found = polygons.describe(
        groups, grid, tracing.classes, f"EPSG:{epsg}", min_area=tracing.min_area,
        simplify=tracing.simplify, thresholds=tracing.provenance.thresholds,
      )
      unique = claimed.unclaimed(_on_area(found, grid, area), epsg)
      numbered = (
        dataclasses.replace(one, id=next(numbers), source=tracing.provenance.source) for one in unique
      )
      inventory.files.append(f"{NAME}_{epsg}.gpkg")
      vectors.write(
        _also(numbered, inventory.add), grid, folder / inventory.files[-1],
        provenance=tracing.provenance, profile=tracing.profile, table=table,
      )
  return inventory


def zone_grid(epsg: int, resolution: float) -> Grid:
  """Returns the grid of a whole zone, in whose pixels regions are joined."""
  transform = plan.zone_transform(resolution)
  width, height = round(1e6 / resolution), round(1e7 / resolution)
  return Grid(height, width, plan.zone_crs(epsg), transform)


class _Claimed:
  """The landslides near the borders of zones, so that the next zone does not repeat them."""

  def __init__(self):
    self._polygons: list[BaseGeometry] = []

  def unclaimed(
    self, landslides: Iterable[tuple[Landslide, BaseGeometry]], epsg: int
  ) -> Iterator[Landslide]:
    """Yields the landslides, given with their polygon in degrees, that reach into a zone.

    Leaves out those that overlap one of an earlier zone.
    """
    strip = plan.zone_strip(epsg)
    inner = shapely.buffer(strip, -_NEAR_BORDER)
    shapely.prepare([strip, inner])
    tree = shapely.STRtree(self._polygons)
    for landslide, polygon in landslides:
      if shapely.contains_properly(inner, polygon):
        yield landslide
      elif shapely.intersects(strip, polygon):
        near = tree.geometries[tree.query(polygon, predicate="intersects")]
        if not shapely.area(shapely.intersection(near, polygon)).any():
          self._polygons.append(polygon)
          yield landslide


def _on_area(
  landslides: Iterable[Landslide], grid: Grid, area: BaseGeometry | None
) -> Iterator[tuple[Landslide, BaseGeometry]]:
  """Yields the landslides on an area, with their polygons in degrees."""
  if area is not None:
    shapely.prepare(area)
  landslides = iter(landslides)
  while batch := list(itertools.islice(landslides, _AT_ONCE)):
    outlines = vectors.to_degrees(np.array([one.geometry for one in batch], object), grid)
    inside = np.ones(len(batch), bool) if area is None else shapely.intersects(area, outlines)
    yield from ((batch[i], outlines[i]) for i in np.flatnonzero(inside))


def _also(
  landslides: Iterable[Landslide], add: Callable[[Sequence[Landslide]], None]
) -> Iterator[Landslide]:
  """Yields the landslides, and gives them to `add`."""
  landslides = iter(landslides)
  while batch := list(itertools.islice(landslides, _AT_ONCE)):
    add(batch)
    yield from batch

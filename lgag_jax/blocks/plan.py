"""Cuts an area into blocks on a fixed grid per UTM zone. The same area always gives the same blocks."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import pyproj
import shapely
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from lgag_jax.geo.grid import Grid

_ORIGIN_NORTHING = 10_000_000  # Of all grids, north of any place in UTM. Eastings begin at 0.
_ZONE_WIDTH = 6.0  # Degrees.
_LATITUDES = (-80.0, 84.0)  # Of UTM.
_FURTHEST = 1.5  # Degrees beyond a zone's border to which coordinates are transformed.
_OVERLAP = 0.02  # Degrees: a landslide across a zone's border is whole in both zones.
_EDGE_DEGREES = 0.05  # A longer edge of an area is divided: it is curved in UTM.
_FIRST_LEVEL = 10  # The search for blocks begins with squares of 2**10 by 2**10 of them.


@dataclasses.dataclass(frozen=True)
class BlockSize:
  """The windows of a block. They lie on one grid for all blocks, so that maps meet without a seam."""

  side: int  # Of a window, in pixels.
  step: int  # From one window to the next.
  windows: int  # Windows that begin in a block, along each axis.

  @classmethod
  def fitting(cls, pixels: int, side: int, step: int) -> "BlockSize":
    """Returns the size closest to `pixels`, at least one window."""
    return cls(side, step, max(1, round(pixels / step)))

  @property
  def core(self) -> int:
    """The side of a block in pixels."""
    return self.windows * self.step

  @property
  def lead(self) -> int:
    """The halo above and to the left: as far as windows reach that overlap the block."""
    return (math.ceil(self.side / self.step) - 1) * self.step

  @property
  def trail(self) -> int:
    """The halo below and to the right."""
    return self.side - self.step

  @property
  def length(self) -> int:
    """The side of a block with its halo in pixels."""
    return self.lead + self.core + self.trail


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
  """A square of a zone's grid. Blocks of a zone do not overlap, except in what they read."""

  epsg: int  # Of the UTM zone.
  row: int
  col: int
  images: tuple[int, ...] = ()  # Numbers of the images that reach into it, in the composite's order.

  @property
  def name(self) -> str:
    """Names the block's files, such as 32645_0031_0017."""
    return f"{self.epsg}_{self.row:04d}_{self.col:04d}"


@functools.cache
def zone_crs(epsg: int) -> CRS:
  """Returns the CRS of a UTM zone."""
  return CRS.from_epsg(epsg)


def zone_transform(resolution: float) -> Affine:
  """Returns the transform of all zones' grids at a resolution in metres."""
  return Affine(resolution, 0.0, 0.0, 0.0, -resolution, float(_ORIGIN_NORTHING))


def block_grid(block: Block, resolution: float, size: BlockSize, *, halo: bool = False) -> Grid:
  """Returns the grid of a block's pixels, with its halo if `halo`."""
  lead, length = (size.lead, size.length) if halo else (0, size.core)
  left, top = block.col * size.core - lead, block.row * size.core - lead
  transform = zone_transform(resolution) @ Affine.translation(left, top)
  return Grid(length, length, zone_crs(block.epsg), transform)


def boxes(blocks: Sequence[Block], resolution: float, size: BlockSize) -> np.ndarray:
  """Returns the blocks as polygons, each in the coordinates of its zone."""
  squares = np.array([(block.row, block.col) for block in blocks]).reshape(-1, 2)
  return _boxes(squares, resolution, size, 0, 0)


def plan_blocks(
  area: BaseGeometry | None, resolution: float, size: BlockSize,
  footprints: Sequence[BaseGeometry],
) -> list[Block]:
  """Returns the blocks that an area and the footprint of an image touch, by zone, row and column.

  `area` and `footprints` are in longitude and latitude; without an area, the footprints are it. An
  image belongs to a block if it reaches into the block or its halo. Blocks at a zone's border overlap
  those of the next zone. Raises ValueError for an area beyond UTM.
  """
  outlines = np.array(footprints, object)
  whole = shapely.union_all(outlines) if area is None else area
  _check_latitudes(whole)
  blocks = []
  for epsg in _zones(whole):
    strip = _strip(epsg, _OVERLAP)
    part = shapely.intersection(whole, strip)
    if part.is_empty:
      continue
    zone_area = to_zone(part, epsg)
    near = np.flatnonzero(shapely.intersects(outlines, _strip(epsg, _FURTHEST)))
    tree = shapely.STRtree([
      to_zone(shapely.intersection(one, _strip(epsg, _FURTHEST)), epsg) for one in outlines[near]
    ])
    squares = _squares(zone_area, resolution * size.core)
    cores = _boxes(squares, resolution, size, 0, 0)
    with_core = np.unique(tree.query(cores, predicate="intersects")[0])  # Else a halo makes a block.
    halos = _boxes(squares[with_core], resolution, size, size.lead, size.trail)
    owners, images = tree.query(halos, predicate="intersects")
    order = np.lexsort((near[images], owners))
    ends = np.cumsum(np.bincount(owners, minlength=len(halos)))
    groups = np.split(near[images][order], ends[:-1])
    blocks += [
      Block(epsg, row, col, tuple(group.tolist()))
      for (row, col), group in zip(squares[with_core].tolist(), groups, strict=False)
    ]
  return blocks


def to_zone(geometry: BaseGeometry, epsg: int) -> BaseGeometry:
  """Returns a geometry in longitude and latitude in the coordinates of a zone; edges are divided."""
  transformer = from_degrees(epsg)
  divided = shapely.segmentize(geometry, _EDGE_DEGREES)
  moved = lambda points: np.stack(transformer.transform(*points.T), axis=1)
  return shapely.make_valid(shapely.transform(divided, moved))


def zone_strip(epsg: int) -> BaseGeometry:
  """Returns the zone's part of the Earth in longitude and latitude."""
  return _strip(epsg, 0.0)


@functools.cache
def from_degrees(epsg: int) -> pyproj.Transformer:
  """Returns the transformer from longitude and latitude to the coordinates of a zone."""
  return pyproj.Transformer.from_crs("EPSG:4326", f"EPSG:{epsg}", always_xy=True)


def _strip(epsg: int, margin: float) -> BaseGeometry:
  """Returns the longitudes and latitudes of a zone, on its side of the equator, with a margin."""
  number = epsg % 100
  west = -180 + _ZONE_WIDTH * (number - 1)
  south, north = (0.0, _LATITUDES[1]) if epsg < 32700 else (_LATITUDES[0], 0.0)
  low, high = west - margin, west + _ZONE_WIDTH + margin
  south, north = south - margin, north + margin
  parts = [shapely.box(low + turn, south, high + turn, north) for turn in (0, -360, 360)]
  return shapely.intersection(shapely.union_all(parts), shapely.box(-180, -90, 180, 90))


def _zones(area: BaseGeometry) -> list[int]:
  """Returns the EPSG codes of the UTM zones that an area touches."""
  codes = [base + number for base in (32600, 32700) for number in range(1, 61)]
  return [epsg for epsg in codes if shapely.intersects(area, zone_strip(epsg))]


def _check_latitudes(area: BaseGeometry) -> None:
  _, south, _, north = area.bounds
  low, high = _LATITUDES
  if south < low or north > high:
    raise ValueError(
      f"The area reaches from {south:.2f} to {north:.2f} degrees of latitude, and UTM from {low:g} to "
      f"{high:g}: limit it with --area, and map polar scenes with --mode=predict."
    )


def _squares(area: BaseGeometry, side: float) -> np.ndarray:
  """Returns rows and columns i64[N, 2] of the squares of `side` metres that an area touches, in order.

  Halves larger squares, so that most of the grid is never looked at.
  """
  shapely.prepare(area)
  west, south, east, north = area.bounds
  scale = 2**_FIRST_LEVEL
  rows, cols = (
    np.arange(math.floor(low / side / scale), math.floor(high / side / scale) + 1)
    for low, high in ((_ORIGIN_NORTHING - north, _ORIGIN_NORTHING - south), (west, east))
  )
  found = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
  while True:
    found = found[shapely.intersects(area, _box(found, side * scale, 0, 0))]
    if scale == 1:
      return found[np.lexsort((found[:, 1], found[:, 0]))]
    scale //= 2
    found = (2 * found[:, None] + np.array([(0, 0), (0, 1), (1, 0), (1, 1)])).reshape(-1, 2)


def _boxes(squares, resolution: float, size: BlockSize, lead: int, trail: int) -> np.ndarray:
  return _box(squares, resolution * size.core, resolution * lead, resolution * trail)


def _box(squares: np.ndarray, side: float, lead: float, trail: float) -> np.ndarray:
  """Returns squares as polygons in a zone's coordinates, enlarged by `lead` and `trail` metres."""
  top, left = _ORIGIN_NORTHING - squares[:, 0] * side, squares[:, 1] * side
  return shapely.box(left - lead, top - side - trail, left + side + trail, top + lead)

"""Draws the maps of an area as one picture in longitude and latitude, for any number of blocks."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from PIL import Image
from shapely.geometry.base import BaseGeometry

from lgag_jax.blocks import mask_overviews, plan
from lgag_jax.blocks.map_block import AreaJob
from lgag_jax.blocks.plan import Block
from lgag_jax.geo.grid import GEOD
from lgag_jax.mapping import overlay
from lgag_jax.mapping.rasters import NO_DATA
from lgag_jax.runtime import files, preemption
from lgag_jax.runtime.progress import Progress

SIDE = 1600  # The most pixels on a side.
_LEAST_SIDE = 800  # Smaller pictures are enlarged.
NOT_MAPPED = -1
_NOT_MAPPED_COLOUR = (150, 160, 170)


@dataclasses.dataclass(frozen=True)
class Frame:
  """The place of a picture. Its longitudes do not jump: east of the 180th meridian they go on."""

  west: float  # Degrees.
  north: float
  width_step: float  # Degrees per pixel.
  height_step: float
  width: int  # Pixels.
  height: int

  @property
  def transform(self) -> Affine:
    """From (column, row) to longitude and latitude."""
    return Affine(self.width_step, 0.0, self.west, 0.0, -self.height_step, self.north)

  @property
  def metres(self) -> float:
    """The side of a pixel on the ground, at the picture's centre."""
    latitude = self.north - self.height / 2 * self.height_step
    ends = latitude - self.height_step / 2, latitude + self.height_step / 2
    return GEOD.inv(self.west, ends[0], self.west, ends[1])[2]


@dataclasses.dataclass(frozen=True)
class QuickLook:
  """A picture of an area: class numbers, 255 without data and -1 where no map was made."""

  values: np.ndarray  # i16[height, width].
  frame: Frame
  classes: int
  reduction: int  # Pixels of the masks from one that was read to the next.

  def image(self) -> Image.Image:
    """Returns the picture in colours; a small one is enlarged."""
    palette = np.array([colour for _, colour in sorted(_colours(self.classes).items())], np.uint8)
    keys = np.array(sorted(_colours(self.classes)))
    image = Image.fromarray(palette[np.searchsorted(keys, self.values)])
    factor = max(1, _LEAST_SIDE // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)

  def legend(self, names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns names and CSS colours of what the picture shows, except nodata."""
    texts = dict(enumerate(names, 1)) | {0: "no landslide"}
    if (self.values == NOT_MAPPED).any():
      texts[NOT_MAPPED] = "not mapped"
    colours = _colours(self.classes)
    return [(text, "#{:02x}{:02x}{:02x}".format(*colours[key])) for key, text in texts.items()]

  def write(self, path: pathlib.Path) -> None:
    """Writes a PNG atomically."""
    with files.atomic_path(path) as partial:
      self.image().save(partial, "PNG", optimize=True)


def draw(
  job: AreaJob, mapped: Mapping[Block, bool], missing: Sequence[Block], area: BaseGeometry | None
) -> QuickLook:
  """Draws the masks of blocks, each within its zone, and within `area` if it is given.

  `mapped` are blocks and whether they have data, `missing` those that could not be mapped. Masks are
  read at a reduced size, one at a time. A pixel shows a class if any cell that is read there does.
  Raises ImageError naming a mask that cannot be read.
  """
  blocks = [*mapped, *missing]
  outlines = _outlines(job, blocks)
  frame = _frame(outlines, area, job.resolution)
  values = np.full((frame.height, frame.width), NO_DATA, np.int16)
  core = job.size.core
  # A cell is no larger than a pixel of the picture, nor than one of an overview.
  reduction = max(1, min(int(frame.metres / job.resolution), math.ceil(core / mask_overviews.SIDE)))
  progress = Progress("drawing", len(blocks), unit="blocks")
  for block, points in zip(blocks, outlines, strict=True):
    preemption.check()
    if block not in mapped:
      _paint(values, frame, job, block, points, np.full((1, 1), NOT_MAPPED, np.int16))
    elif mapped[block]:
      cells = mask_overviews.read(job.output, block, core, reduction).astype(np.int16)
      _paint(values, frame, job, block, points, cells)
    progress.advance(1)
  progress.close()
  if area is not None:
    values[_beyond(area, frame)] = NO_DATA
  return QuickLook(*_cropped(values, frame), len(job.classes), reduction)


def _cropped(values: np.ndarray, frame: Frame) -> tuple[np.ndarray, Frame]:
  """Removes the sides of a picture that are white."""
  rows, cols = (np.flatnonzero((values != NO_DATA).any(axis=axis)) for axis in (1, 0))
  if not rows.size:
    return values, frame
  west, north = frame.transform @ (int(cols[0]), int(rows[0]))
  values = values[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
  height, width = values.shape
  return values, dataclasses.replace(frame, west=west, north=north, width=width, height=height)


def _outlines(job: AreaJob, blocks: Sequence[Block]) -> np.ndarray:
  """Returns longitude and latitude f64[N, n, 2] of points along the sides of blocks."""
  boxes = plan.boxes(blocks, job.resolution, job.size)
  boxes = shapely.segmentize(boxes, job.resolution * job.size.core / 3.9)  # Curved in degrees.
  points = shapely.get_coordinates(boxes).reshape(len(blocks), -1, 2)
  zones = np.array([block.epsg for block in blocks])
  for epsg in np.unique(zones):
    own = points[zones == epsg]
    degrees = plan.from_degrees(int(epsg)).transform(own[..., 0], own[..., 1], direction="INVERSE")
    points[zones == epsg] = np.stack(degrees, axis=-1)
  return points


def _frame(outlines: np.ndarray, area: BaseGeometry | None, resolution: float) -> Frame:
  """Returns the frame around blocks, or around that part of `area` that they cover."""
  longitudes = np.unique(outlines[..., 0] % 360)
  gaps = np.diff(longitudes, append=longitudes[0] + 360)
  widest = int(np.argmax(gaps))  # There is nothing there.
  half = (360 - gaps[widest]) / 2
  centre = longitudes[widest] + gaps[widest] + half
  west, east = centre - half, centre + half
  south, north = outlines[..., 1].min(), outlines[..., 1].max()
  if area is not None:
    points = shapely.get_coordinates(area)
    around = centre + np.clip((points[:, 0] - centre + 180) % 360 - 180, -half, half)
    west, east = around.min(), around.max()
    south, north = np.clip([points[:, 1].min(), points[:, 1].max()], south, north)
  west, east = west - 360 * (west >= 180), east - 360 * (west >= 180)
  middle = (south + north) / 2
  # Metres per degree of latitude and of longitude.
  down = GEOD.inv(0, middle - 0.5, 0, middle + 0.5)[2]
  across = down * math.cos(math.radians(middle))
  step = max(resolution, (east - west) * across / SIDE, (north - south) * down / SIDE)
  width, height = (
    min(SIDE, max(1, math.ceil(extent / step)))
    for extent in ((east - west) * across, (north - south) * down)
  )
  return Frame(float(west), float(north), step / across, step / down, width, height)


def _beyond(area: BaseGeometry, frame: Frame) -> np.ndarray:
  """Returns which pixels of a frame, bool[height, width], an area does not touch."""
  turns = [  # A place has several longitudes, and the frame uses one of them.
    shapely.transform(area, lambda points, turn=turn: points + np.array([turn, 0.0]))
    for turn in (-360, 0, 360)
  ]
  return rasterio.features.geometry_mask(
    turns, (frame.height, frame.width), frame.transform, all_touched=True
  )


def _paint(
  values: np.ndarray, frame: Frame, job: AreaJob, block: Block, outline: np.ndarray, cells: np.ndarray
) -> None:
  """Paints the cells i16[n, n] of a block on the part of its zone."""
  grid = plan.block_grid(block, job.resolution, job.size)
  left, top = grid.transform.c, grid.transform.f
  side = job.resolution * job.size.core / len(cells)  # Of a cell, in metres.
  zone = plan.from_degrees(block.epsg)
  ends_x, ends_y = _pixels_of(frame, outline[:, 0], outline[:, 1])
  first_row, first_col = max(0, int(ends_y.min()) - 1), max(0, int(ends_x.min()) - 1)
  part = values[first_row : max(0, ends_y.max() + 2), first_col : max(0, ends_x.max() + 2)]
  if not part.size:
    return
  lines, columns = np.indices(part.shape) + 0.5
  longitudes = np.add(frame.west, (columns + first_col) * frame.width_step)
  latitudes = np.subtract(frame.north, (lines + first_row) * frame.height_step)
  inside = _in_zone(block.epsg, longitudes, latitudes)
  x, y = zone.transform(longitudes, latitudes)
  numbers = np.floor(np.stack([top - y, x - left]) / side)
  inside &= ((numbers >= 0) & (numbers < len(cells))).all(axis=0)
  row, col = np.where(inside, numbers, 0).astype(int)
  shows_class = (part > 0) & (part < NO_DATA)  # Of a neighbour's cell, whose centre lies in the pixel.
  np.copyto(part, cells[row, col], where=inside & ~shows_class)
  row, col = np.nonzero((cells > 0) & (cells < NO_DATA))
  x, y = left + (col + 0.5) * side, top - (row + 0.5) * side
  longitudes, latitudes = zone.transform(x, y, direction="INVERSE")
  across, down = _pixels_of(frame, longitudes, latitudes)
  inside = _in_zone(block.epsg, longitudes, latitudes)
  inside &= (across >= 0) & (across < frame.width) & (down >= 0) & (down < frame.height)
  values[down[inside], across[inside]] = cells[row[inside], col[inside]]


def _pixels_of(
  frame: Frame, longitudes: np.ndarray, latitudes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns columns and rows of the pixels at places, beyond the frame, too."""
  centre = frame.west + frame.width / 2 * frame.width_step
  east = centre + (longitudes - centre + 180) % 360 - 180 - frame.west
  columns, rows = east / frame.width_step, (frame.north - latitudes) / frame.height_step
  return np.floor(columns).astype(int), np.floor(rows).astype(int)


def _in_zone(epsg: int, longitudes: np.ndarray, latitudes: np.ndarray) -> np.ndarray:
  return shapely.intersects_xy(_zone(epsg), (longitudes + 180) % 360 - 180, latitudes)


@functools.cache
def _zone(epsg: int) -> BaseGeometry:
  strip = plan.zone_strip(epsg)
  shapely.prepare(strip)
  return strip


def _colours(classes: int) -> dict[int, tuple[int, int, int]]:
  return {NOT_MAPPED: _NOT_MAPPED_COLOUR, **overlay.mask_colours(classes)}

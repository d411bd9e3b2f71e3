"""Reads cloud masks of scenes (--clouds) on the scenes' own grids, in windows.

A cloud mask is opened as a scene is, and may have any grid, resolution and coordinate system. A pixel
of the scene gets the nearest value. `imagery.cloud_kinds` says what the values mean.
"""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyproj
import rasterio.warp
from affine import Affine
from rasterio.enums import Resampling
from rasterio.windows import Window

from lgag_jax.geo import crs_relation, scene_files
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scene import Scene, open_scene
from lgag_jax.geo.vrt import open_scene_raster
from lgag_jax.geo.windows import parts_below, windows_below
from lgag_jax.imagery import cloud_kinds, opening, side_files
from lgag_jax.imagery.cloud_kinds import UNKNOWN
from lgag_jax.imagery.opening import ImageError

_BLOCK = 1024  # Pixels on a side of the scene that are in memory.
_MOST_PIXELS = 1 << 22  # Of the cloud mask that are in memory.


@dataclasses.dataclass(frozen=True)
class Cover:
  """How much of a scene clouds hide: fractions of its pixels."""

  file: str  # The name of the cloud mask.
  kind: str
  clouded: float  # Cloud, cloud shadow, cirrus or saturated.
  unknown: float  # Nodata, or outside the cloud mask.

  def __str__(self) -> str:
    return (
      f"{self.file} is {cloud_kinds.NAMES[self.kind]}. It hides {100 * self.clouded:.1f} % of the "
      f"scene. Another {100 * self.unknown:.1f} % has no value there and counts as nodata, too"
    )


class Clouds:
  """A cloud mask on the grid of a scene, for one thread at a time; `open_clouds` creates it."""

  def __init__(self, file: Scene, grid: Grid, scene: pathlib.Path):
    self._file, self._grid = file, grid
    self._to_file = _relation(file, grid, scene)
    assert grid.crs is not None and file.grid.crs is not None
    self._crs = file.grid.crs, grid.crs if self._to_file else file.grid.crs
    self.kind, self.dtype = "", file.dtype

  def close(self) -> None:
    self._file.close()

  def hidden(self, window: Window, shape: tuple[int, int]) -> np.ndarray:
    """Returns where clouds hide a window of the scene or may do so, bool[h, w].

    With a smaller `shape`, a pixel is hidden if any pixel of the scene in it is.
    """
    factors = [
      max(1, math.ceil(length / count))
      for length, count in zip((window.height, window.width), shape, strict=True)
    ]
    corner = self._grid.transform @ Affine.translation(window.col_off, window.row_off) @ Affine.scale(
      window.width / (shape[1] * factors[1]), window.height / (shape[0] * factors[0]))
    hidden = np.zeros(shape, bool)
    for rows, cols in _blocks(shape, [max(1, _BLOCK // factor) for factor in factors]):
      values = self._values(
        corner @ Affine.translation(cols.start * factors[1], rows.start * factors[0]),
        ((rows.stop - rows.start) * factors[0], (cols.stop - cols.start) * factors[1]),
      )
      fine = cloud_kinds.hidden(values, self.kind)
      count = hidden[rows, cols].shape
      hidden[rows, cols] = fine.reshape(count[0], factors[0], count[1], factors[1]).any((1, 3))
    return hidden

  def count(self) -> np.ndarray:
    """Returns how many pixels of the scene have each value, i64[n]; the first is `UNKNOWN`."""
    shape, counts = (self._grid.height, self._grid.width), np.zeros(cloud_kinds.LARGEST + 2, np.int64)
    for rows, cols in _blocks(shape, [_BLOCK] * 2):
      corner = self._grid.transform @ Affine.translation(cols.start, rows.start)
      values = self._values(corner, (rows.stop - rows.start, cols.stop - cols.start))
      counts += np.bincount(values.ravel() - UNKNOWN, minlength=len(counts))
    return counts

  def values_of_file(self) -> np.ndarray:
    """Returns the different values i64[n] of the whole file, also where the scene does not lie."""
    height, width = self._file.grid.height, self._file.grid.width
    found = np.zeros(cloud_kinds.LARGEST + 2, bool)
    for rows, cols in _blocks((height, width), [_BLOCK] * 2):
      window = Window(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
      found[self._read(window).ravel() - UNKNOWN] = True
    return np.flatnonzero(found[1:])

  def _values(self, transform: Affine, shape: tuple[int, int]) -> np.ndarray:
    """Returns the nearest values i32[h, w] of pixels that lie where `transform` says."""
    values = np.full(shape, UNKNOWN, np.int32)
    for rows, cols, below in parts_below(
      self._file.path, transform, shape, self._to_file, self._file.grid, _MOST_PIXELS, centres=True
    ):
      part = values[rows, cols]
      for box, place in below:
        nearest = np.full(part.shape, UNKNOWN, np.int32)
        rasterio.warp.reproject(
          self._read(box), nearest, src_transform=place, src_crs=self._crs[0], src_nodata=UNKNOWN,
          dst_transform=transform @ Affine.translation(cols.start, rows.start), dst_crs=self._crs[1],
          dst_nodata=UNKNOWN, resampling=Resampling.nearest,
        )
        np.copyto(part, nearest, where=part == UNKNOWN)  # The first that knows a pixel decides.
    return values

  def _read(self, window: Window) -> np.ndarray:
    """Returns a window of the file, i32[h, w]; raises ImageError for values that no cloud mask has."""
    pixels, valid = self._file.read(window)
    return cloud_kinds.whole_values(pixels[..., 0], valid, f"--clouds={self._file.path}")


_covers: dict[tuple, Cover] = {}  # Measured once, although a run opens a scene several times.


def open_clouds(
  path: pathlib.Path, scene: pathlib.Path, grid: Grid, asked: str
) -> tuple[Clouds, Cover]:
  """Opens the cloud mask of a scene, whose grid is `grid`, and measures how much of it is hidden.

  `asked` is --cloud_kind. Raises ImageError naming a file that cannot be used.
  """
  description, nodata = _band(path)
  with contextlib.ExitStack() as stack:
    clouds = Clouds(stack.enter_context(open_scene(path, 1, bands=(1,))), grid, scene)
    key = scene_files.key(path), grid, asked
    if key not in _covers:
      counts = clouds.count()
      values = np.flatnonzero(counts[1:])
      _check_values(values, nodata, path, scene, asked)
      if asked == "auto" and values.max() <= 1:  # As in a mask, or where another product has no data.
        values = clouds.values_of_file()
      kind = cloud_kinds.kind_of(values, path, description, asked, clouds.dtype)
      _covers[key] = _cover(counts, path, kind)
    clouds.kind = _covers[key].kind
    stack.pop_all()
  return clouds, _covers[key]


def _band(path: pathlib.Path) -> tuple[str, float | None]:
  """Returns the description and the nodata value of a file's only band; raises ImageError."""
  with open_scene_raster(path) as raster, opening.error_context(path):
    cloud_kinds.require_one_band(raster, f"--clouds={path}")
    declared = dict(side_files.read_notes(path).nodata).get(1, raster.nodata)
    return raster.descriptions[0] or "", declared


def _relation(file: Scene, grid: Grid, scene: pathlib.Path) -> pyproj.Transformer | None:
  """Returns what leads from a scene's coordinates to the file's, None where these are the same.

  Raises ImageError if the file does not lie on the scene.
  """
  for path, own in ((file.path, file.grid), (scene, grid)):
    if own.crs is None or own.transform.is_identity:
      raise ImageError(
        f"{path} has no {'transform' if own.crs else 'coordinate reference system'}, so "
        f"--clouds={file.path} cannot be laid over {scene}: give it its place, such as gdal_edit.py "
        "-a_srs EPSG:32633 -a_ullr."
      )
  assert grid.crs is not None and file.grid.crs is not None
  to_file = None
  if not crs_relation.same(grid.crs, file.grid.crs):
    to_file = crs_relation.transformer(grid.crs, file.grid.crs)
    if to_file is None:
      raise ImageError(
        f"--clouds={file.path} is in {crs_relation.full_name(file.grid.crs)}, which does not relate to "
        f"{crs_relation.full_name(grid.crs)} of {scene}: give both a CRS that lies on the Earth."
      )
  if not windows_below(grid.transform, (grid.height, grid.width), to_file, file.grid):
    raise ImageError(
      f"--clouds={file.path} does not overlap {scene}: name the cloud mask of the same place, or "
      "correct its CRS (gdal_edit.py -a_srs)."
    )
  return to_file


def _check_values(
  values: np.ndarray, nodata: float | None, path: pathlib.Path, scene: pathlib.Path, asked: str
) -> None:
  """Raises ImageError if a file has no values where the scene lies, or its nodata may mean clear."""
  if nodata == 0 and asked in ("auto", "mask") and not np.setdiff1d(values, [1]).size:
    raise ImageError(
      f"--clouds={path} declares 0 as nodata, and holds only 0 and 1 where {scene} lies. If it is a "
      f"mask, clear ground would count as nodata. Correct it: gdal_edit.py -unsetnodata {path}"
    )
  if not values.size:
    raise ImageError(
      f"--clouds={path} has no data where {scene} lies: name the cloud mask of the same place and day."
    )


def _cover(counts: np.ndarray, path: pathlib.Path, kind: str) -> Cover:
  values = np.arange(len(counts), dtype=np.int32) + UNKNOWN
  clouded, unknown = (
    float(counts[of(values, kind)].sum() / counts.sum())
    for of in (cloud_kinds.clouded, cloud_kinds.unknown)
  )
  return Cover(path.name, kind, clouded, unknown)


def _blocks(shape: tuple[int, int], sides: Sequence[int]) -> Iterator[tuple[slice, slice]]:
  """Yields the rows and columns of blocks of at most `sides` pixels that cover an array."""
  for row in range(0, shape[0], sides[0]):
    for col in range(0, shape[1], sides[1]):
      yield slice(row, min(row + sides[0], shape[0])), slice(col, min(col + sides[1], shape[1]))

"""Refuses labels that lie in none of the scenes of a call, and says which system would place them.

A scene that an inventory does not reach counts as free of landslides. If it reaches no scene at all,
its place is wrong: all tiles would be negatives, and an evaluation would find no landslide.
"""

import pathlib
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyogrio
import pyproj
from pyproj.exceptions import CRSError

from lgag_jax.geo import crs_relation, layer_files, layer_formats
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.placement import grid_of
from lgag_jax.geo.windows import windows_below
from lgag_jax.imagery import reading

_REMEDY = "Scenes without landslides need a scene with some in the same call."
_NODES = 9  # Along each side of a mask, where a system is tried.


class Reach:
  """Notes which scenes of a call its labels reach."""

  def __init__(self, grids: Mapping[pathlib.Path, Grid], *, layer: str = ""):
    """Takes the scenes of the call; `layer` is --layer."""
    self._grids, self._layer = dict(grids), layer
    self._waiting, self._inside = set(grids), False

  def note(self, labels: pathlib.Path, scene: pathlib.Path, *, inside: bool) -> None:
    """Notes whether a file of labels reaches a scene; raises ValueError if it was the last without."""
    self._inside |= inside
    self._waiting.discard(scene)
    if not self._waiting and not self._inside:
      raise self._error(labels, scene)

  def _error(self, labels: pathlib.Path, scene: pathlib.Path) -> ValueError:
    points, crs = _places(labels, self._layer)
    grid = self._grids[scene]
    others = " or in any other scene" if len(self._grids) > 1 else ""
    text = f"{labels}: nothing of it lies in {scene}{others}. "
    if not len(points):
      return ValueError(f"{text}It holds no feature. {_REMEDY}")
    text += f"It covers {_extent(points, crs)}, and the scene {_extent(_nodes(grid), grid.crs)}. "
    for system in _candidates(crs, grid):
      if any(_fits(points, system, other) for other in self._grids.values()):
        code = f"EPSG:{pyproj.CRS.from_user_input(system).to_epsg() or '...'}"
        is_layer = labels.suffix.lower() in layer_formats.SUFFIXES
        command = "ogr2ogr -a_srs {} new.gpkg {}" if is_layer else "gdal_edit.py -a_srs {} {}"
        return ValueError(
          f"{text}It would lie there in {crs_relation.full_name(system)}. If that is its system: "
          f"{command.format(code, shlex.quote(str(labels)))}"
        )
    return ValueError(f"{text}Check both coordinate reference systems. {_REMEDY}")


def overlaps(mask: Grid, grid: Grid) -> bool:
  """Returns whether a mask reaches a scene, as far as their places are known."""
  if not (mask.georeferenced and grid.georeferenced):
    return True
  to_mask = crs_relation.needed_transformer(grid.crs, mask.crs)
  return bool(windows_below(grid.transform, (grid.height, grid.width), to_mask, mask))


def _places(labels: pathlib.Path, layer: str) -> tuple[np.ndarray, Any]:
  """Returns points f64[n, 2] of labels, of the boxes of shapes or all over a mask, and their CRS."""
  if labels.suffix.lower() in layer_formats.SUFFIXES:
    source = layer_files.source(labels)[1]
    layer = layer or next(name for name, kind in pyogrio.list_layers(source) if kind is not None)
    left, bottom, right, top = pyogrio.read_bounds(source, layer=layer)[1]
    x, y = np.stack([left, (left + right) / 2, right]), np.stack([bottom, (bottom + top) / 2, top])
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    return points[np.isfinite(points).all(axis=1)], pyogrio.read_info(source, layer=layer)["crs"]
  with reading.open_raster(labels) as raster:
    grid = grid_of(raster, labels)
  return _nodes(grid), grid.crs


def _nodes(grid: Grid) -> np.ndarray:
  """Returns places f64[n, 2] all over a grid, its corners among them."""
  cols, rows = np.meshgrid(np.linspace(0, grid.width, _NODES), np.linspace(0, grid.height, _NODES))
  pixels: Any = cols.ravel(), rows.ravel()
  return np.stack(grid.transform @ pixels, axis=1)


def _extent(points: np.ndarray, crs: Any) -> str:
  (left, bottom), (right, top) = points.min(axis=0), points.max(axis=0)
  name = crs_relation.full_name(crs) if crs else "an unknown system"
  return f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g} in {name}"


def _candidates(crs: Any, grid: Grid) -> Iterator[Any]:
  """Yields other systems that the numbers of labels may be in."""
  if crs is None:
    yield "EPSG:4326"
  elif grid.crs is not None and not crs_relation.same(crs, grid.crs):
    yield grid.crs
  own = pyproj.CRS.from_user_input(crs if isinstance(crs, str) else crs.to_wkt()) if crs else None
  zone, code = (own.utm_zone, own.to_epsg()) if own else (None, None)
  if own is None or not zone or not code:
    return
  for step in (-1, 1):
    try:
      other = pyproj.CRS.from_epsg(code + step)
    except CRSError:
      continue
    if other.utm_zone == f"{int(zone[:-1]) + step}{zone[-1]}":
      yield f"EPSG:{code + step}"


def _fits(points: np.ndarray, system: Any, grid: Grid) -> bool:
  """Returns whether any of the points lies in a scene if they are in a system."""
  x, y = points.T
  if grid.crs is None:
    return False
  if not crs_relation.same(system, grid.crs):
    transformer = crs_relation.transformer(system, grid.crs)
    if transformer is None:
      return False
    x, y = transformer.transform(x, y)
  with np.errstate(invalid="ignore"):
    places: Any = np.asarray(x), np.asarray(y)
    pixels = np.stack(~grid.transform @ places, axis=1)
  return bool(np.all((pixels >= 0) & (pixels <= (grid.width, grid.height)), axis=1).any())

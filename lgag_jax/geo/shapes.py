"""Reads polygons and points from GeoPackage, shapefile and GeoJSON, in the pixels of a scene.

Layers may be untrusted: `layer_files` says what GDAL may open of them.
"""

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyogrio.raw
import pyproj
import shapely

from lgag_jax.geo import (
  antimeridian,
  class_fields,
  crs_relation,
  geometry_parts,
  layer_fields,
  layer_files,
  layer_geometry,
  tile_outlines,
)
from lgag_jax.geo.geometry_parts import warn
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery import plain_crs

_LOG = logging.getLogger(__name__)

_MOST = 0.5  # Of a layer's points.
POINT_FIELDS = ("stable_id", "kind", "elevation_m")  # `mapping.extreme_points` explains them.


@dataclasses.dataclass(frozen=True)
class Shapes:
  """The shapes of a layer in the scene's pixels: x is the column, y the row, (0, 0) its corner."""

  kind: str  # "polygons" or "points".
  geometries: np.ndarray  # Valid shapely geometries, none of them empty.
  classes: np.ndarray  # u8, the class of each geometry, from 1.


def read_shapes(
  path: pathlib.Path, grid: Grid, classes: tuple[str, ...], *, layer: str = "", field: str = "",
  scene: pathlib.Path | str = "the scene", where: str = "", background: str = "",
) -> Shapes:
  """Reads a layer's polygons or points; `field` holds their class names, "" if there is one class.

  Without it, `class_fields` refuses layers whose own fields deny that a shape is a landslide, such as
  with the name `background`. `where`, an SQL condition, chooses features. Each part of a feature is a
  geometry of its own. Skips parts that are empty, have no area or no position in the scene's
  coordinates, repairs invalid ones, and warns with the number of features of each. Raises ValueError
  naming the file and the remedy.
  """
  driver, source = layer_files.source(path)
  with error_context(path):
    layer = _layer(path, source, layer)
    info = pyogrio.read_info(source, layer=layer)
    if info["driver"] != driver:
      raise ValueError(f"GDAL opens it with {info['driver']}, not {driver}")
    if not where:
      _refuse_review(info)
    refuse_points(info)
    decision = layer_fields.name_in(info["fields"], layer_fields.DECISION)
    class_fields.check_field(info["fields"], field, classes)
    kinds = [] if field or where else class_fields.of_kinds(info["fields"])
    columns = [name for name in (field, decision, *kinds) if name]
    meta, numbers, wkb, data = pyogrio.raw.read(
      source, layer=layer, columns=columns, force_2d=True, where=where or None, return_fids=True
    )
  features = layer_geometry.read(path, source, layer, wkb, numbers)
  values = dict(zip(meta["fields"].tolist(), data, strict=True))
  if decision and decision != field and not where:
    layer_fields.check_decisions(path, values[decision].tolist())
  class_fields.check_kinds(path, {name: values[name].tolist() for name in kinds}, classes, background)
  readable = np.flatnonzero(~(shapely.is_missing(features) | shapely.is_empty(features)))
  unreadable = np.setdiff1d(np.arange(len(features)), readable)
  warn(path, unreadable, "have no readable geometry; skipping them")
  kind, geometries, index = geometry_parts.take_apart(path, features[readable])
  owners = readable[index]
  if not len(geometries):
    raise ValueError(f"{path} holds no {kind} that can be read. Save the layer again from its source.")
  class_numbers = np.ones(len(features), np.uint8)
  if field:
    class_numbers[readable] = class_fields.class_numbers(path, values[field][readable], field, classes)
  geometries, located = to_pixels(path, geometries, meta["crs"], grid, scene)
  if not located.any():
    raise ValueError(
      f"{path}: none of its {len(located)} {kind} has a position in the scene's coordinates. Check its "
      "coordinate reference system."
    )
  warn(path, owners[~located], "have no position in the scene's coordinates; skipping them")
  owners = owners[located]
  class_numbers = class_numbers[owners]
  if kind == "polygons":
    geometries, with_area = geometry_parts.repaired(path, geometries, owners)
    class_numbers = class_numbers[with_area]
    if not len(geometries):
      raise ValueError(f"{path} holds no polygon with an area. Give the outlines of landslides.")
  geometries, index = antimeridian.copies_in_scene(geometries, grid)
  return Shapes(kind, geometries, class_numbers[index])


@contextlib.contextmanager
def error_context(path: pathlib.Path) -> Iterator[None]:
  """Raises errors of pyogrio as ValueError naming the file."""
  try:
    yield
  except (RuntimeError, ValueError) as error:  # pyogrio raises either.
    raise ValueError(f"{path} cannot be read as labels: {str(error).rstrip('.')}.") from error


def refuse_points(info: dict[str, Any]) -> None:
  """Raises ValueError for the points that a map has beside its polygons, or a GIS's copy of them."""
  shown = {name[:10].lower() for name in info["fields"]}  # A shapefile cuts longer names.
  if "Point" in str(info["geometry_type"]) and shown >= {name[:10] for name in POINT_FIELDS}:
    raise ValueError(
      "it holds the highest and the lowest points of mapped polygons, which are no inventory. Give the "
      "polygons: those of a map lie in its folder polygons/"
    )


def _refuse_review(info: dict[str, Any]) -> None:
  if layer_fields.of_review(info["fields"]):
    raise ValueError(
      "it holds a review, in which rejected polygons would count as landslides. For --mode=tile give "
      "the whole file that --mode=review wrote. Otherwise give its inventory, <scene>_reviewed.gpkg"
    )


def _layer(path: pathlib.Path, source: str | bytes, layer: str) -> str:
  names = [name for name, kind in pyogrio.list_layers(source) if kind is not None]
  if tile_outlines.tile_layers(path, layer):
    raise ValueError(
      "it holds the outlines of tiles that lgag wrote, so that every tile would be a landslide. Only "
      "--mode=tile reads the tiles' labels. Give the inventory"
    )
  if layer in names or (not layer and len(names) == 1):
    if lost := tile_outlines.lost_fields(source, layer or names[0]):
      raise ValueError(
        f"it holds the outlines of tiles without the field {lost[0]}, so that every tile would be a "
        "landslide. Restore the field, as --mode=tile and --mode=label write it, or give the inventory"
      )
    return layer or names[0]
  problem = f"no layer {layer!r}" if layer else f"{len(names)} layers"
  raise ValueError(f"it has {problem}: choose one with --layer, of {', '.join(names) or 'none'}")


def to_pixels(
  path: pathlib.Path, geometries: np.ndarray, crs: str | None, grid: Grid,
  scene: pathlib.Path | str,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the geometries with a position in a scene's pixels, and bool[n], which ones have one.

  Logs if layer or scene has no CRS; raises ValueError naming both if their CRSs are unrelated, or the
  file if `crs` names others.
  """
  if crs is not None and plain_crs.names_files(crs):  # As GDAL has understood the file.
    raise ValueError(f"{path} cannot be read as labels: its CRS names other files: {crs!r:.300}.")
  _check_pixels(path, geometries, crs, grid, scene)
  transformer = _transformer(path, crs, grid, scene)
  points, owners = shapely.get_coordinates(geometries, return_index=True)
  x, y = points.T
  if transformer is not None:
    x, y = transformer.transform(x, y)
  located, finite = np.ones(len(geometries), bool), np.isfinite(x) & np.isfinite(y)
  located[owners[~finite]] = False
  valid = located[owners]
  x: Any = antimeridian.unwrapped(x[valid], owners[valid], antimeridian.period(grid))
  pixels = np.stack(~grid.transform @ (x, y[valid]), axis=1)
  if not _inside(pixels, grid).any():
    _check_axes(path, points, crs, grid, scene)
  return shapely.set_coordinates(geometries[located], pixels), located


def _check_pixels(path, geometries: np.ndarray, crs: str | None, grid: Grid, scene) -> None:
  """Raises ValueError if coordinates on the Earth would count as pixels of a scene without a place.

  GeoJSON always says that it holds degrees, and may still hold pixels. Outlines of landslides are
  narrower than a degree. Layers of earlier releases may hold pixels in a projected system.
  """
  if crs is None or grid.crs is not None or grid.placed:
    return
  kind = crs_relation.kind(crs)
  if kind == "geographic":
    bounds = shapely.bounds(geometries)
    bounds = bounds[np.isfinite(bounds).all(axis=1)]
    widest = np.max(bounds[:, 2:] - bounds[:, :2], initial=0)
    are_degrees = np.all(np.abs(bounds) <= (180, 90, 180, 90)) and widest < 1
    if not are_degrees or (widest == 0 and path.suffix.lower() in (".geojson", ".json")):
      return
  elif kind != "projected" or _inside(_pixels(shapely.get_coordinates(geometries), grid), grid).any():
    return
  raise ValueError(
    f"{path} is in {crs_relation.full_name(crs)}, but {scene} has no place on the ground. Add the "
    "files that place the scene, such as a world file and a .prj. If the layer is in pixels of the "
    "scene, save it without a CRS."
  )


def _pixels(points: np.ndarray, grid: Grid) -> np.ndarray:
  """Returns where points [n, 2] lie in a scene if they are in its coordinates."""
  places: Any = tuple(points.T)
  return np.stack(~grid.transform @ places, axis=1)


def _inside(pixels: np.ndarray, grid: Grid) -> np.ndarray:
  """Returns bool [n], which points [n, 2] lie in a scene."""
  return np.all((pixels >= 0) & (pixels <= (grid.width, grid.height)), axis=1)


def _check_axes(path, points: np.ndarray, crs: str | None, grid: Grid, scene) -> None:
  """Raises ValueError if most of a layer lies in the scene when x and y are swapped, or are degrees.

  `points`, f64[n, 2], are the layer's coordinates, none of which lies in the scene as it says.
  """
  named = crs_relation.full_name(crs or grid.crs) if crs or grid.crs else "its system"
  for system, order, problem in (
    (crs or grid.crs, [1, 0], f"x and y were swapped. In {named}, x is the longitude or the easting. "
     "Swap them, such as with Swap X and Y coordinates in QGIS"),
    (None if crs else "EPSG:4326", [0, 1], "its coordinates were degrees. Give it its coordinate "
     "reference system, such as with ogr2ogr -a_srs EPSG:4326"),
  ):
    if system is None:
      continue
    x, y = points[:, order].T
    transformer = grid.crs and crs_relation.transformer(system, grid.crs)
    if transformer and not crs_relation.same(system, grid.crs):
      x, y = transformer.transform(x, y)
    with np.errstate(invalid="ignore"):
      pixels: Any = ~grid.transform @ (x, y)
    if np.mean(_inside(np.stack(pixels, axis=1), grid)) >= _MOST:
      raise ValueError(f"{path}: nothing of it lies in {scene}, but most would if {problem}.")


def _transformer(path, crs: str | None, grid: Grid, scene) -> pyproj.Transformer | None:
  if crs is None or grid.crs is None:
    lacking, other = ("it", "the scene") if crs is None else ("the scene", "the layer")
    _LOG.warning("%s: %s has no coordinate reference system; using that of %s.", path, lacking, other)
    return None
  if crs_relation.same(crs, grid.crs):
    return None
  transformer = crs_relation.transformer(crs, grid.crs)
  if transformer is None:
    raise crs_relation.unrelated_error(path, crs, scene, grid.crs, layer=True)
  return transformer

"""Refuses one file of labels for several scenes if it cannot tell their ground apart."""

import pathlib
import shlex
from collections.abc import Mapping

import pyogrio

from lgag_jax.geo import crs_relation, layer_files, layer_formats, shapes
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.placement import grid_of, unplaced_warning
from lgag_jax.geo.scene_ground import SceneGround
from lgag_jax.imagery import reading


def check(path: pathlib.Path, grids: Mapping[pathlib.Path, Grid], *, layer: str = "") -> None:
  """Raises ValueError if a mask or a layer of a file would label the ground of one scene in others.

  That is so if a place is missing, or if the file has no CRS and its numbers mean several places.
  """
  if len(grids) < 2:
    return
  one = f"{path} is one file of labels for {len(grids)} scenes, but"
  is_layer = path.suffix.lower() in layer_formats.SUFFIXES
  if is_layer:
    has_crs = _layer_has_crs(path, layer)
  else:
    with reading.open_raster(path) as raster:
      mask = grid_of(raster, path)
    has_crs = mask.crs is not None
    if not mask.georeferenced:
      raise ValueError(
        f"{one} it has no place on the ground, so each scene would get the labels of one. Give each "
        "scene a mask of its own (in --mode=tile, in a run of its own), or give the mask its place."
      )
  for scene, grid in grids.items():
    if not grid.georeferenced:
      raise ValueError(
        f"{one} {scene} has no place on the ground, so it would get the labels of other ground. "
        f"{_placed(grid)} Or give it labels of its own."
      )
  if len(counted := [scene for scene, grid in grids.items() if not grid.placed]) > 1:
    raise ValueError(
      f"{one} the world files or transforms of {counted[0]} and {counted[1]} only count their pixels. "
      "Both would get the labels of one. Give the scenes the transform and CRS of their ground, or "
      "labels of their own."
    )
  if not has_crs:
    _check_systems(one, path, grids, is_layer=is_layer)


def _placed(grid: Grid) -> str:
  if warning := unplaced_warning(grid):
    return f"Of this scene: {warning}"
  return "Add the files that place it, such as a world file and a .prj."


def _layer_has_crs(path: pathlib.Path, layer: str) -> bool:
  """Returns whether the layer, or without a name each layer, states its CRS."""
  source = layer_files.source(path)[1]
  with shapes.error_context(path):
    names = [name for name, kind in pyogrio.list_layers(source) if kind is not None]
    return all(
      pyogrio.read_info(source, layer=name)["crs"] for name in names if layer in ("", name))


def _check_systems(
  one: str, path: pathlib.Path, grids: Mapping[pathlib.Path, Grid], *, is_layer: bool
) -> None:
  """Raises ValueError if the numbers of a file without a CRS mean several places in the scenes."""
  systems = {scene: grid.crs for scene, grid in grids.items() if grid.crs}
  for scene, crs in systems.items():
    first, other = next(iter(systems.items()))
    if SceneGround(scene, grids[scene]).fits_crs(other.to_wkt()):
      continue
    command = "ogr2ogr -a_srs {} new.gpkg {}" if is_layer else "gdal_edit.py -a_srs {} {}"
    code = f"EPSG:{other.to_epsg() or 32633}"
    raise ValueError(
      f"{one} it has no coordinate reference system, and they are in several: {first} is in "
      f"{crs_relation.full_name(other)}, {scene} in {crs_relation.full_name(crs)}. It would label each "
      f"scene as if it were in the scene's own. Give it its system. If that is {code}: "
      f"{command.format(code, shlex.quote(str(path)))}"
    )

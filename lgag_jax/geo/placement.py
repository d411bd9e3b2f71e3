"""Finds where an image lies: by its own georeference, and by the files beside it.

As in GDAL, x.tif.aux.xml takes precedence over the file, and a world file serves files without a
transform: x.pgw or x.pngw for x.png, x.jgw, x.jpgw, x.tfw and so on, x.wld for any. x.prj gives the CRS
if none of these does, unless it belongs to a shapefile x.shp. Both may be in lower or upper case.
"""

import math
import os
import pathlib

from affine import Affine
from rasterio.crs import CRS

from lgag_jax.geo import crs_relation
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery import opening, orientation, plain_crs, side_files
from lgag_jax.imagery.opening import ImageError
from lgag_jax.imagery.orientation import Raster

_MAX_WORLD_BYTES = 1024
_MAX_PRJ_BYTES = 1 << 16
_RPC_SUFFIXES = ("_RPC.TXT", "_rpc.txt", ".RPB", ".rpb")
_FINEST_PIXEL = 1e-4  # Metres. Coordinates in degrees that are taken for metres are finer.
_CONTROL_POINTS, _RPCS, _CRS_ALONE = "ground control points", "RPCs", "a CRS without a transform"
_GDALWARP = {_CONTROL_POINTS: "gdalwarp -tps", _RPCS: "gdalwarp -rpc"}


def grid_of(raster: Raster, path: pathlib.Path) -> Grid:
  """Returns the grid of an open raster and the files beside it; raises ImageError naming a bad one."""
  grid = Grid.from_raster(raster, path)
  notes = side_files.Notes() if raster.driver == "VRT" else side_files.read_notes(path)
  crs, transform = notes.crs or grid.crs, notes.transform or grid.transform
  if transform.is_identity:
    files = _world_files(path)
    transform = read_world_file(files[0]) if files else transform
  if crs is None:
    crs = _read_prj(path)
  unplaced = ""
  if transform.is_identity:
    if raster.gcps[0] or notes.control_points:
      unplaced = _CONTROL_POINTS
    elif raster.rpcs or any(os.path.exists(f"{path.with_suffix('')}{s}") for s in _RPC_SUFFIXES):
      unplaced = _RPCS
    elif crs is not None:
      unplaced = _CRS_ALONE
    crs = None  # Without a transform, it would place pixels of one unit at its origin.
  grid = Grid(grid.height, grid.width, crs, transform, unplaced)
  if (grid.georeferenced or unplaced) and (number := orientation.of_raster(raster)) != 1:
    opening.refuse_orientation(path, number)
  return grid


def unplaced_warning(grid: Grid) -> str:
  """Returns what to do with a scene that only has control points or RPCs, else ""."""
  if not grid.unplaced:
    return ""
  if grid.unplaced == _CRS_ALONE:
    return (
      "it has a CRS, but neither a transform nor a world file, so it has no place on the ground. Give "
      "it the borders of its ground: gdal_edit.py -a_ullr west north east south in.tif."
    )
  return (
    f"it only has {grid.unplaced}, which lgag does not apply, so it has no place on the ground. Place "
    f"it first: {_GDALWARP[grid.unplaced]} in.tif out.tif."
  )


def unread_warning(path: pathlib.Path) -> str:
  """Returns which side files of a scene are not read, "" if there are none."""
  unread = [file.name for suffix in (".ovr",) if (file := side_files.beside(path, suffix))]
  if path.suffix.lower() == ".vrt":
    unread += [f.name for s in (".msk", ".aux.xml") if (f := side_files.beside(path, s))]
  return f"lgag does not read {', '.join(unread)} beside it." if unread else ""


def warnings(grid: Grid, path: pathlib.Path) -> tuple[str, ...]:
  """Returns what to check in the place of a scene and in the files beside it."""
  texts = (
    unplaced_warning(grid), unread_warning(path), _misplaced_warning(grid), _orientation_warning(path)
  )
  return tuple(text for text in texts if text)


def _misplaced_warning(grid: Grid) -> str:
  """Returns what to check in a scene whose coordinates cannot be of its CRS, else ""."""
  if grid.crs is None or grid.to_wgs84() is None:
    return ""
  gsd = grid.gsd()
  if gsd is not None and gsd >= _FINEST_PIXEL:
    return ""
  fact = "lie nowhere on the Earth" if gsd is None else f"make a pixel {gsd:.2g} m wide"
  return (
    f"its coordinates {fact} in its CRS {crs_relation.full_name(grid.crs)}, so areas are unknown or "
    "wrong. Give it its true CRS (gdal_edit.py -a_srs EPSG:32633)."
  )


def _orientation_warning(path: pathlib.Path) -> str:
  number = orientation.of_file(path)
  return "" if number == 1 else (
    f"its orientation tag is {number}: lgag turns it as viewers do, and its map fits the turned image."
  )


def place_files(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files beside an image that may give its place, except its .aux.xml."""
  prj = _prj_file(path)
  return _world_files(path)[:1] + ([prj] if prj else [])


def _prj_file(path: pathlib.Path) -> pathlib.Path | None:
  if any(os.path.exists(path.with_suffix(suffix)) for suffix in (".shp", ".SHP")):
    return None
  files = (path.with_suffix(suffix) for suffix in (".prj", ".PRJ"))
  return next((file for file in files if os.path.exists(file)), None)


def _read_prj(path: pathlib.Path) -> CRS | None:
  file = _prj_file(path)
  if file is None:
    return None
  opening.read_signature(file)  # Refuses pipes.
  try:
    if file.stat().st_size > _MAX_PRJ_BYTES:
      raise ValueError(f"it has more than {_MAX_PRJ_BYTES} bytes")
    return plain_crs.parse(file.read_bytes().decode("utf-8-sig"))
  except (OSError, ValueError) as error:
    raise ImageError(f"{file} is invalid: {error}. Restore or remove it.") from error


def _world_files(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns the world files of an image: for x.png x.pgw, x.pngw, x.wld, also in capitals."""
  suffix = path.suffix.lower()
  suffixes = [f".{suffix[1]}{suffix[-1]}w", f"{suffix}w"] if len(suffix) > 2 else []
  files = [path.with_suffix(s) for low in (*suffixes, ".wld") for s in (low, low.upper())]
  return [file for file in files if os.path.exists(file)]


def read_world_file(path: pathlib.Path) -> Affine:
  """Returns a world file's transform from pixel corners; raises ImageError naming an invalid file."""
  opening.read_signature(path)  # Refuses pipes.
  try:
    with path.open("rb") as file:
      text = file.read(_MAX_WORLD_BYTES + 1)
    if len(text) > _MAX_WORLD_BYTES:
      raise ValueError(f"it has more than {_MAX_WORLD_BYTES} bytes")
    a, d, b, e, c, f = map(float, text.decode("utf-8-sig").split())
    if not all(map(math.isfinite, (a, b, c, d, e, f))) or a * e == b * d:
      raise ValueError("its numbers give pixels without area")
  except (OSError, ValueError) as error:
    raise ImageError(
      f"{path} is not a valid world file: {error}. Write six numbers into it, with decimal points, or "
      "remove it."
    ) from error
  # A world file gives the centre of the first pixel, GDAL's transform its corner.
  return Affine(a, b, c, d, e, f) @ Affine.translation(-0.5, -0.5)

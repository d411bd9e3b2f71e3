"""Relates coordinate reference systems: whether two are the same, and how one becomes the other."""

import pathlib
import shlex

import pyproj
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import RasterioError


def same(crs: CRS | str, other: CRS | str) -> bool:
  """Returns whether two systems are the same, up to the order of their axes.

  Formats keep different parts of a local system, so two of these are the same if name and units are.
  """
  if crs == other:
    return True
  try:
    first, second = _system(crs), _system(other)
  except (ProjError, RasterioError):
    return False
  if first.is_engineering and second.is_engineering:
    return first.name == second.name and _units(first) == _units(second)
  return first.equals(second, ignore_axis_order=True)


def _system(crs: CRS | str) -> pyproj.CRS:
  return pyproj.CRS.from_user_input(crs if isinstance(crs, str) else crs.to_wkt())


def _units(crs: pyproj.CRS) -> list[float]:
  return [axis.unit_conversion_factor for axis in crs.axis_info]


def transformer(crs: CRS | str, target: CRS | str) -> pyproj.Transformer | None:
  """Returns what transforms (x, y) from one system to another; None if they cannot be related.

  A local system (engineering CRS) has no place on the Earth, and another planet has one of its own. Of
  a compound system, such as that of a DEM with its heights, the horizontal part counts.
  """
  try:
    systems = [
      one.sub_crs_list[0] if one.is_compound else one for one in (_system(crs), _system(target))
    ]
    if any(one.is_engineering or one.is_vertical or one.is_geocentric for one in systems):
      return None
    return pyproj.Transformer.from_crs(*systems, always_xy=True)
  except (ProjError, RasterioError):
    return None


def kind(crs: CRS | str) -> str:
  """Returns "projected", "geographic", or "" for a system of neither kind."""
  try:
    system = _system(crs)
  except (ProjError, RasterioError):
    return ""
  return "projected" if system.is_projected else "geographic" if system.is_geographic else ""


def full_name(crs: CRS | str) -> str:
  """Returns the name of a system for messages, with its code if it has one."""
  try:
    system = _system(crs)
  except (ProjError, RasterioError):
    return f"{str(crs)[:80]!r} (unknown to PROJ)"
  code = system.to_epsg()
  note = f"EPSG:{code}" if code else "a local system" if system.is_engineering else system.type_name
  return f"{system.name!r} ({note})"


def unrelated_error(
  labels: pathlib.Path, crs: CRS | str, scene: pathlib.Path | str, target: CRS | str, *,
  layer: bool = False,
) -> ValueError:
  """Returns the error for labels whose coordinates cannot be transformed to those of their scene."""
  wrong_labels = transformer(crs, "EPSG:4326") is None
  path, right = (labels, target) if wrong_labels else (scene, crs)
  code = "EPSG:32633"
  if transformer(right, "EPSG:4326"):
    code = f"EPSG:{_system(right).to_epsg() or 32633}"
  command = f"gdal_edit.py -a_srs {code} {shlex.quote(str(path))}"
  if layer and wrong_labels:
    command = f"ogr2ogr -a_srs {code} new.gpkg {shlex.quote(str(path))}"
  return ValueError(
    f"{labels} cannot label {scene}: their coordinate reference systems, {full_name(crs)} and "
    f"{full_name(target)}, cannot be related. Give {path} its true system. If that is {code}: {command}"
  )

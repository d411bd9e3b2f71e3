"""Relates coordinate reference systems: whether two are the same, and how one becomes the other."""

import functools
import logging
import pathlib
import shlex

import pyproj
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import RasterioError

_LOG = logging.getLogger(__name__)

_BALLPARK = "Ballpark"  # What PROJ calls operations that keep longitude and latitude on other datums.
_SAME_AXIS = 1.0  # Metres. The equatorial radii of GRS 1980 and WGS 84 are equal.

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
  a compound system, such as that of a DEM with its heights, the horizontal part counts. Warns once of
  two systems whose datums PROJ cannot relate.
  """
  try:
    systems = [
      one.sub_crs_list[0] if one.is_compound else one for one in (_system(crs), _system(target))
    ]
    if any(one.is_engineering or one.is_vertical or one.is_geocentric for one in systems):
      return None
    found = pyproj.Transformer.from_crs(*systems, always_xy=True)
    if found.accuracy < 0 and _BALLPARK in found.description:
      _warn_of_datums(*sorted(system.to_wkt() for system in systems))
    return found
  except (ProjError, RasterioError):
    return None


def needed_transformer(
  crs: CRS | str | None, target: CRS | str | None
) -> pyproj.Transformer | None:
  """Returns `transformer`'s result; None, too, where numbers stay: in one system, or an unknown one."""
  if not crs or not target or same(crs, target):
    return None
  return transformer(crs, target)


@functools.cache
def _warn_of_datums(first: str, second: str) -> None:
  """Logs that places may be wrong, unless both ellipsoids are about the same, or one is a sphere.

  Datums without a name on GRS 1980 or WGS 84 are close to each other. Products on a sphere, such as
  those of MODIS, keep the longitudes and latitudes of WGS 84.
  """
  systems = [pyproj.CRS.from_wkt(wkt) for wkt in (first, second)]
  axes = [system.ellipsoid.semi_major_metre for system in systems if system.ellipsoid]
  spheres = any(not system.ellipsoid or not system.ellipsoid.inverse_flattening for system in systems)
  if spheres or abs(axes[0] - axes[1]) < _SAME_AXIS:
    return
  texts = [f"{one.name!r} on the ellipsoid {one.ellipsoid.name!r}" for one in systems if one.ellipsoid]
  _LOG.warning(
    "How %s relates to %s is unknown, so places may be wrong by hundreds of metres: one of them does "
    "not name its datum. Give the file its true system, such as EPSG:23033 for ED50: gdal_edit.py "
    "-a_srs for a raster, ogr2ogr -a_srs for a layer.", *texts,
  )


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

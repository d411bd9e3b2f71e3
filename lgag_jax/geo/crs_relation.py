"""Whether coordinates of one reference system can be transformed to another."""

import contextlib

import pyproj
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import RasterioError


def related(crs: CRS | None, other: CRS | None) -> bool:
  """Returns whether coordinates can be transformed; those of a local system on no ground cannot.

  A missing system is taken for the other one, so the two are related.
  """
  if crs is None or other is None or crs == other:
    return True
  try:
    pyproj.Transformer.from_crs(on_earth(crs.to_wkt()), on_earth(other.to_wkt()))
  except (ProjError, RasterioError):
    return False
  return True


def on_earth(text: str) -> pyproj.CRS:
  """Returns the system of a WKT or code; raises ProjError if it has no place on the Earth."""
  crs = pyproj.CRS.from_user_input(text)
  if crs.is_engineering:
    raise ProjError(f"{crs.name} is a local system without a place on the Earth")
  return crs


def short_name(crs: CRS | None) -> str:
  """Returns the name of a system for messages."""
  with contextlib.suppress(ProjError, RasterioError):
    return repr(pyproj.CRS.from_wkt(crs.to_wkt()).name) if crs else "none"
  return "of an unknown kind"

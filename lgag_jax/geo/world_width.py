"""How far apart along x two coordinates of one place are in a coordinate reference system."""

import functools
import math

import numpy as np
import pyproj
from pyproj.exceptions import ProjError

_LONGITUDES = np.arange(-0.47, 0.5, 0.0523)  # Parts of a turn, none of which is a usual border.
_LATITUDES = np.array((-0.15, -0.04, 0.0, 0.1))


@functools.lru_cache(maxsize=64)
def of_system(wkt: str) -> float:
  """Returns how far apart along x two coordinates of one place are, 0 where there are no two.

  That is a turn in longitude and latitude, and the length of the equator in a cylindrical projection,
  where x grows evenly with the longitude, whatever the latitude.
  """
  try:
    crs = pyproj.CRS.from_wkt(wkt)
    crs = crs.sub_crs_list[0] if crs.is_compound else crs
    if crs.geodetic_crs is None:
      return 0.0
    turn = 2 * math.pi / crs.geodetic_crs.axis_info[0].unit_conversion_factor
    if crs.is_geographic:
      return turn
    if not crs.is_projected:
      return 0.0
    transformer = pyproj.Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True)
  except ProjError:
    return 0.0
  longitudes, latitudes = np.meshgrid(turn * _LONGITUDES, turn * _LATITUDES)
  step = turn * 1e-4
  x, further = (transformer.transform(longitudes + east, latitudes)[0] for east in (0.0, step))
  with np.errstate(invalid="ignore"):  # Many projections end before a quarter of a turn.
    widths = (np.asarray(further) - np.asarray(x)) / step * turn
  width = float(np.median(widths))
  even = np.isclose(widths, width, rtol=1e-5).mean() > 0.9  # But where x jumps to the other border.
  return width if even else 0.0

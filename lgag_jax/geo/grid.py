"""A raster's grid: size, coordinate reference system, transform, ground resolution."""

import dataclasses
import math
import pathlib

import pyproj
from affine import Affine, AffineError
from rasterio.crs import CRS

from lgag_jax.geo import crs_relation
from lgag_jax.imagery import plain_crs
from lgag_jax.imagery.opening import ImageError
from lgag_jax.imagery.orientation import Raster

GEOD = pyproj.Geod(ellps="WGS84")


@dataclasses.dataclass(frozen=True)
class Grid:
  """The grid of pixels that a scene and its map share."""

  height: int
  width: int
  crs: CRS | None
  transform: Affine  # From (col, row) to coordinates; may rotate.
  unplaced: str = ""  # What it has for a place instead of a transform; then it has no CRS either.

  @classmethod
  def from_raster(cls, raster: Raster, path: pathlib.Path) -> "Grid":
    """Returns the grid of an open raster.

    Raises ImageError naming `path` if its CRS names files, or its transform cannot be turned round.
    """
    try:
      crs = plain_crs.plain(raster.crs)
    except ValueError as error:
      raise ImageError(
        f"{path} cannot be placed: {error}. Give it the right CRS: gdal_edit.py -a_srs."
      ) from error
    if not _is_sound(raster.transform):
      raise ImageError(
        f"{path} cannot be placed: its transform gives pixels without area. Correct it with "
        "gdal_edit.py -a_ullr, or remove it with -unsetgt."
      )
    return cls(raster.height, raster.width, crs, raster.transform)

  @property
  def georeferenced(self) -> bool:
    """Returns whether the grid has a CRS or at least a transform."""
    return self.crs is not None or not self.transform.is_identity

  @property
  def placed(self) -> bool:
    """Returns whether the transform gives a place, and not the numbers of pixels up or down.

    GIS programs write such transforms and world files for pictures without a place, also with a CRS.
    """
    a, b, c, d, e, f = tuple(self.transform)[:6]
    return not (a == abs(e) == 1 and b == c == d == 0 and abs(f) in (0, self.height))

  def to_wgs84(self) -> pyproj.Transformer | None:
    """Returns the transformer to (longitude, latitude); None without a CRS that lies on the Earth."""
    return crs_relation.transformer(self.crs, "EPSG:4326") if self.crs else None

  def gsd(self) -> float | None:
    """Returns the ground resolution at the centre in metres per pixel, the geometric mean of both axes.

    It is None if `pixel_size` is.
    """
    size = self.pixel_size()
    return math.sqrt(size[0] * size[1]) if size else None

  def pixel_size(self) -> tuple[float, float] | None:
    """Returns the length of a pixel at the centre in metres, along a row and along a column.

    Measures on the ellipsoid, which accounts for degrees, feet and a projection's distortion.
    Returns None if `to_wgs84` does, or if the centre has no valid longitude and latitude.
    """
    transformer = self.to_wgs84()
    if transformer is None:
      return None
    col, row = self.width / 2.0, self.height / 2.0
    points = [self.transform @ point for point in ((col, row), (col + 1, row), (col, row + 1))]
    columns, rows = zip(*points, strict=True)
    longitudes, latitudes = transformer.transform(columns, rows)
    if not all(map(math.isfinite, (*longitudes, *latitudes))):
      return None
    lengths = [GEOD.inv(longitudes[0], latitudes[0], longitudes[i], latitudes[i])[2] for i in (1, 2)]
    # They are NaN beyond a pole, where coordinates do not fit the CRS.
    return (lengths[0], lengths[1]) if lengths[0] * lengths[1] > 0 else None


def _is_sound(transform: Affine) -> bool:
  """Returns whether a transform and its inverse are finite numbers."""
  try:
    return all(map(math.isfinite, (*transform, *~transform)))
  except AffineError:
    return False

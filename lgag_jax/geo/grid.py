"""Where a raster's pixels lie: size, coordinate reference system, transform, ground resolution."""

import dataclasses
import math

import pyproj
import rasterio
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio.crs import CRS

GEOD = pyproj.Geod(ellps="WGS84")


@dataclasses.dataclass(frozen=True)
class Grid:
  """What a map has in common with the scene that it is of."""

  height: int
  width: int
  crs: CRS | None
  transform: Affine  # From (col, row) to coordinates, rotation and all.

  @classmethod
  def of(cls, raster: rasterio.DatasetReader) -> "Grid":
    """Returns an open raster's grid."""
    return cls(raster.height, raster.width, raster.crs, raster.transform)

  @property
  def georeferenced(self) -> bool:
    """Whether anything tells where it lies, if only a transform without a CRS."""
    return self.crs is not None or not self.transform.is_identity

  def to_wgs84(self) -> pyproj.Transformer | None:
    """Returns the transformer from its coordinates to (longitude, latitude).

    None without a CRS, or with one that does not tell where on the Earth it is.
    """
    if self.crs is None:
      return None
    try:
      return pyproj.Transformer.from_crs(self.crs.to_wkt(), "EPSG:4326", always_xy=True)
    except ProjError:
      return None

  def gsd(self) -> float | None:
    """Returns the ground resolution at the centre: metres a pixel, the geometric mean of both axes.

    Measured on the ellipsoid, so that degrees, feet and a projection's distortion all come out right;
    None where `to_wgs84` has none, or the centre lies nowhere.
    """
    transformer = self.to_wgs84()
    if transformer is None:
      return None
    col, row = self.width / 2.0, self.height / 2.0
    points = [self.transform @ point for point in ((col, row), (col + 1, row), (col, row + 1))]
    longitudes, latitudes = transformer.transform(*zip(*points, strict=True))
    if not all(map(math.isfinite, (*longitudes, *latitudes))):
      return None
    lengths = [
      GEOD.inv(longitudes[0], latitudes[0], longitudes[i], latitudes[i])[2] for i in (1, 2)
    ]
    return math.sqrt(lengths[0] * lengths[1])

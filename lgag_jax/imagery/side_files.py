"""Reads what lies beside an image: a mask (x.tif.msk) and GDAL's notes on it (x.tif.aux.xml).

GDAL itself opens no side file. A mask must be a TIFF of the image's size, which is opened with that
driver only. Notes are parsed here, within bounds: a CRS, a transform, and each band's nodata value.
Other files that they name are never opened.
"""

import dataclasses
import functools
import math
import os
import pathlib
import xml.etree.ElementTree as ET

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from lgag_jax.imagery import opening, orientation, plain_crs, reduction
from lgag_jax.imagery.opening import ImageError
from lgag_jax.imagery.orientation import Raster

_MAX_XML_BYTES = 8 << 20


@dataclasses.dataclass(frozen=True)
class Notes:
  """What an .aux.xml says of an image."""

  crs: CRS | None = None
  transform: Affine | None = None
  nodata: tuple[tuple[int, float], ...] = ()  # Pairs of a band, from 1, and its value.
  control_points: bool = False  # Whether it has ground control points, or a transform of ESRI's.
  # Of band 1. It changes how heights are read, not what an image shows.
  unit: str = dataclasses.field(default="", compare=False)


def beside(path: pathlib.Path | str, suffix: str) -> pathlib.Path | None:
  """Returns the side file whose name is the image's with a suffix added, if it exists."""
  name = f"{path}{suffix}"
  return pathlib.Path(name) if os.path.exists(name) else None  # False for names that are too long.


def read_notes(path: pathlib.Path) -> Notes:
  """Returns the notes in an image's .aux.xml, empty ones without it; raises ImageError naming it."""
  file = beside(path, ".aux.xml")
  if file is None:
    return Notes()
  opening.read_signature(file)  # Refuses pipes.
  status = file.stat()
  return _parse_notes(file, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _parse_notes(file: pathlib.Path, size: int, _: int) -> Notes:
  try:
    if size > _MAX_XML_BYTES:
      raise ValueError(f"it has {size >> 20} MiB, more than {_MAX_XML_BYTES >> 20} MiB")
    text = file.read_bytes().decode("utf-8-sig")
    if "<!DOCTYPE" in text:  # Entities can expand to any size or name files.
      raise ValueError("it declares a document type")
    root = ET.fromstring(text)
    crs, transform = root.findtext("SRS", "").strip(), root.findtext("GeoTransform", "").strip()
    bands = [(int(band.get("band", "1")), band) for band in root.findall("PAMRasterBand")]
    values = [(number, band.findtext("NoDataValue")) for number, band in bands]
    for number, band in bands:
      scale, offset = float(band.findtext("Scale", "1")), float(band.findtext("Offset", "0"))
      if (scale, offset) != (1.0, 0.0):
        opening.refuse_scale(file, number, scale, offset)
    control_points = root.find("GCPList") is not None or root.find(".//GeodataXform") is not None
    return Notes(
      plain_crs.parse(crs) if crs else None, _transform(transform) if transform else None,
      tuple((number, float(value)) for number, value in values if value), control_points,
      {number: band.findtext("UnitType", "") for number, band in bands}.get(1, ""),
    )
  except ImageError:
    raise
  except (OSError, TypeError, ValueError, SyntaxError) as error:
    raise ImageError(f"{file} is invalid: {error}. Restore or remove it.") from error


def _transform(text: str) -> Affine:
  transform = Affine.from_gdal(*map(float, text.split(",")))
  if not all(map(math.isfinite, transform)) or transform.determinant == 0:
    raise ValueError("its GeoTransform gives pixels without area")
  return transform


def valid_pixels(
  raster: Raster, window: Window | None, shape: tuple[int, int] | None
) -> np.ndarray | None:
  """Returns where an image's .msk is not zero, bool [H, W]; None without one; raises ImageError.

  With a smaller `shape`, a pixel is valid if all pixels that contribute to it are.
  """
  if raster.driver == "VRT" or (file := beside(raster.name, ".msk")) is None:
    return None
  with orientation.turned(opening.open_raster(file), orientation.of_raster(raster)) as mask:
    if mask.driver != "GTiff" or mask.shape != raster.shape or mask.count not in (1, raster.count):
      raise ImageError(
        f"{file} is a {mask.driver} of {mask.shape} with {mask.count} bands, not a TIFF mask of its "
        f"image, {raster.shape}: restore or remove it."
      )
    window = window or Window(0, 0, mask.width, mask.height)
    height, width = int(window.height), int(window.width)
    opening.check_size(mask, file, height * width * mask.count, opening.MAX_BYTES, "a window", (
      "read smaller windows"))

    def read(part: Window) -> np.ndarray:
      values = mask.read(window=part)
      return np.all((values < 0) | (values > 0), axis=0)  # NaN is neither.

    with opening.error_context(file):
      return reduction.all_valid(read, window, shape or (height, width))

"""The types of images' values: one map must not mix types that the network scales differently."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import rasterio

from lgag_jax.catalogues.images import Band
from lgag_jax.imagery.opening import ImageError
from lgag_jax.options.area import Imagery

Divisor = Callable[[np.dtype], float]  # Returns what the network divides values of a type by.

_SCALED = np.dtype(np.float32)
_AS_STORED = (1.0, 0.0)  # Scale and offset.


def undivided(dtype: np.dtype) -> float:
  """Returns the divisor of a network that does not look at types."""
  return 1.0


def scale_of(
  raster: rasterio.DatasetReader, band: Band, settings: Imagery
) -> tuple[float, float] | None:
  """Returns the scale and offset that a band's values need: the file's, or else the catalogue's.

  None if the values are read as they are stored. Raises ImageError if file and catalogue differ.
  """
  if settings.values == "raw":
    return None
  own = raster.scales[band.number - 1], raster.offsets[band.number - 1]
  said = 1.0 if band.scale is None else band.scale, band.offset or 0.0
  if own != _AS_STORED and (band.scale, band.offset) != (None, None) and not np.allclose(own, said):
    raise ImageError(
      f"{band.address} has the scale {own[0]:g} and the offset {own[1]:g}, but its catalogue says "
      f"{said[0]:g} and {said[1]:g}: correct one of them, or read values as they are stored with "
      "--values=raw."
    )
  scale = said if own == _AS_STORED else own
  return None if scale == _AS_STORED else scale


def apply_scale(values: np.ndarray, scale: tuple[float, float] | None) -> np.ndarray:
  """Returns values with a scale and offset as float32; without one, as they are."""
  return values if scale is None else (values * np.float64(scale[0]) + scale[1]).astype(_SCALED)


def is_scaled(raster: rasterio.DatasetReader, band: Band, settings: Imagery) -> bool | None:
  """Returns whether a scale makes a band's values; None for stored floats, which may be either."""
  if scale_of(raster, band, settings):
    return True
  return None if np.issubdtype(np.dtype(raster.dtypes[band.number - 1]), np.inexact) else False


def require_one_scale(scales: Iterable[tuple[str, Sequence[bool | None]]]) -> None:
  """Raises ImageError if a scale makes the values of a band in one image, and in another it does not.

  `scales` are images' names, with `is_scaled` of each band.
  """
  first: dict[tuple[int, bool], str] = {}
  for name, states in scales:
    for band, state in enumerate(states):
      if state is None:
        continue
      first.setdefault((band, state), name)
      if (band, not state) in first:
        raise ImageError(
          f"{first[band, True]} has a scale or an offset for band {band + 1} of the model, and "
          f"{first[band, False]} has none, so that one map would mix reflectances and stored numbers. "
          "Correct the catalogue, map them in two calls with two outputs (--collections, --dates), or "
          "read all values as they are stored: --values=raw."
        )


def nodata_of(raster: rasterio.DatasetReader, band: Band) -> float | None:
  """Returns the nodata value of a band: the catalogue's, or else the file's.

  One that the type of the band cannot hold, such as -9999 of bytes, is none: no pixel has it, and GDAL
  would read the band in another type.
  """
  dtype = np.dtype(raster.dtypes[band.number - 1])
  for value in (band.nodata, raster.nodatavals[band.number - 1]):
    if value is not None and _holds(dtype, value):
      return value
  return None


def _holds(dtype: np.dtype, value: float) -> bool:
  if np.issubdtype(dtype, np.inexact):
    return not math.isfinite(value) or abs(value) <= np.finfo(dtype).max
  limits = np.iinfo(dtype)
  return value == np.floor(value) and limits.min <= value <= limits.max


def type_as_read(raster: rasterio.DatasetReader, band: Band, settings: Imagery) -> np.dtype:
  """Returns the type of a band's values after its scale and offset."""
  is_scaled = scale_of(raster, band, settings) is not None
  return _SCALED if is_scaled else np.dtype(raster.dtypes[band.number - 1])


def require_one(types: Iterable[tuple[str, np.dtype]], divisor: Divisor) -> None:
  """Raises ImageError if values of different types, by name, are divided by different numbers."""
  types = list(types)
  for name, dtype in types[1:]:
    first, other = types[0]
    if divisor(dtype) == divisor(other):
      continue
    raise ImageError(
      f"{first} holds {other}, but {name} holds {dtype}, and one map must not mix them: the network "
      f"divides {other} by {divisor(other):g} and {dtype} by {divisor(dtype):g}. Map them in two calls "
      "with two outputs, or save them in one type and range of values: gdal_translate -ot Byte "
      "-scale 0 65535 0 255 in.tif out.tif."
    )

"""Reads images and masks, whole or in windows, as arrays."""

import functools
import pathlib

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.windows import Window

from lgag_jax.imagery import reduction, side_files
from lgag_jax.imagery.opening import ImageError, check_window, error_context, open_raster
from lgag_jax.imagery.orientation import Raster

UNKNOWN = 255  # In this package's masks: neither background nor a class.


def read_image(path: pathlib.Path, channels: int, window: Window | None = None) -> np.ndarray:
  """Reads an image as `read_pixels` does, [H, W, channels]; raises ImageError."""
  return read_pixels(path, channels, window)[0]


def read_pixels(
  path: pathlib.Path, channels: int, window: Window | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Returns an image [H, W, channels] in its own data type, and its valid mask, bool [H, W].

  Reads bands and palettes as `choose_bands` says. A pixel is invalid if the file says so, or if one of
  its values is not finite; `fill_invalid` gives it a value. Raises ImageError.
  """
  with open_raster(path) as raster:
    return read_raster(raster, path, channels, window)


def read_raster(
  raster: Raster, path: pathlib.Path, channels: int, window: Window | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Reads an open raster as `read_pixels` reads a file."""
  with error_context(path):
    bands, palette = choose_bands(raster, path, channels, (
      f"but data.channels={channels}: convert the file or change data.channels"))
    array = np.moveaxis(_read_bands(raster, path, bands, window), 0, -1)
    valid = valid_pixels(raster, bands, window)
  if palette is not None:
    array = palette[array[..., 0]]
  return fill_missing(array, valid)


def fill_missing(array: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Fills invalid pixels [H, W, C], maybe in place; returns them and the mask of valid, finite ones."""
  if np.issubdtype(array.dtype, np.inexact):
    valid = valid & np.isfinite(array).all(axis=-1)
  if not valid.all():
    fill_invalid(array, valid)
  return array, valid


def choose_bands(
  raster: Raster, path: pathlib.Path, channels: int, expected: str
) -> tuple[list[int], np.ndarray | None]:
  """Returns the numbers of the bands to read, and the colours u8[indices, 3] if they hold indices.

  Skips an alpha band beyond `channels`. Raises ImageError ending in `expected` if the numbers differ.
  """
  count = raster.count
  if count == channels + 1 and raster.colorinterp[-1] == ColorInterp.alpha:
    count -= 1
  if count == channels:
    return list(range(1, count + 1)), None
  if (count, channels) == (1, 3) and raster.colorinterp[0] == ColorInterp.palette:
    return [1], _palette(raster, path)
  raise ImageError(f"{path} has {raster.count} channels, {expected}.")


def _palette(raster, path):
  dtype = raster.dtypes[0]
  if dtype not in ("uint8", "uint16"):
    raise ImageError(f"{path} has a palette for {dtype}, which is unsupported: save its colours.")
  palette = np.zeros((np.iinfo(dtype).max + 1, 3), np.uint8)
  colours = raster.colormap(1)
  # GDAL takes one fully transparent colour for nodata, and any others for opaque ones.
  if any(colour[3] < 255 for index, colour in colours.items() if index != raster.nodata):
    raise ImageError(
      f"{path} has a palette with transparent colours, which lgag does not read: save it as RGB "
      "with an alpha band: gdal_translate -expand rgba in.png out.tif."
    )
  for index, colour in colours.items():
    if index < len(palette):
      palette[index] = colour[:3]
  return palette


def fill_invalid(array: np.ndarray, valid: np.ndarray) -> None:
  """Overwrites invalid pixels of [H, W, C] with each band's mean over valid ones, or zero if none is.

  Zeros would add false edges, and would shift the statistics that the network normalises by.
  """
  with np.errstate(over="ignore"):  # The largest doubles overflow in sums.
    total = np.sum(array, axis=(0, 1), where=valid[..., None], dtype=np.float64)
  mean = total / max(np.count_nonzero(valid), 1)
  if np.issubdtype(array.dtype, np.integer):
    mean = np.rint(mean)
  mean = np.where(np.isfinite(mean), mean, 0.0).astype(array.dtype)
  np.copyto(array, mean, where=~valid[..., None])  # Indexing would need more memory than the array.


def read_mask(
  raster: Raster, *, classes: int, ignore: int, threshold: int = 0,
  window: Window | None = None,
) -> np.ndarray:
  """Reads a mask as uint8 [H, W]: 0 is background, k is class k, `ignore` becomes UNKNOWN.

  So do a declared nodata value except zero, and what a mask of the mask excludes. With one class, every
  other value except zero is that class, or with a `threshold` every larger value; `mask_values` chooses
  both. With several, values are class indices. Raises ImageError.
  """
  values = _read_bands(raster, raster.name, [1], window)[0]
  unknown = values == ignore
  for value in mask_nodata(raster):
    unknown |= values == value
  if (labelled := labelled_pixels(raster, window)) is not None:
    unknown |= ~labelled
  if np.issubdtype(values.dtype, np.inexact):
    unknown |= ~np.isfinite(values)
  if classes == 1:
    mask = values > threshold if threshold else values != 0
    mask = mask.view(np.uint8)  # No copy: scenes are large.
  else:
    invalid = values[~unknown & ((values > classes) | (values < 0))]
    if invalid.size:
      raise ImageError(
        f"{raster.name} holds class {invalid.flat[0]}, but data.classes names {classes}: set "
        "data.mask_ignore if it means unknown."
      )
    if values.dtype.kind == "f" and (between := values[~unknown & (values != np.rint(values))]).size:
      raise ImageError(
        f"{raster.name} holds {between[0]:g} between classes, as averages of classes are: resample "
        "masks by their nearest value (gdalwarp -r near)."
      )
    mask = np.where(unknown, 0, values).astype(np.uint8)
  mask[unknown] = UNKNOWN
  return mask


def mask_nodata(raster: Raster) -> list[float]:
  """Returns the nodata values of a mask's first band, by its file and the notes beside it, except 0."""
  declared = dict(side_files.read_notes(pathlib.Path(raster.name)).nodata).get(1)
  return [value for value in (raster.nodata, declared) if value]


def labelled_pixels(raster: Raster, window: Window | None = None) -> np.ndarray | None:
  """Returns where the mask inside or beside a mask's file is not zero; None if it has none."""
  labelled = side_files.valid_pixels(raster, window, None)
  flags = raster.mask_flag_enums[0]
  if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
    own = raster.read_masks(1, window=window) > 0
    labelled = own if labelled is None else labelled & own
  return labelled


def read_valid_mask(raster: Raster, window: Window | None = None) -> np.ndarray:
  """Returns where all bands of an image except alpha are valid, bool [H, W]; see `valid_pixels`."""
  # The masks of the bands take one byte per pixel and band.
  check_window(raster, raster.name, raster.count, window)
  with error_context(raster.name):
    bands = [i for i, kind in enumerate(raster.colorinterp, 1) if kind != ColorInterp.alpha]
    valid = valid_pixels(raster, bands, window)
    for band in bands:
      if np.issubdtype(raster.dtypes[band - 1], np.inexact):
        valid &= np.isfinite(raster.read(band, window=window))
    return valid


def valid_pixels(
  raster: Raster, bands: list[int], window: Window | None = None,
  shape: tuple[int, int] | None = None,
) -> np.ndarray:
  """Returns where all `bands` are valid by masks, alpha and nodata values, bool [H, W].

  A pixel must be valid by each of them; GDAL uses only the first that a file has. An alpha band among
  `bands` is data. With a smaller `shape`, GDAL leaves pixels that it knows as missing out of averages:
  there a pixel is valid if any valid pixel contributes to it. By all else, all of them must be valid.
  """
  height, width = (window.height, window.width) if window else (raster.height, raster.width)
  # The average of a mask of 0 and 255 is the valid fraction, to within 1/510.
  options = {"window": window, "out_shape": shape, "resampling": Resampling.average}
  valid = np.ones(shape or (height, width), bool)
  if (beside := side_files.valid_pixels(raster, window, shape)) is not None:
    valid &= beside
  path = pathlib.Path(raster.name)
  declared = {} if raster.driver == "VRT" else dict(side_files.read_notes(path).nodata)
  alphas = [i for i, kind in enumerate(raster.colorinterp, 1) if kind == ColorInterp.alpha]
  shared_mask_read = False  # One mask for all bands is read once.
  missing: list[tuple[int, float]] = []  # Bands, and values that GDAL does not take for missing data.
  for band in bands:
    flags = raster.mask_flag_enums[band - 1]
    is_alpha, is_shared = MaskFlags.alpha in flags, MaskFlags.per_dataset in flags
    if MaskFlags.all_valid not in flags and not is_alpha and not (is_shared and shared_mask_read):
      valid &= raster.read_masks(band, **options) > 0
      shared_mask_read |= is_shared
    own, other = raster.nodatavals[band - 1], declared.get(band)
    missing += [(band, value) for value in (own, other) if value is not None and not (
      MaskFlags.nodata in flags and value == own)]
  transparent = set(alphas) - set(bands)
  if all(MaskFlags.alpha in raster.mask_flag_enums[band - 1] for band in bands):
    for band in transparent:
      valid &= raster.read(band, **options) > 0
  else:
    missing += [(band, 0.0) for band in transparent]
  if missing:
    valid &= reduction.all_valid(
      lambda part: _without(raster, missing, part), window or Window(0, 0, width, height), valid.shape
    )
  return valid


def _without(raster: Raster, missing: list[tuple[int, float]], window: Window) -> np.ndarray:
  """Returns where none of the bands has its value of missing data, bool [H, W]."""
  valid = np.ones((int(window.height), int(window.width)), bool)
  for band, value in missing:
    values = raster.read(band, window=window)
    valid &= ~(np.isnan(values) if np.isnan(value) else values == value)
  return valid


@functools.lru_cache(maxsize=1 << 16)
def image_size(path: pathlib.Path) -> tuple[int, int]:
  """Returns (height, width) of an image without decoding it."""
  with open_raster(path) as raster:
    return raster.height, raster.width


def _read_bands(raster, path, bands, window):
  check_window(raster, path, len(bands), window)
  with error_context(path):
    return raster.read(bands, window=window)


def mask_without_file(label: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Returns a mask of background for an image without a class, otherwise of UNKNOWN."""
  return np.full(shape, UNKNOWN if label.max() > 0 else 0, np.uint8)


def check_same_size(path: pathlib.Path | str, mask_shape: tuple, image_shape: tuple) -> None:
  """Raises ImageError if a mask and its image differ in size."""
  if mask_shape != image_shape:
    hint = " If one of them is turned by its orientation tag, turn the other too."
    raise ImageError(
      f"{path} is {mask_shape}, its image {image_shape}: save both in the same size."
      f"{hint if mask_shape == image_shape[::-1] else ''}"
    )

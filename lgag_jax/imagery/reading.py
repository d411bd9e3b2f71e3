"""Reads images and masks, whole or a window, as arrays; lists folders and tables of them."""

import contextlib
import csv
import functools
import pathlib

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.windows import Window

from lgag_jax.imagery.opening import SUFFIXES, ImageError, check_window, naming, open_raster

UNKNOWN = 255  # In masks as this package hands them on: neither background nor a class.
_MAX_TABLE_BYTES = 1 << 28


def read_image(path: pathlib.Path, channels: int, window: Window | None = None) -> np.ndarray:
  """Reads an image as `read_pixels` does, [H, W, channels]; raises ImageError."""
  return read_pixels(path, channels, window)[0]


def read_pixels(
  path: pathlib.Path, channels: int, window: Window | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Reads an image [H, W, channels] in its own data type, and where it holds data, bool [H, W].

  Bands and palettes are as in `choose_bands`. Pixels without data, by what the file says or since a
  band's value is no finite number, are as `fill` makes them. Raises ImageError.
  """
  with open_raster(path) as raster:
    return read_raster(raster, path, channels, window)


def read_raster(
  raster: rasterio.DatasetReader, path: pathlib.Path, channels: int, window: Window | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Reads an open raster as `read_pixels` does a file."""
  with naming(path):
    bands, palette = choose_bands(raster, path, channels, (
      f"data.channels={channels} expects {channels}: convert the file or change data.channels"))
    array = np.moveaxis(_read(raster, path, bands, window), 0, -1)
    valid = valid_pixels(raster, bands, window)
  if palette is not None:
    array = palette[array[..., 0]]
  return filled(array, valid)


def filled(array: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns pixels [H, W, C], which may be changed, and their `valid`, less what is not finite."""
  if np.issubdtype(array.dtype, np.inexact):
    valid = valid & np.isfinite(array).all(axis=-1)
  if not valid.all():
    fill(array, valid)
  return array, valid


def choose_bands(
  raster: rasterio.DatasetReader, path: pathlib.Path, channels: int, expected: str
) -> tuple[list[int], np.ndarray | None]:
  """Returns the bands to read, and the colours u8[indices, 3] where they are a palette's indices.

  An alpha band beyond `channels` is left out. Raises ImageError with `expected` when bands do not fit.
  """
  bands = raster.count
  if bands == channels + 1 and raster.colorinterp[-1] == ColorInterp.alpha:
    bands -= 1
  if bands == channels:
    return list(range(1, bands + 1)), None
  if (bands, channels) == (1, 3) and raster.colorinterp[0] == ColorInterp.palette:
    return [1], _palette(raster, path)
  raise ImageError(f"{path} has {raster.count} channels, {expected}.")


def _palette(raster, path):
  indices = raster.dtypes[0]
  if indices not in ("uint8", "uint16"):
    raise ImageError(f"{path} has a palette for {indices}, which cannot be indices: save its colours.")
  palette = np.zeros((np.iinfo(indices).max + 1, 3), np.uint8)
  for index, colour in raster.colormap(1).items():
    if index < len(palette):
      palette[index] = colour[:3]
  return palette


def fill(array: np.ndarray, valid: np.ndarray) -> None:
  """Writes over pixels [H, W, C] that are not `valid`: each band's mean of those that are, or zero.

  A false black would be an edge to a network's filters, and would shift what it normalises by.
  """
  with np.errstate(over="ignore"):  # Sums of the largest doubles.
    total = np.sum(array, axis=(0, 1), where=valid[..., None], dtype=np.float64)
  mean = total / max(np.count_nonzero(valid), 1)
  if np.issubdtype(array.dtype, np.integer):
    mean = np.rint(mean)
  mean = np.where(np.isfinite(mean), mean, 0.0).astype(array.dtype)
  np.copyto(array, mean, where=~valid[..., None])  # Indices would take more than the array.


def read_mask(
  raster: rasterio.DatasetReader, *, classes: int, ignore: int, window: Window | None = None
) -> np.ndarray:
  """Reads a mask as uint8 [H, W]: 0 background, k class k, UNKNOWN where it equals `ignore`.

  With one class every other value but zero is that class, so 0/1 and 0/255 masks both do; with
  several, values are class indices. Raises ImageError.
  """
  values = _read(raster, raster.name, [1], window)[0]
  unknown = values == ignore
  if np.issubdtype(values.dtype, np.inexact):
    unknown |= ~np.isfinite(values)
  if classes == 1:
    mask = (values != 0).view(np.uint8)  # No copy: scenes are large.
  else:
    strange = values[~unknown & ((values > classes) | (values < 0))]
    if strange.size:
      raise ImageError(
        f"{raster.name} holds class {strange.flat[0]}, but data.classes names {classes}: set "
        "data.mask_ignore if it means unknown."
      )
    mask = np.where(unknown, 0, values).astype(np.uint8)
  mask[unknown] = UNKNOWN
  return mask


def read_valid(raster: rasterio.DatasetReader, window: Window | None = None) -> np.ndarray:
  """Reads where all of an image's bands hold data, bool [H, W]; see `valid_pixels`."""
  # One byte a pixel and band, which are the masks that it is joined from.
  check_window(raster, raster.name, raster.count, window)
  with naming(raster.name):
    colours = zip(range(1, raster.count + 1), raster.colorinterp, strict=True)
    bands = [i for i, kind in colours if kind != ColorInterp.alpha]
    valid = valid_pixels(raster, bands, window)
    for band in bands:
      if np.issubdtype(raster.dtypes[band - 1], np.inexact):
        valid &= np.isfinite(raster.read(band, window=window))
    return valid


def valid_pixels(
  raster: rasterio.DatasetReader, bands: list[int], window: Window | None = None,
  shape: tuple[int, int] | None = None,
) -> np.ndarray:
  """Reads where all `bands` hold data, bool [H, W]: internal masks, alpha, and nodata values.

  All that a file has count together, where GDAL takes the first alone. An alpha band that is among
  `bands` is data. With a smaller `shape`, a pixel is valid that any valid one contributed to.
  """
  height, width = (window.height, window.width) if window else (raster.height, raster.width)
  # Average: the mean of a mask of 0 and 255 tells the share that is valid, to a 510th.
  how = {"window": window, "out_shape": shape, "resampling": Resampling.average}
  valid = np.ones(shape or (height, width), bool)
  alphas = [i for i, kind in enumerate(raster.colorinterp, 1) if kind == ColorInterp.alpha]
  shared = False  # A mask of all bands needs to be read once.
  for band in bands:
    flags = raster.mask_flag_enums[band - 1]
    of_alpha, of_all = MaskFlags.alpha in flags, MaskFlags.per_dataset in flags
    if MaskFlags.all_valid not in flags and not of_alpha and not (of_all and shared):
      valid &= raster.read_masks(band, **how) > 0
      shared |= of_all
    nodata = raster.nodatavals[band - 1]
    if nodata is not None and MaskFlags.nodata not in flags:
      values = raster.read(band, **how)
      valid &= ~(np.isnan(values) if np.isnan(nodata) else values == nodata)
  for band in set(alphas) - set(bands):
    valid &= raster.read(band, **how) > 0
  return valid


@functools.lru_cache(maxsize=1 << 16)
def size(path: pathlib.Path) -> tuple[int, int]:
  """Returns an image's height and width without decoding it."""
  with open_raster(path) as raster:
    return raster.height, raster.width


def _read(raster, path, bands, window):
  check_window(raster, path, len(bands), window)
  with naming(path):
    return raster.read(bands, window=window)


def image_files(directory: pathlib.Path) -> list[pathlib.Path]:
  """Lists a folder's images by name; raises FileNotFoundError naming a missing folder."""
  if not directory.is_dir():
    raise FileNotFoundError(f"The folder {directory} is missing.")
  return sorted(p for p in directory.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".")


def read_table(path: pathlib.Path, required: tuple[str, ...]) -> list[dict[str, str]]:
  """Reads a CSV with a header; raises ValueError naming the file and what is wrong with it."""
  if (size := path.stat().st_size) > _MAX_TABLE_BYTES:
    raise ValueError(f"{path} has {size >> 20} MiB, a table at most {_MAX_TABLE_BYTES >> 20}: cut it.")
  try:
    with path.open(newline="", encoding="utf-8-sig") as file:
      reader = csv.DictReader(file)
      rows, names = list(reader), reader.fieldnames or ()
  except (csv.Error, UnicodeDecodeError) as error:
    raise ValueError(f"{path} is no table in UTF-8 with commas: {error}. Save it as one.") from error
  missing = [name for name in required if name not in names]
  if missing:
    raise ValueError(f"{path} lacks the column {missing[0]}: its header must name it.")
  return rows


def mask_without_file(label: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """An image of no class is background throughout; of any other nothing is known."""
  return np.full(shape, UNKNOWN if label.max() > 0 else 0, np.uint8)


def check_same_size(path: pathlib.Path, mask_shape: tuple, image_shape: tuple) -> None:
  """Raises ImageError when a mask and its image differ in size."""
  if mask_shape != image_shape:
    raise ImageError(f"{path} is {mask_shape}, its image {image_shape}: sizes must agree.")


def by_stem(directory: pathlib.Path) -> dict[str, pathlib.Path]:
  """Maps names without suffix to a folder's images, {} without one; raises on a name held twice."""
  found: dict[str, pathlib.Path] = {}
  for path in image_files(directory) if directory.is_dir() else []:
    if path.stem in found:
      raise ValueError(f"{path} and {found[path.stem].name} share a name: keep one.")
    found[path.stem] = path
  return found


def file_key(path: pathlib.Path) -> str:
  """Tells a file from any other, and from what it was before it changed."""
  with contextlib.suppress(OSError):
    status = path.stat()
    return f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"
  return f"{path.absolute()} cannot be read"

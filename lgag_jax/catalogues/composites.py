"""Reads the images of a block on the block's grid, and makes one image of them."""

import functools
import math
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from lgag_jax.catalogues import image_lists, missing_pixels, open_image, value_types
from lgag_jax.catalogues.images import Band, CloudMask, Image
from lgag_jax.catalogues.value_types import Divisor
from lgag_jax.geo import crs_relation
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.windows import parts_below
from lgag_jax.imagery import cloud_kinds, opening
from lgag_jax.imagery.opening import ImageError
from lgag_jax.options.area import Imagery

_REMEDY = "Restore it, or leave it out."
_COARSER = 1.5  # Above this ratio of resolutions, a pixel is the average of the file's pixels.
_WARP_BYTES = 64 << 20  # Of a file's pixels that are resampled at once.
_MEDIAN_BYTES = 256 << 20  # Of all images together, for a median.


def read_composite(
  images: Sequence[Image], grid: Grid, channels: int, settings: Imagery,
  divisor: Divisor = value_types.undivided, scales: list[tuple[str, list[bool | None]]] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns pixels [H, W, channels] and where any image is valid, bool[H, W], on `grid`.

  `images` are in the order of `images.in_order`. Invalid pixels are zero. `divisor` is what the network
  divides values of a type by. Raises ImageError naming an image that cannot be read, or two images
  with values that it divides by different numbers, or of which one alone has a scale. `scales` are
  those of the other date, as `value_types.require_one_scale` takes them, and are added to.
  """
  scales = [] if scales is None else scales
  if settings.composite == "median" and len(images) > 1:
    return _median(images, grid, channels, settings, divisor, scales)
  pixels, valid = None, np.zeros((grid.height, grid.width), bool)
  read, types = lambda image: _read_image(image, grid, settings, divisor), []
  with ThreadPoolExecutor(settings.readers) as pool:
    # Only as many ahead as there are readers: the first ones may already fill the block.
    for start in range(0, len(images), settings.readers):
      if valid.all():
        break
      batch = images[start : start + settings.readers]
      for image, (values, inside, scaled) in zip(batch, pool.map(read, batch), strict=True):
        new = inside & ~valid
        if not new.any():
          continue
        types.append((image.label, values.dtype))
        scales.append((image.label, scaled))
        value_types.require_one(types, divisor)
        value_types.require_one_scale(scales)
        dtype = values.dtype if pixels is None else np.result_type(pixels.dtype, values.dtype)
        if pixels is None:
          pixels = np.zeros((grid.height, grid.width, channels), dtype)
        pixels = pixels.astype(dtype, copy=False)
        pixels[new] = values[new]
        valid |= new
  if pixels is None:
    pixels = np.zeros((grid.height, grid.width, channels), np.uint8)
  return pixels, valid


def _median(
  images: Sequence[Image], grid: Grid, channels: int, settings: Imagery, divisor: Divisor, scales: list
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the median of each band over the valid images, read in strips of rows."""
  rows = max(1, _MEDIAN_BYTES // (len(images) * grid.width * channels * 4))
  parts, types = [], []
  for top in range(0, grid.height, rows):
    strip = Grid(
      min(rows, grid.height - top), grid.width, grid.crs,
      grid.transform @ Affine.translation(0, top),
    )
    with ThreadPoolExecutor(settings.readers) as pool:
      read = lambda image, strip=strip: _read_image(image, strip, settings, divisor)
      layers = list(pool.map(read, images))
    for image, (values, inside, scaled) in zip(images, layers, strict=True):
      if inside.any():
        types.append((image.label, values.dtype))
        scales.append((image.label, scaled))
    value_types.require_one(types, divisor)
    value_types.require_one_scale(scales)
    dtype = np.result_type(*({dtype for _, dtype in types} or {np.dtype(np.uint8)}))
    stack = np.ma.stack([
      np.ma.array(values, np.float32, mask=np.repeat(~inside[..., None], channels, axis=-1))
      for values, inside, _ in layers
    ])
    median = np.ma.median(stack, axis=0)
    values = np.ma.filled(median, 0)
    if np.issubdtype(dtype, np.integer):
      values = np.round(values)
    parts.append((values.astype(dtype), np.any([inside for _, inside, _ in layers], axis=0)))
  pixels, valid = zip(*parts, strict=True)
  return np.concatenate(pixels), np.concatenate(valid)


def read_image(
  image: Image, grid: Grid, settings: Imagery, divisor: Divisor = value_types.undivided
) -> tuple[np.ndarray, np.ndarray]:
  """Returns an image's pixels [H, W, channels] on a grid and where they are valid, bool[H, W]."""
  return _read_image(image, grid, settings, divisor)[:2]


def _read_image(
  image: Image, grid: Grid, settings: Imagery, divisor: Divisor
) -> tuple[np.ndarray, np.ndarray, list[bool | None]]:
  """Returns what `read_image` does, and `value_types.is_scaled` of each band."""
  by_file: dict[str, list[int]] = {}
  for position, band in enumerate(image.bands):
    by_file.setdefault(band.address, []).append(position)
  layers, scaled, valid = {}, {}, np.ones((grid.height, grid.width), bool)
  for address, positions in by_file.items():
    bands = [image.bands[position] for position in positions]
    read = functools.partial(_read_file, address, bands, grid, settings, image)
    values, inside, also_scaled = open_image.repeated(read, address, settings)
    layers |= dict(zip(positions, values, strict=True))
    scaled |= dict(zip(positions, also_scaled, strict=True))
    valid &= inside
  value_types.require_one(
    ((f"{image.label}, band {position + 1} of the model", layers[position].dtype)
     for position in range(len(image.bands))), divisor,
  )
  if image.clouds and valid.any():
    read = functools.partial(_read_clouds, image.clouds, grid, settings)
    valid &= ~open_image.repeated(read, image.clouds.address, settings)
  pixels, states = ([part[i] for i in range(len(image.bands))] for part in (layers, scaled))
  return np.stack(pixels, axis=-1), valid, states


def _read_file(
  address: str, bands: list[Band], grid: Grid, settings: Imagery, image: Image
) -> tuple[list[np.ndarray], np.ndarray, list[bool | None]]:
  """Returns the values [H, W] of a file's bands on a grid, where all are valid, and `is_scaled`."""
  with open_image.open_image(address, settings) as raster, opening.error_context(address, _REMEDY):
    if missing := [band.number for band in bands if not 1 <= band.number <= raster.count]:
      raise ImageError(f"{address} has {raster.count} bands, and band {missing[0]} was asked for.")
    valid, groups = np.ones((grid.height, grid.width), bool), {}
    for band in bands:
      groups.setdefault(value_types.nodata_of(raster, band), []).append(band)
    read: dict[Band, np.ndarray] = {}
    for nodata, members in groups.items():
      values, inside = _warp(raster, address, [band.number for band in members], nodata, grid)
      valid &= inside
      for layer, band in zip(values, members, strict=True):
        # GDAL warps signed bytes as int16, whose range is another one.
        layer = layer.astype(raster.dtypes[band.number - 1], copy=False)
        read[band] = value_types.apply_scale(layer, value_types.scale_of(raster, band, settings))
    scaled = [value_types.is_scaled(raster, band, settings) for band in bands]
    # Blocks are chosen by the outlines of a catalogue, so that another one would hide an image.
    if not valid.any() and image_lists.footprint_of(raster, address).disjoint(image.footprint):
      raise ImageError(
        f"{address} does not lie where {image.label} says: its outline is elsewhere. Correct the "
        "geometry of the item; each of its points is longitude, latitude."
      )
  layers = [read[band] for band in bands]
  for layer in layers:
    if np.issubdtype(layer.dtype, np.inexact):
      valid &= np.isfinite(layer)
  return layers, valid, scaled


def _read_clouds(clouds: CloudMask, grid: Grid, settings: Imagery) -> np.ndarray:
  """Returns where clouds hide a grid, bool[H, W], or may do so: at nodata and outside the file."""
  address = clouds.address
  with open_image.open_image(address, settings) as raster, opening.error_context(address, _REMEDY):
    cloud_kinds.require_one_band(raster, address)
    nodata = value_types.nodata_of(raster, Band(address))
    pixels, inside = _warp(raster, address, [1], nodata, grid, Resampling.nearest)
  values = cloud_kinds.whole_values(pixels[0], inside, address)
  if not settings.cloud_classes:
    cloud_kinds.check_values(values, clouds.kind, address)
    return cloud_kinds.hidden(values, clouds.kind)
  hidden = np.isin(values, (*settings.cloud_classes, cloud_kinds.UNKNOWN))
  if nodata == 0 and not clouds.kind and hidden.all():
    raise ImageError(
      f"{address} declares 0 as nodata, and holds nothing else than --cloud_classes beside it: clear "
      "ground would count as nodata. If 0 means clear: gdal_edit.py -unsetnodata."
    )
  return hidden


def _warp(
  raster: rasterio.DatasetReader, address: str, bands: list[int], nodata: float | None, grid: Grid,
  resampling: Resampling | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns bands [n, H, W] on a grid, and where they are valid, bool[H, W].

  Of finer files a pixel is the average, of others an interpolation: on the file's own grid, its value.
  """
  source = Grid.from_raster(raster, pathlib.Path(address))
  if source.crs is None:
    raise ImageError(f"{address} has no CRS, so it has no place in an area. Give it one: gdal_edit.py.")
  opening.check_window(raster, address, len(bands), Window(0, 0, grid.width, grid.height))
  if resampling is None:
    ratio = (grid.gsd() or 1.0) / (source.gsd() or grid.gsd() or 1.0)
    resampling = Resampling.average if ratio > _COARSER else Resampling.bilinear
  to_file = crs_relation.needed_transformer(grid.crs, source.crs)
  most = _WARP_BYTES // sum(np.dtype(raster.dtypes[band - 1]).itemsize for band in bands)
  shape, values = (grid.height, grid.width), None
  valid = np.zeros(shape, bool)
  has_other_ways = missing_pixels.has_other_ways(raster, bands, nodata)
  for rows, cols, below in parts_below(address, grid.transform, shape, to_file, source, most):
    corner = grid.transform @ Affine.translation(cols.start, rows.start)
    part = Grid(rows.stop - rows.start, cols.stop - cols.start, grid.crs, corner)
    some, valid[rows, cols] = _warp_part(raster, source, bands, nodata, part, resampling)
    if values is None:
      values = np.zeros((len(bands), *shape), some.dtype)
    values[:, rows, cols] = some
    if has_other_ways:
      valid[rows, cols] &= ~missing_pixels.resampled(
        raster, bands, nodata, below, source.crs, part, resampling
      )
  assert values is not None
  return values, valid


def _warp_part(
  raster: rasterio.DatasetReader, source: Grid, bands: list[int], nodata: float | None, grid: Grid,
  resampling: Resampling,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns what `_warp` does. GDAL holds all pixels of the file below `grid` in memory."""
  has_alpha = ColorInterp.alpha in raster.colorinterp
  options = {
    "crs": grid.crs, "transform": grid.transform, "height": grid.height, "width": grid.width,
    "resampling": resampling, "warp_mem_limit": 64,
  }
  if source.crs != raster.crs:  # Heights that name files are left out.
    options["src_crs"] = source.crs
  if nodata is None:
    options["add_alpha"] = not has_alpha
  else:
    options |= {"nodata": nodata, "src_nodata": nodata}
  with WarpedVRT(raster, **options) as warped:
    values = warped.read(bands)
    if nodata is None:
      alpha = raster.colorinterp.index(ColorInterp.alpha) + 1 if has_alpha else warped.count
      return values, warped.read(alpha) > 0
    missing = np.isnan(values) if math.isnan(nodata) else values == nodata
    return values, ~missing.any(axis=0)


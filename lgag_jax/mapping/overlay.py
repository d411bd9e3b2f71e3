"""Paints a map over its scene, and shows the scene's dates without it."""

import pathlib

import numpy as np
from PIL import Image, ImageColor
from rasterio.windows import Window

from lgag_jax.config import Config
from lgag_jax.geo.companions import SceneFiles
from lgag_jax.geo.pair import Pair
from lgag_jax.geo.scene import Scene
from lgag_jax.imagery import scaling
from lgag_jax.mapping import qgis_style
from lgag_jax.mapping.rasters import NO_DATA, MapRaster
from lgag_jax.options.mapping import Options

MAX_SIDE = 2048
DATE_SIDE = 1080  # Of pictures without the map, which only the page shows.
QUALITY = 85  # Of these, as JPEG.
_ROWS_AT_ONCE = 512  # Of a pair: resampling takes several times the memory of its pixels.
_CLASS_COLOURS = np.array([ImageColor.getrgb(colour) for colour in qgis_style.COLOURS], np.float32)


def mask_colours(classes: int) -> dict[int, tuple[int, int, int]]:
  """Returns the colour of each value of a mask."""
  shown = _CLASS_COLOURS.astype(int)[np.arange(classes) % len(_CLASS_COLOURS)].tolist()
  class_colours = {c: tuple(colour) for c, colour in enumerate(shown, 1)}
  return {0: (30, 30, 30), **class_colours, NO_DATA: (255, 255, 255)}


def file_names(stem: str, dates: int) -> list[str]:
  """Returns the files of `pictures` below an output."""
  return [f"overlay/{stem}.png", f"image/{stem}.jpg", f"image_before/{stem}.jpg"][: 1 + dates]


def overlay_image(
  path: pathlib.Path, mask: MapRaster, config: Config, options: Options,
  colours: np.ndarray = _CLASS_COLOURS,
) -> Image.Image:
  """Returns a scene, at most 2048 pixels on a side, with the classes of `mask` tinted and outlined."""
  (pixels,) = _read_dates(SceneFiles(path), config, options)
  classes = mask.read(1, shape=pixels.shape[:2])
  return _paint(scaling.picture(pixels, config.model.rgb_bands, classes != NO_DATA), classes, colours)


def pictures(
  source: SceneFiles, mask: MapRaster, config: Config, options: Options
) -> list[Image.Image]:
  """Returns a scene with the classes of `mask`, the scene alone, and its image before if it has one.

  The first is what `overlay_image` returns. The others are at most 1080 pixels on a side.
  """
  dates = _read_dates(source, config, options)
  classes = mask.read(1, shape=dates[0].shape[:2])
  valid = classes != NO_DATA
  shown = [scaling.picture(pixels, config.model.rgb_bands, valid) for pixels in dates]
  alone = [Image.fromarray(np.where(valid[..., None], image, np.uint8(255))) for image in shown]
  for image in alone:
    image.thumbnail((DATE_SIDE, DATE_SIDE))
  return [_paint(shown[0], classes, _CLASS_COLOURS), *alone]


def _read_dates(source: SceneFiles, config: Config, options: Options) -> list[np.ndarray]:
  """Returns the pixels [h, w, channels] of each date, the one after first, at most 2048 on a side."""
  with source.open(
    config.data.channels, bands=options.bands, max_shift=options.max_shift
  ) as scene:
    height, width = scene.grid.height, scene.grid.width
    reduction = max(1, -(-max(height, width) // MAX_SIDE))
    shape = (-(-height // reduction), -(-width // reduction))
    if isinstance(scene, Pair):
      return np.split(_read_strips(scene, shape, reduction), 2, axis=-1)
    window = Window(0, 0, width, height)
    return [scene.read(window, out_shape=shape if reduction > 1 else None)[0]]


def _read_strips(scene: Scene | Pair, shape: tuple[int, int], reduction: int) -> np.ndarray:
  """Returns a whole scene, reduced to `shape`; reads some rows at a time."""
  rows = max(1, _ROWS_AT_ONCE // reduction)
  strips = []
  for top in range(0, shape[0], rows):
    count = min(rows, shape[0] - top)
    window = Window(0, top * reduction, shape[1] * reduction, count * reduction)
    strips.append(scene.read(window, out_shape=(count, shape[1]) if reduction > 1 else None)[0])
  return np.concatenate(strips)


def _paint(image: np.ndarray, mask: np.ndarray, colours: np.ndarray) -> Image.Image:
  """Returns u8[h, w, 3], each class tinted and outlined in `colours`, f32[n, 3], nodata in white."""
  inside = (mask > 0) & (mask != NO_DATA)
  colour = colours[(np.maximum(mask, 1) - 1) % len(colours)]
  interior = np.ones(mask.shape, bool)
  for axis in (0, 1):
    for shift in (1, -1):
      interior &= np.roll(mask, shift, axis) == mask
  image = np.where(inside[..., None], 0.65 * image.astype(np.float32) + 0.35 * colour, image)
  image = np.where((inside & ~interior)[..., None], colour, image)
  image = np.where((mask == NO_DATA)[..., None], 255.0, image)
  return Image.fromarray(np.uint8(image))

"""Paints a map over its scene."""

import pathlib

import numpy as np
from PIL import Image, ImageColor
from rasterio.windows import Window

from lgag_jax.config import Config
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import scaling
from lgag_jax.mapping import qgis_style
from lgag_jax.mapping.rasters import NO_DATA, MapRaster
from lgag_jax.options.mapping import Options

MAX_SIDE = 2048
_CLASS_COLOURS = np.array([ImageColor.getrgb(colour) for colour in qgis_style.COLOURS], np.float32)


def mask_colours(classes: int) -> dict[int, tuple[int, int, int]]:
  """Returns the colour of each value of a mask."""
  shown = _CLASS_COLOURS.astype(int)[np.arange(classes) % len(_CLASS_COLOURS)].tolist()
  class_colours = {c: tuple(colour) for c, colour in enumerate(shown, 1)}
  return {0: (30, 30, 30), **class_colours, NO_DATA: (255, 255, 255)}


def overlay_image(
  path: pathlib.Path, mask: MapRaster, config: Config, options: Options,
  colours: np.ndarray = _CLASS_COLOURS,
) -> Image.Image:
  """Returns a scene, at most 2048 pixels on a side, with the classes of `mask` tinted and outlined."""
  with open_scene(path, config.data.channels, bands=options.bands) as scene:
    height, width = scene.grid.height, scene.grid.width
    reduction = max(1, -(-max(height, width) // MAX_SIDE))
    shape = (-(-height // reduction), -(-width // reduction))
    window = Window(0, 0, width, height)
    pixels, _ = scene.read(window, out_shape=shape if reduction > 1 else None)
  return _paint(pixels, mask.read(1, shape=shape), config, colours)


def _paint(pixels: np.ndarray, mask: np.ndarray, config: Config, colours: np.ndarray) -> Image.Image:
  """Returns an image with each class tinted and outlined in `colours`, f32[n, 3], no data in white."""
  image = scaling.picture(pixels, config.model.rgb_bands, mask != NO_DATA).astype(np.float32)
  inside = (mask > 0) & (mask != NO_DATA)
  colour = colours[(np.maximum(mask, 1) - 1) % len(colours)]
  interior = np.ones(mask.shape, bool)
  for axis in (0, 1):
    for shift in (1, -1):
      interior &= np.roll(mask, shift, axis) == mask
  image = np.where(inside[..., None], 0.65 * image + 0.35 * colour, image)
  image = np.where((inside & ~interior)[..., None], colour, image)
  image = np.where((mask == NO_DATA)[..., None], 255.0, image)
  return Image.fromarray(np.uint8(image))

"""Landslide4Sense patches as RGB images: 128 x 128 at 10 m, cut into tiles of 64.

Nearly every patch holds some landslide, so image labels only mean something on smaller tiles; each
tile's comes from its mask, which otherwise serves evaluation alone.
"""

import ml_collections

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> ml_collections.ConfigDict:
  config = config_dict()
  config.data.source = "patches"
  config.data.tile_size = 64
  config.data.image_size = 256
  config.train.epochs = 3
  config.loss.background_pixel_weight = 0.5  # Few tiles are landslide by half.
  # Tiles are enlarged four times: a score map has no finer detail than a wide, smooth filter.
  config.refine.radius = 0.15
  config.refine.epsilon = 1.0
  return methods.apply(config, method)

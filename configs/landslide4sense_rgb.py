"""Landslide4Sense patches as RGB images: 128 x 128 at 10 m, cut into tiles of 64.

Nearly every patch contains a landslide, so labels are only informative for smaller tiles. The label of
each tile comes from its mask. Otherwise masks are only used to evaluate.
"""


from typing import Any

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> Any:
  config = config_dict()
  config.data.source = "patches"
  config.data.tile_size = 64
  config.data.image_size = 256
  config.train.epochs = 3
  # Tiles are enlarged four times, so a wide, smooth filter removes no detail from a score map.
  config.refine.radius = 0.15
  config.refine.epsilon = 1.0
  return methods.apply(config, method)

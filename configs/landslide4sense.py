"""Landslide4Sense, 10 m: all 14 bands of its HDF5 patches, in tiles of 64 pixels.

Most patches contain a landslide, so labels are only informative for smaller tiles.
"""


from typing import Any

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> Any:
  config = config_dict()
  config.data.source = "tfds"
  config.data.builder = "data/landslide4sense"
  config.data.directory = "runs/tfds"
  config.data.channels = 14
  config.data.normalise = "train"  # Reflectances, slope and elevation have different units.
  config.model.rgb_bands = (4, 3, 2)
  config.model.nir_band = 8
  config.data.image_size = 256
  config.train.epochs = 3
  # Tiles are enlarged four times, so a wide, smooth filter removes no detail from a score map.
  config.refine.radius = 0.15
  config.refine.epsilon = 1.0
  return methods.apply(config, method)

"""CAS Landslide Dataset, 0.2 to 5 m: patches of 512 pixels in tiles of 256, held out by region.

A quarter of a patch is less often all landslide or never without one: its label says more.
"""

import ml_collections

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> ml_collections.ConfigDict:
  config = config_dict()
  config.data.source = "tfds"
  config.data.builder = "data/cas_landslide"
  config.data.directory = "runs/tfds"
  # Tiles are shown as they are: their edges are the image's, and the default refinement fits.
  config.data.image_size = 256
  # There are some 80,000 tiles: two rounds are as many steps as others take in thirty.
  config.train.epochs = 2
  return methods.apply(config, method)

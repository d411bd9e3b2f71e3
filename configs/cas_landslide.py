"""CAS Landslide Dataset, 0.2 to 5 m: patches of 512 pixels in tiles of 256, held out by region.

Whole patches are often all landslide or never without one. The labels of quarters say more.
"""


from typing import Any

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> Any:
  config = config_dict()
  config.data.source = "tfds"
  config.data.builder = "data/cas_landslide"
  config.data.directory = "runs/tfds"
  # Tiles are not enlarged, so their edges are as sharp as the image's and the default refinement fits.
  config.data.image_size = 256
  # There are about 80,000 tiles: two epochs are as many steps as thirty epochs of other data sets.
  config.train.epochs = 2
  return methods.apply(config, method)

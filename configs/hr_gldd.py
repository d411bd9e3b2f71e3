"""HR-GLDD, 3 m: PlanetScope patches of four bands in tiles of 64 pixels, with the published splits.

Most patches contain a landslide, so labels are only informative for smaller tiles.
"""


from typing import Any

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> Any:
  config = config_dict()
  config.data.source = "tfds"
  config.data.builder = "data/hr_gldd"
  config.data.directory = "runs/tfds"
  config.data.channels = 4
  config.model.nir_band = 4
  config.data.normalise = "train"
  config.data.image_size = 256
  config.train.epochs = 5
  # Tiles are enlarged four times, so a wide, smooth filter removes no detail from a score map.
  config.refine.radius = 0.15
  config.refine.epsilon = 1.0
  return methods.apply(config, method)

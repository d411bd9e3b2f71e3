"""Your own images: the folders landslide/ and non-landslide/ under data.directory, perhaps masks/.

With other folder names set data.classes and data.background. Masks, where there are any, serve
evaluation alone.
"""

import ml_collections

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> ml_collections.ConfigDict:
  config = config_dict()
  config.data.source = "folder"
  return methods.apply(config, method)

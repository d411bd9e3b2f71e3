"""Bijie landslides, 0.8 m: whole images, resized from varying sizes and labelled by their folder.

To add elevation as a fourth channel: --config.data.builder=data/bijie:rgb_dem --config.data.channels=4
--config.data.normalise=train.
"""


from typing import Any

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> Any:
  config = config_dict()
  config.data.source = "tfds"
  config.data.builder = "data/bijie"
  config.data.directory = "runs/tfds"
  # Most images have about this size, so few are enlarged and the default refinement is suitable.
  config.data.image_size = 256
  config.train.epochs = 10
  return methods.apply(config, method)

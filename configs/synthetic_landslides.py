"""The embedded demonstration: synthetic scenes, trained in minutes on two CPU cores."""

import ml_collections

from configs import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> ml_collections.ConfigDict:
  config = config_dict()
  config.data.source = "tfds"
  config.data.builder = "data/synthetic_landslides"
  config.data.directory = "runs/tfds"
  config.model.grid_stride = 8
  config.train.epochs = 6
  return methods.apply(config, method)

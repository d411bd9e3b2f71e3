"""The demonstration: synthetic images, created and trained on in minutes on two CPU cores."""


from typing import Any

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> Any:
  config = config_dict()
  config.data.source = "tfds"
  config.data.builder = "data/synthetic_landslides"
  config.data.directory = "runs/tfds"
  config.model.top_fraction = 0.04
  # A landslide covers at most a fifth of these patches, so most of a positive is background too.
  config.loss.background_pixel_fraction = 0.85
  config.loss.background_pixel_weight = 1.0
  config.sol.rounds = 8
  config.train.epochs = 5
  config.train.min_steps = 0
  return methods.apply(config, method)

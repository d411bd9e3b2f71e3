"""The demonstration: synthetic images, created and trained on in minutes on two CPU cores."""


from typing import Any

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> Any:
  config = config_dict()
  config.data.source = "tfds"
  config.data.builder = "data/synthetic_landslides"
  config.data.directory = "runs/tfds"
  config.sol.rounds = 8
  config.train.epochs = 5
  config.train.min_steps = 0
  return methods.apply(config, method)

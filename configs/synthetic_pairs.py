"""The demonstration with an image before and one after: confusers are there on both dates."""


from typing import Any

from lgag_jax.runtime import packaged


def get_config(method: str = "lgag") -> Any:
  config = packaged.load_config("synthetic_landslides", method)
  config.data.builder = "data/synthetic_landslides:pairs"
  config.data.before = "before"
  config.train.epochs = 15  # Changes are harder to learn than landslides.
  return config

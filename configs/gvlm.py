"""GVLM, 0.59 m: tiles of 256 pixels of the image after the event, held out by site.

To add the image before the event: --config.data.builder=data/gvlm:bitemporal
--config.data.before=stacked.
"""


from typing import Any

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> Any:
  config = config_dict()
  config.data.source = "tfds"
  config.data.builder = "data/gvlm"
  config.data.directory = "runs/tfds"
  # Tiles are not enlarged, so their edges are as sharp as the image's and the default refinement fits.
  config.data.image_size = 256
  config.train.epochs = 5
  return methods.apply(config, method)

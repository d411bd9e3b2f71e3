"""Your own images: the folders landslide/ and non-landslide/ in data.directory, and optionally masks/.

If the folders have other names, set data.classes and data.background. Masks are only used to evaluate.
"""


from typing import Any

from lgag_jax import methods
from lgag_jax.config import config_dict


def get_config(method: str = "lgag") -> Any:
  config = config_dict()
  config.data.source = "folder"
  return methods.apply(config, method)

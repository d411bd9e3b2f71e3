"""Three classes of synthetic images: landslides, bare ground and rivers, in every combination."""


from typing import Any

from lgag_jax.runtime import packaged


def get_config(method: str = "lgag") -> Any:
  config = packaged.load_config("synthetic_landslides", method)
  config.data.builder = "data/synthetic_landslides:three_classes"
  config.data.classes = ("landslide", "bare", "river")
  # Each class is in half of the images, and one image in eight has none: no balancing is needed.
  config.data.balance = False
  config.train.epochs = 8
  return config

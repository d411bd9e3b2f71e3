"""Three classes on the synthetic demonstration: landslides, bare ground, rivers, any in one image."""

import ml_collections

from lgag_jax.runtime import packaged


def get_config(method: str = "lgag") -> ml_collections.ConfigDict:
  config = packaged.load_config("synthetic_landslides", method)
  config.data.builder = "data/synthetic_landslides:three_classes"
  config.data.classes = ("landslide", "bare", "river")
  # One image in eight shows none of them: each class is half of the images as it is.
  config.data.balance = False
  # Bare ground covers up to half of an image.
  config.loss.background_pixel_fraction = 0.5
  config.train.epochs = 8
  return config

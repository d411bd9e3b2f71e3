"""The second stage on Landslide4Sense RGB: segmentation, learned from pseudo-masks.

After a colon, or as data.pseudo_masks, the folder that --mode=pseudo wrote.
"""

import ml_collections

from lgag_jax.runtime import packaged


def get_config(masks: str = "runs/landslide4sense_rgb/pseudo") -> ml_collections.ConfigDict:
  config = packaged.load_config("landslide4sense_rgb", "segmentation")
  config.data.pseudo_masks = masks
  return config

"""The second stage on the synthetic demonstration: segmentation, learned from pseudo-masks.

After a colon, or as data.pseudo_masks, the folder that --mode=pseudo wrote.
"""

import ml_collections

from lgag_jax.runtime import packaged


def get_config(masks: str = "runs/synthetic_landslides/pseudo") -> ml_collections.ConfigDict:
  config = packaged.load_config("synthetic_landslides", "segmentation")
  config.data.pseudo_masks = masks
  return config

"""The second stage on the synthetic demonstration: segmentation, learned from pseudo-masks.

After a colon, or as data.pseudo_masks, the folder that --mode=pseudo wrote.
"""

import ml_collections

from configs import synthetic_landslides


def get_config(masks: str = "runs/synthetic_landslides/pseudo") -> ml_collections.ConfigDict:
  config = synthetic_landslides.get_config("segmentation")
  config.data.pseudo_masks = masks
  return config

"""The second stage on Landslide4Sense RGB: a segmentation that learns from pseudo-masks.

Name the folder that --mode=pseudo wrote after a colon, or as data.pseudo_masks.
"""


from typing import Any

from lgag_jax.runtime import packaged


def get_config(masks: str = "runs/landslide4sense_rgb/pseudo") -> Any:
  config = packaged.load_config("landslide4sense_rgb", "segmentation")
  config.data.pseudo_masks = masks
  return config

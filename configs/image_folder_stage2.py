"""The second stage on your own images: a segmentation that learns from pseudo-masks.

Name the folder that --mode=pseudo wrote after a colon, or as data.pseudo_masks.
"""


from typing import Any

from lgag_jax.runtime import packaged


def get_config(masks: str = "runs/image_folder/pseudo") -> Any:
  config = packaged.load_config("image_folder", "segmentation")
  config.data.pseudo_masks = masks
  return config

"""The second stage on the synthetic demonstration: a segmentation that learns from pseudo-masks.

Name the folder that --mode=pseudo wrote after a colon, or as data.pseudo_masks.
"""


from typing import Any

from lgag_jax.runtime import packaged


def get_config(masks: str = "runs/synthetic_landslides/pseudo") -> Any:
  config = packaged.load_config("synthetic_landslides", "segmentation")
  config.data.pseudo_masks = masks
  return config

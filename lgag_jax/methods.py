"""The methods that a data set's config takes after a colon: --config=configs/x.py:sol."""

import ml_collections

from lgag_jax.config import SEGMENTATION

# From close by a landslide fills much of an image: pooling takes as much of it, and the threshold is
# where as much of an image scores above it. For images of which landslides fill this share or more.
CLOSE_UP_SHARE = 0.3
CLOSE_UP = {
  "model.top_fraction": CLOSE_UP_SHARE,
  "localize.threshold_rule": "agreement", "localize.agreement_fraction": CLOSE_UP_SHARE,
}


def lgag(config: ml_collections.ConfigDict) -> None:
  """The whole method in the form that has measured best: the defaults."""


def sol(config: ml_collections.ConfigDict) -> None:
  """SOL without GAA: local anchors guide, nothing is shared between images (what SIPE does)."""
  config.model.method = "sol"


def class_activation(config: ml_collections.ConfigDict) -> None:
  """Class activation alone, of the same classifier."""
  config.model.method = "class_activation"


def segmentation(config: ml_collections.ConfigDict) -> None:
  """A decoder trained on masks: the data's own, meant as the upper bound, or data.pseudo_masks."""
  config.update_from_flattened_dict(SEGMENTATION)


def lgagnet(config: ml_collections.ConfigDict) -> None:
  """The published form: linear class activation, average pooling, no pixel terms, no refinement."""
  config.model.classifier = "linear"
  config.model.grid_stride = 16
  config.model.pooling = "average"
  config.model.anchor_features = "sides"
  config.model.side_widths = (128, 128, 256, 256)
  config.sol.seed_features = "x4"
  config.sol.rounds = 0
  config.gaa.fusion = "concat"
  config.bank.centres = 10
  config.loss.negative_pixel_weight = 0.0
  config.loss.background_pixel_weight = 0.0
  config.loss.auxiliary_weight = 0.0
  config.loss.consistency_weight = 1.0
  config.localize.class_activation = "normalised"
  config.localize.blend = 0.0
  config.localize.anchor_stride = 16
  config.refine.method = "none"


def lgagnet_sol(config: ml_collections.ConfigDict) -> None:
  """The published form without GAA."""
  lgagnet(config)
  sol(config)


def lgagnet_class_activation(config: ml_collections.ConfigDict) -> None:
  """The published form's class activation alone."""
  lgagnet(config)
  class_activation(config)


METHODS = {
  method.__name__: method
  for method in (
    lgag, sol, class_activation, segmentation, lgagnet, lgagnet_sol, lgagnet_class_activation
  )
}


def apply(config: ml_collections.ConfigDict, name: str) -> ml_collections.ConfigDict:
  """Changes `config` to a method; raises ValueError for a name that there is none of."""
  if name not in METHODS:
    raise ValueError(f"The method {name!r} is unknown; there are {', '.join(METHODS)}.")
  METHODS[name](config)
  return config

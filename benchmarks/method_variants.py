"""Methods of the ablation: the whole method with one part replaced. Read with --method_file."""

import dataclasses

from lgag_jax.method import classifiers, gaa, sol
from lgag_jax.method.registry import LGAG

WITHOUT_ATTENTION = dataclasses.replace(LGAG, name="without_attention", aggregation=None)
CONCATENATION = dataclasses.replace(
  LGAG, name="concatenation", aggregation=gaa.concatenated_attention
)
STRUCTURE_OF_LAST_TAP = dataclasses.replace(
  LGAG, name="structure_of_last_tap", structure="last_tap"
)
STRUCTURE_OF_ANCHORS = dataclasses.replace(LGAG, name="structure_of_anchors", structure="anchors")
SIDE_PROJECTIONS = dataclasses.replace(
  LGAG, name="side_projections", anchor_features=sol.side_projections
)
DECODER = dataclasses.replace(LGAG, name="decoder_classifier", classifier=classifiers.decoder)

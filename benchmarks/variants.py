"""What the ablation changes, one at a time, in the whole method of a data set's config."""

import pathlib

from lgag_jax.method import registry

registry.load_file(pathlib.Path(__file__).with_name("method_variants.py"))

# What is learned changes: each is a training of its own.
TRAINED = {
  # The ladder from class activation to the whole method, whose last step is `lgag` itself.
  "ladder 1: class activation": {"model.method": "class_activation"},
  "ladder 2: + SOL": {"model.method": "sol", "loss.consistency_weight": 0.0},
  "ladder 3: + GAA without cross-attention": {
    "model.method": "without_attention", "loss.contrast_weight": 0.0, "loss.consistency_weight": 0.0
  },
  "ladder 4: + cross-attention": {"loss.contrast_weight": 0.0, "loss.consistency_weight": 0.0},
  "ladder 5: + contrast": {"loss.consistency_weight": 0.0},
  # Options with two credible forms.
  "fusion: concat": {"model.method": "concatenation"},
  "structure from x4": {"model.method": "structure_of_last_tap"},
  "structure from g": {"model.method": "structure_of_anchors"},
  "background factor 1": {"sol.background_factor": 1.0},
  "no re-seeding": {"sol.rounds": 0},
  "bank: 100 slots": {"bank.slots": 100},
  "bank: 2000 slots": {"bank.slots": 2000},
  "5 centres per class": {"bank.centres": 5},
  "50 centres per class": {"bank.centres": 50},
  "anchors from side projections": {"model.method": "side_projections"},
  "average pooling": {"model.pooling": "average"},
  "no loss on pixels": {"loss.negative_pixel_weight": 0.0},
  "classifier: decoder": {"model.method": "decoder_classifier"},
  "trunk trained from stage 4": {"model.first_trainable_stage": 4, "data.augment": "image"},
}
# The same network, judged differently.
INFERENCE = {
  "scales 0.5, 1, 1.5": {"localize.scales": (0.5, 1.0, 1.5)},
  "guided map alone": {"localize.blend": 0.0},
  "anchors on stride 8": {"localize.anchor_stride": 8},
  "anchors on stride 16": {"localize.anchor_stride": 16},
  "no refinement": {"refine.method": "none"},
  "no colour evidence": {"refine.colour_evidence": False},
}

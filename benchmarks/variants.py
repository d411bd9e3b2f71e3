"""What the ablation changes, one at a time, in the whole method of a data set's config."""

# What is learned changes: each is a training of its own.
TRAINED = {
  # The ladder from class activation to the whole method, whose last step is `lgag` itself.
  "ladder 1: class activation": {"model.method": "class_activation"},
  "ladder 2: + SOL": {"model.method": "sol", "loss.consistency_weight": 0.0},
  "ladder 3: + GAA without cross-attention": {
    "gaa.attention": False, "loss.contrast_weight": 0.0, "loss.consistency_weight": 0.0
  },
  "ladder 4: + cross-attention": {"loss.contrast_weight": 0.0, "loss.consistency_weight": 0.0},
  "ladder 5: + contrast": {"loss.consistency_weight": 0.0},
  # Options with two credible forms.
  "fusion: concat": {"gaa.fusion": "concat"},
  "structure from x4": {"sol.seed_features": "x4"},
  "structure from g": {"sol.seed_features": "g"},
  "background factor 1": {"sol.background_factor": 1.0},
  "no re-seeding": {"sol.rounds": 0},
  "bank: moving average": {"bank.policy": "moving_average"},
  "bank: 100 slots": {"bank.slots": 100},
  "bank: 2000 slots": {"bank.slots": 2000},
  "5 centres a class": {"bank.centres": 5},
  "50 centres a class": {"bank.centres": 50},
  "activation head: conv": {"gaa.activation_head": "conv"},
  "anchors from side projections": {"model.anchor_features": "sides"},
  "side projections, gradients stopped": {
    "model.anchor_features": "sides", "model.stop_gradient_sides": True
  },
  "global anchors in the activation": {"gaa.global_activation": 0.5},
  "average pooling": {"model.pooling": "average"},
  "no pixel terms": {"loss.negative_pixel_weight": 0.0, "loss.background_pixel_weight": 0.0},
  "classifier on stride 8": {"model.grid_stride": 8},
  "classifier: decoder": {"model.classifier": "decoder"},
  "trunk trained from stage 4": {"model.first_trainable_stage": 4, "data.augment": "image"},
}
# The same network, judged differently.
INFERENCE = {
  "scales 0.5, 1, 1.5": {"localize.scales": (0.5, 1.0, 1.5)},
  "flip": {"localize.turns": "flip"},
  "eight turns": {"localize.turns": "all"},
  "global anchors at inference": {"gaa.global_activation": 0.5},
  "guided map alone": {"localize.blend": 0.0},
  "anchors on stride 8": {"localize.anchor_stride": 8},
  "anchors on stride 16": {"localize.anchor_stride": 16},
  "no refinement": {"refine.method": "none"},
  "refinement: pixel adaptive": {"refine.method": "pixel_adaptive"},
  "refinement: dense CRF": {"refine.method": "dense_crf"},
}

"""The settings of each method; method/registry.py has the methods, method/method.py says what one is.

A config takes a method after a colon, as in --config=configs/x.py:sol; `apply` changes its settings.
"""

import difflib

import ml_collections

# A decoder that learns from masks: the data's own, as an upper bound, or pseudo-masks.
SEGMENTATION = {
  "model.method": "segmentation", "model.top_fractions": (0.01,),
  "optim.name": "adamw", "optim.learning_rate": 2e-4,
  "localize.map": "best", "localize.threshold_rule": "default",
  "refine.method": "none", "refine.colour_evidence": False,
}
# The published form: average pooling, no pixel terms, no refinement.
_PUBLISHED = {
  "model.pooling": "average", "model.side_widths": (128, 128, 256, 256), "sol.rounds": 0,
  "bank.centres": 10, "loss.negative_pixel_weight": 0.0, "loss.auxiliary_weight": 0.0,
  "loss.consistency_weight": 1.0,
  "localize.blend": 0.0, "localize.anchor_stride": 16,
  "refine.method": "none", "refine.colour_evidence": False,
}
SETTINGS = {
  "lgag": {}, "sol": {}, "class_activation": {}, "segmentation": SEGMENTATION,
  "lgagnet": _PUBLISHED, "lgagnet_sol": _PUBLISHED, "lgagnet_class_activation": _PUBLISHED,
}


def apply(config: ml_collections.ConfigDict, name: str) -> ml_collections.ConfigDict:
  """Changes `config` to a method and its settings; raises ValueError if the name is unknown.

  A method of your own joins `SETTINGS` when --method_file reads its file.
  """
  if name not in SETTINGS:
    raise ValueError(unknown(name))
  config.update_from_flattened_dict({"model.method": name, **SETTINGS[name]})
  return config


def unknown(name: str) -> str:
  """Returns the message for a name that no method has."""
  close = difflib.get_close_matches(name, SETTINGS, n=1)
  hint = f" Did you mean {close[0]!r}?" if close else ""
  return (
    f"The method {name!r} is unknown.{hint} There are {', '.join(SETTINGS)}. If a file of yours "
    "defines it, name that file with --method_file=FILE.py."
  )

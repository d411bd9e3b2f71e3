"""Reads configs of release 0.1.0, whose methods were combinations of fields that are gone.

A field that is gone is dropped where it has the value that the method implies today. Any other value
names a network that this release cannot build: ValueError says which release can.
"""

from collections.abc import Mapping
from typing import Any

# Fields that no method used, with the only value that is still understood.
_REMOVED = {
  "model.grid_stride": 16, "model.stop_gradient_sides": False, "sol.seeding": "argmax",
  "gaa.normalise": "anchors", "gaa.activation_head": "cosine", "gaa.activation_head_width": 256,
  "gaa.global_activation": 0.0, "bank.policy": "fifo", "bank.momentum": 0.99,
  "optim.warmup_steps": 0, "localize.turns": "none", "localize.compare": "difference",
}
# Fields without effect at the values above.
_IGNORED = (
  "localize.negative_quantile", "refine.steps", "refine.dilations", "refine.contrast", "refine.colour",
  "refine.weight",
)
# Fields that a method of today implies.
_DEFAULT_FORM = {
  "model.classifier": "head", "model.anchor_features": "taps", "sol.seed_features": "head",
  "gaa.fusion": "residual", "gaa.attention": True, "localize.class_activation": "probability",
}
_PUBLISHED_FORM = {
  "model.classifier": "linear", "model.anchor_features": "sides", "sol.seed_features": "x4",
  "gaa.fusion": "concat", "gaa.attention": True, "localize.class_activation": "normalised",
}
_SEGMENTATION = {"model.classifier": "decoder", "localize.class_activation": "probability"}
_PARTS = {  # Fields of each group that the old methods read at all.
  "lgag": tuple(_DEFAULT_FORM),
  "sol": (
    "model.classifier", "model.anchor_features", "sol.seed_features", "localize.class_activation",
  ),
  "class_activation": ("model.classifier", "localize.class_activation"),
  "segmentation": ("model.classifier", "localize.class_activation"),
}
_PUBLISHED_NAMES = {
  "lgag": "lgagnet", "sol": "lgagnet_sol", "class_activation": "lgagnet_class_activation",
}


def upgraded(mapping: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config in today's fields; one that is in them already comes back as it is."""
  groups = {
    name: dict(group) if isinstance(group, Mapping) else group for name, group in mapping.items()
  }
  for name in ("background_pixel_weight", "background_pixel_fraction"):  # Of a loss term that is gone.
    _group(groups, "loss").pop(name, None)
  if "top_fraction" in _group(groups, "model"):  # One share of cells, where there are several today.
    groups["model"]["top_fractions"] = (groups["model"].pop("top_fraction"),)
  if "classifier" not in _group(groups, "model"):
    return groups
  for field, value in _REMOVED.items():
    _drop(groups, field, value)
  for field in _IGNORED:
    group, _, name = field.partition(".")
    _group(groups, group).pop(name, None)
  if _group(groups, "localize").get("threshold_rule") == "negatives":
    groups["localize"]["threshold_rule"] = "argmax"  # See evaluation.thresholds_file.load_thresholds.
  if isinstance(groups.setdefault("refine", {}), dict):
    groups["refine"]["colour_evidence"] = False  # Its thresholds were chosen without.
  method = groups["model"].get("method")
  form = _SEGMENTATION if method == "segmentation" else _DEFAULT_FORM
  if groups["model"]["classifier"] == "linear" and method in _PUBLISHED_NAMES:
    form, groups["model"]["method"] = _PUBLISHED_FORM, _PUBLISHED_NAMES[method]
  for field in _DEFAULT_FORM:
    if field in _PARTS.get(str(method), ()):
      _drop(groups, field, form[field])
    else:  # The method did not read it.
      group, _, name = field.partition(".")
      _group(groups, group).pop(name, None)
  return groups


def _group(groups: dict, name: str) -> dict:
  group = groups.get(name)
  return group if isinstance(group, dict) else {}


def _drop(groups: dict, field: str, understood: Any) -> None:
  group, _, name = field.partition(".")
  value = _group(groups, group).pop(name, understood)
  if value != understood:
    raise ValueError(
      f"config.{field}={value!r} is an option of release 0.1.0 that this release does not have "
      f"(only {understood!r}): read it with release 0.1.0, or train again."
    )

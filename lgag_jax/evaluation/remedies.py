"""Sentences that name the setting to change, with its present value."""

from lgag_jax.config import Config
from lgag_jax.method.registry import method_of


def move_rule(direction: str, config: Config) -> str:
  """Returns the advice to "lower" or "raise" the threshold; "" for a rule without a setting."""
  localize, opposite = config.localize, {"lower": "Raise", "raise": "Lower"}[direction]
  if method_of(config).rule(config) != "agreement":
    return ""
  if not localize.agreement_fraction:
    return "Set localize.agreement_fraction to the fraction of a positive image that landslides cover."
  # A larger fraction maps more pixels.
  return f"{opposite} localize.agreement_fraction ({localize.agreement_fraction:g})."


def move_gate(direction: str, config: Config) -> str:
  """Returns the advice to "lower" or "raise" the gate."""
  effect = "" if method_of(config).gated else "; this changes no map"
  return f"{direction.capitalize()} localize.gate ({config.localize.gate:g}){effect}."


def other_rules(config: Config) -> str:
  """Returns the advice to try rules that also read positive images."""
  rules = [rule for rule in ("otsu", "agreement") if rule != method_of(config).rule(config)]
  return f"Try localize.threshold_rule={' or '.join(rules)}, which also read positive images."


def smaller_images(config: Config) -> str:
  """Returns the advice to cut smaller tiles, or smaller images before they are labelled."""
  if config.data.source == "patches":
    return f"Cut smaller tiles (data.tile_size={config.data.tile_size})."
  size = f"data.image_size ({config.data.image_size})"
  return f"Cut the images into smaller ones and label each, or raise {size}."


def train_longer(config: Config) -> str:
  """Returns the advice to train for more steps."""
  train = config.train
  return f"Train longer (train.epochs={train.epochs}, train.min_steps={train.min_steps})."

"""Two stages in one go: image labels to maps, their pseudo-masks to a segmentation network."""

import pathlib

from lgag_jax import config as configs
from lgag_jax.config import Config
from lgag_jax.method.registry import method_of
from lgag_jax.methods import SEGMENTATION
from lgag_jax.training import loop, pseudo_masks


def second_stage(config: Config, masks: pathlib.Path) -> Config:
  """Returns a first stage's config as that of the second, which learns from the masks in a folder."""
  changed = configs.config_dict(config)
  changed.update_from_flattened_dict({**SEGMENTATION, "data.pseudo_masks": str(masks)})
  return configs.from_mapping(changed)


def train_both(config: Config, workdir: pathlib.Path) -> pathlib.Path:
  """Trains both stages into <workdir>/first and <workdir>/second; returns the second's workdir.

  Each goes on where it was stopped. Raises ValueError when the config is a second stage's already.
  """
  if method_of(config).supervision == "masks":
    raise ValueError(
      "config.model.method='segmentation' is a second stage already: give --mode=stages the first "
      "one's config, or train this one with --mode=train."
    )
  changed = configs.config_dict(config)
  if not config.data.feature_cache_directory:  # Both see the same trunk outputs.
    changed.data.feature_cache_directory = str(workdir / "features")
  config = configs.from_mapping(changed)
  first, second = workdir / "first", workdir / "second"
  loop.train_and_evaluate(config, first)
  masks = pseudo_masks.write(first)
  loop.train_and_evaluate(second_stage(config, masks), second)
  return second

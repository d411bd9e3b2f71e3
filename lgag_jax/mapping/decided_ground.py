"""The ground that somebody has decided on (--review): there a map follows the decision."""

import logging
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from rasterio.windows import Window

from lgag_jax.config import Config
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.options.mapping import Options
from lgag_jax.options.tiling import Settings
from lgag_jax.tiling import labels, review_files
from lgag_jax.tiling.ground_labels import GroundLabels

_LOG = logging.getLogger(__name__)


def check(scenes: Sequence[pathlib.Path], options: Options) -> None:
  """Raises ValueError or FileNotFoundError naming a --review that is of none of the scenes."""
  if not options.review:
    return
  path = pathlib.Path(options.review)
  review_files.check(path, list(scenes), "review")


def check_places(grids: Mapping[pathlib.Path, Grid], options: Options) -> None:
  """Raises ValueError if one layer decides on several scenes, and cannot tell their ground apart."""
  if options.review:
    labels.check_decisions(pathlib.Path(options.review), grids)


def find(scene: pathlib.Path, grid: Grid, options: Options, config: Config) -> GroundLabels | None:
  """Returns what was decided of a scene; None if nothing was. Raises ValueError naming the file."""
  if not options.review:
    return None
  settings = Settings(
    input=str(scene), output=str(scene), labels=options.review, review=options.review,
    classes=config.data.classes, background=config.data.background,
  )
  decisions = labels.open_decisions(scene, grid, settings)
  if decisions:
    _LOG.info("%s: the map follows %d shapes of --review.", scene, decisions.count)
  return decisions


def follow(decisions: GroundLabels | None, first: int, mask: np.ndarray) -> np.ndarray:
  """Returns rows of a mask u8[n, W], from row `first` on, as was decided; missing data stay missing."""
  if decisions is None:
    return mask
  height, width = mask.shape
  decided = decisions.read(Window(0, first, width, height))
  return np.where((decided == UNKNOWN) | (mask == UNKNOWN), mask, decided)

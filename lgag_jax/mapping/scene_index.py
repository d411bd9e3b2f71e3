"""Evaluates the colour index that training labels chose on a scene, beside the network's map."""

from collections.abc import Iterable, Sequence

import numpy as np
from rasterio.windows import Window

from lgag_jax.config import Config
from lgag_jax.evaluation import colour_index
from lgag_jax.evaluation.index_rule import ColourIndex
from lgag_jax.geo.reference import Reference
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.mapping.rasters import NO_DATA, MapRaster
from lgag_jax.mapping.scene_plans import ScenePlan
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import preemption

Counts = dict[str, np.ndarray]  # What `colour_index.count` returns.


def count(
  plan: ScenePlan, rules: Sequence[ColourIndex | None], reference: Reference, mask: MapRaster,
  config: Config, options: Options,
) -> list[Counts]:
  """Returns the sums of counts for each class, {} where it has no rule.

  As for the network, each window of the scene counts as an image; here they do not overlap. Pixels
  without data in the map's `mask` are unknown. Raises ImageError naming a scene that is damaged.
  """
  side = plan.windows.side * plan.windows.reduction
  totals: list[Counts] = [{} for _ in rules]
  if not any(rules):
    return totals
  with open_scene(plan.path, config.data.channels, bands=options.bands) as scene:
    for window in _windows(plan.grid.height, plan.grid.width, side):
      preemption.check_if_single_process()
      true = reference.read(window)
      true[mask.read(1, window) == NO_DATA] = UNKNOWN
      if (true == UNKNOWN).all():
        continue
      colours = colour_index.bands_of(scene.read(window)[0], config)
      for c, rule in enumerate(rules):
        if rule:
          totals[c] = total((totals[c], colour_index.count(rule, colours, true, c)))
  return totals


def _windows(height: int, width: int, side: int) -> list[Window]:
  return [
    Window(left, top, min(side, width - left), min(side, height - top))
    for top in range(0, height, side) for left in range(0, width, side)
  ]


def total(counts: Iterable[Counts]) -> Counts:
  """Returns the sum of counts; those of a class without a rule, and of scenes without data, are {}."""
  known = [of_part for of_part in counts if of_part]
  return {name: np.sum([part[name] for part in known], axis=0) for name in (known or [{}])[0]}


def figures(rules: Sequence[ColourIndex | None], totals: Sequence[Counts]) -> list[dict | None]:
  """Returns each class's rule and its figures; None where it has none."""
  return [
    colour_index.figures(rule, of_class) if rule and of_class else None
    for rule, of_class in zip(rules, totals, strict=True)
  ]

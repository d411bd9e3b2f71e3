"""The sizes of polygons as a page shows them: cards, figures, and the law in words."""

from collections.abc import Mapping, Sequence

import numpy as np

from lgag_jax.evaluation import size_distribution, size_figures
from lgag_jax.mapping.scene_tables import area
from lgag_jax.pages import pictures
from lgag_jax.pages.pictures import Picture


def cards(name: str, areas: Sequence[float]) -> list[tuple[str, str]]:
  """Returns the total and the median of a class's areas in square metres, each with its title."""
  if not len(areas):
    return []
  return [
    (f"total area: {name}", area(sum(areas))),
    (f"median polygon: {name}", area(float(np.median(areas)))),
  ]


def figures(
  areas: Mapping[str, Sequence[float]],
) -> list[tuple[str, Picture, Picture | None, str]]:
  """Returns each class's name, its sizes, and the law that large ones follow, drawn and in words.

  `areas` are in square metres, by class. A class without polygons has no part.
  """
  parts = []
  for name, values in areas.items():
    if not len(values):
      continue
    sizes = pictures.from_figure(size_figures.sizes(list(values)), f"Areas of {name} polygons")
    law = size_distribution.fit(values)
    drawn = law and pictures.from_figure(
      size_figures.density(list(values), law), f"Density of {name} polygons by area"
    )
    parts.append((name, sizes, drawn, size_distribution.in_words(law)))
  return parts

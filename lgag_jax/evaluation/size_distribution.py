"""The sizes of landslides: the power law that large ones follow, and where small ones begin to lack.

Clauset, Shalizi and Newman (2009), Power-law distributions in empirical data, SIAM Review 51(4), fit
the law. Malamud et al. (2004), Landslide inventories and their statistical properties, Earth Surface
Processes and Landforms 29(6), describe the rollover.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.stats

_LEAST_TAIL = 50  # Landslides that a fit needs.
_CANDIDATES = 200  # Areas that are tried as the beginning of the law.
_TINY = 0.01  # Share of the landslides, the smallest, that the rollover does not depend on.
_NODES = 512  # Of the grid of areas that the rollover is sought on.


@dataclasses.dataclass(frozen=True)
class PowerLaw:
  """The density of landslide areas, p(A) ~ A^-exponent, from `least_area` on."""

  exponent: float
  error: float  # Standard error of the exponent.
  least_area: float  # Square metres, where the law begins.
  tail: int  # Landslides from there on.
  rollover: float  # Square metres, where p(A) is highest.


def fit(areas: Sequence[float]) -> PowerLaw | None:
  """Fits the law to areas in square metres; None if fewer than 50 landslides are large enough.

  The exponent is that of greatest likelihood. The law begins where it fits best: where the largest
  distance between its distribution and that of the areas (Kolmogorov-Smirnov) is smallest.
  """
  values = np.sort(np.asarray(areas, float))
  values = values[values > 0]
  if len(values) < _LEAST_TAIL or values[-_LEAST_TAIL] == values[-1]:
    return None
  starts = np.unique(values[: len(values) - _LEAST_TAIL + 1])
  starts = starts[np.linspace(0, len(starts) - 1, min(len(starts), _CANDIDATES)).astype(int)]
  distances, exponents = zip(*(_distance(values[values >= least], least) for least in starts),
                             strict=True)
  best = int(np.argmin(distances))
  tail = int(np.count_nonzero(values >= starts[best]))
  exponent = float(exponents[best])
  return PowerLaw(
    exponent, (exponent - 1) / tail**0.5, float(starts[best]), tail, rollover(values)
  )


def _distance(tail: np.ndarray, least: float) -> tuple[float, float]:
  """Returns how far sorted areas lie from the law that begins at `least`, and its exponent."""
  exponent = 1 + len(tail) / max(np.sum(np.log(tail / least)), 1e-12)
  expected = 1 - (tail / least) ** (1 - exponent)
  steps = np.arange(len(tail) + 1) / len(tail)
  return max(np.max(steps[1:] - expected), np.max(expected - steps[:-1])), exponent


def rollover(areas: np.ndarray) -> float:
  """Returns the area at which the density p(A) of areas is highest.

  The density is estimated over log A, where areas are spread evenly, and then divided by A.
  """
  logs = np.log(areas)
  if logs.min() == logs.max():
    return float(areas[0])
  estimate = scipy.stats.gaussian_kde(logs)
  # Division by A would make a peak of a single tiny polygon.
  nodes = np.linspace(np.quantile(logs, _TINY), logs.max(), _NODES)
  return float(np.exp(nodes[np.argmax(np.log(estimate(nodes) + 1e-300) - nodes)]))


def in_words(law: PowerLaw | None) -> str:
  """Returns what a reader of the page must know about the sizes."""
  if law is None:
    return f"Fewer than {_LEAST_TAIL} polygons: too few to fit a power law to their areas."
  return (
    f"From {law.least_area:,.4g} m² on, the areas of {law.tail:,} polygons follow a power law with the "
    f"exponent {law.exponent:.2f} ± {law.error:.2f} (density; its standard error). The density is "
    f"highest at {law.rollover:,.4g} m², the rollover. Smaller landslides are missing from the map or "
    "from the ground: the map does not tell which. Neighbouring landslides that the map joins make the "
    "exponent smaller."
  )

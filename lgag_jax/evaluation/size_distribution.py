"""The sizes of landslides: the power law that large ones follow, and where small ones begin to lack.

Clauset, Shalizi and Newman (2009), Power-law distributions in empirical data, SIAM Review 51(4), fit
the law. Stephens (1974), EDF statistics for goodness of fit and some comparisons, Journal of the
American Statistical Association 69(347), tests it: the logarithms of areas of a power law are spread
exponentially. Malamud et al. (2004), Landslide inventories and their statistical properties, Earth
Surface Processes and Landforms 29(6), describe the rollover.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.stats

_LEAST_TAIL = 50  # Landslides that a fit needs.
_CANDIDATES = 200  # Areas that are tried as the beginning of the law.
_TINY = 0.01  # Share of the landslides, the smallest, that the rollover does not depend on.
_NODES = 512  # Of the grid of areas that the rollover is sought on.
_REJECTED = 0.990  # Stephens (1974), table 3: exceeded in 10 % of samples of an exponential law.


@dataclasses.dataclass(frozen=True)
class PowerLaw:
  """The density of landslide areas, p(A) ~ A^-exponent, from `least_area` on."""

  exponent: float
  error: float  # Standard error of the exponent.
  least_area: float  # Square metres, where the law begins.
  tail: int  # Landslides from there on.
  rollover: float | None  # Square metres, where p(A) is highest; None: at the smallest polygons.
  fits: bool  # False: chance alone sets samples of a law so far from it in less than 10 % of cases.


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
  exponent, distance = float(exponents[best]), float(distances[best])
  test = (distance - 0.2 / tail) * (tail**0.5 + 0.26 + 0.5 / tail**0.5)
  return PowerLaw(
    exponent, (exponent - 1) / tail**0.5, float(starts[best]), tail, rollover(values),
    bool(test < _REJECTED),
  )


def _distance(tail: np.ndarray, least: float) -> tuple[float, float]:
  """Returns how far sorted areas lie from the law that begins at `least`, and its exponent."""
  exponent = 1 + len(tail) / max(np.sum(np.log(tail / least)), 1e-12)
  expected = 1 - (tail / least) ** (1 - exponent)
  steps = np.arange(len(tail) + 1) / len(tail)
  return max(np.max(steps[1:] - expected), np.max(expected - steps[:-1])), exponent


def rollover(areas: np.ndarray) -> float | None:
  """Returns the area at which the density p(A) of areas is highest; None if it is among the smallest.

  The density is estimated over log A, where areas are spread evenly, and then divided by A. What an
  estimate spreads below the smallest area is reflected: the density would fall there by itself.
  """
  logs = np.log(areas)
  if logs.min() == logs.max():
    return None
  estimate = scipy.stats.gaussian_kde(logs)
  # Division by A would make a peak of a single tiny polygon.
  nodes = np.linspace(np.quantile(logs, _TINY), logs.max(), _NODES)
  density = estimate(nodes) + estimate(2 * logs.min() - nodes)
  highest = int(np.argmax(np.log(density + 1e-300) - nodes))
  return float(np.exp(nodes[highest])) if highest else None


def in_words(law: PowerLaw | None) -> str:
  """Returns what a reader of the page must know about the sizes."""
  if law is None:
    return f"Fewer than {_LEAST_TAIL} polygons: too few to fit a power law to their areas."
  begin = f"From {law.least_area:,.4g} m² on, the areas of {law.tail:,} polygons"
  exponent = f"{law.exponent:.2f} ± {law.error:.2f} (density; its standard error)"
  largest = (
    f"The density is highest at {law.rollover:,.4g} m², the rollover. Smaller landslides are missing "
    "from the map or from the ground: the map does not tell which." if law.rollover else
    "The density rises down to the smallest polygons, so no rollover is seen."
  )
  if not law.fits:
    return (
      f"{begin} do not follow a power law: do not use the exponent of the nearest, {exponent}. "
      f"{largest}"
    )
  return (
    f"{begin} agree with a power law with the exponent {exponent}. {largest} Neighbouring landslides "
    "that the map joins make the exponent smaller."
  )

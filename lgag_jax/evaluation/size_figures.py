"""The charts of the sizes of polygons, as matplotlib figures."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lgag_jax.evaluation.figures import ACCENT, COOL, SOFT, STYLE
from lgag_jax.evaluation.size_distribution import PowerLaw

_DENSITY_BINS = 20  # Evenly spaced in the logarithm of the area.
_MAX_STEPS = 2000  # Of a curve over the sizes of polygons.


def _cumulative_share(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns areas and the share of the total in polygons up to each; `values` are sorted.

  Drawing a step per polygon takes seconds for 100,000 of them, at every run into the same output.
  """
  shown = values
  if len(values) > _MAX_STEPS:  # Even steps on the logarithmic axis, finer than its pixels.
    shown = np.geomspace(values[0], values[-1], _MAX_STEPS)
    shown[-1] = values[-1]
  shares = np.cumsum(values) / values.sum()
  return shown, shares[np.searchsorted(values, shown, side="right") - 1]


def sizes(areas: list[float]) -> Figure:
  """Draws the number of polygons by area in m², and the cumulative share of the total area."""
  values = np.maximum(np.sort(np.array(areas)), 1e-3)
  low, high = np.floor(np.log10(values[0])), np.ceil(np.log10(values[-1]) + 1e-9)
  edges = np.logspace(low, max(high, low + 1), 1 + 4 * int(max(high - low, 1)))
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    counts, cumulative = figure.subplots(1, 2)
    counts.hist(values, bins=edges, color=COOL)
    counts.set(title=f"{len(values):,} polygons by area", ylabel="polygons")
    cumulative.step(*_cumulative_share(values), where="post", color=ACCENT)
    cumulative.set(title="Share of the total area in polygons up to this area", ylim=(0, 1.02))
    for axis in (counts, cumulative):
      axis.set(xscale="log", xlim=(edges[0], edges[-1]), xlabel="area [m²]")
      axis.xaxis.set_minor_formatter(NullFormatter())  # Labels between powers of ten would overlap.
    return figure


def density(areas: list[float], law: PowerLaw) -> Figure:
  """Draws the density of polygons by area in m², and the law of the large ones if they follow it."""
  values = np.sort(np.array(areas))
  values = values[values > 0]
  edges = np.geomspace(values[0], values[-1] * (1 + 1e-9), _DENSITY_BINS + 1)
  counts, _ = np.histogram(values, edges)
  middles, density = np.sqrt(edges[1:] * edges[:-1]), counts / np.diff(edges) / len(values)
  tail = np.geomspace(law.least_area, values[-1], 2)
  share = law.tail / len(values)
  line = share * (law.exponent - 1) / law.least_area * (tail / law.least_area) ** -law.exponent
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(4.5, 2.8), layout="constrained")
    axis = figure.subplots()
    axis.loglog(middles[counts > 0], density[counts > 0], "o", markersize=4, color=COOL)
    if law.fits:
      axis.loglog(tail, line, color=ACCENT, label=f"exponent {law.exponent:.2f}")
    if law.rollover:
      axis.axvline(law.rollover, color=SOFT, linestyle="--", label="rollover")
    axis.set(title="Density of polygons by area", xlabel="area [m²]", ylabel="density [1/m²]")
    if law.fits or law.rollover:
      axis.legend(frameon=False)
    return figure

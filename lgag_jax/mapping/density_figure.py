"""Draws the density of landslides in a scene, as a matplotlib figure."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lgag_jax.evaluation.figures import STYLE

_COLOURS = "YlOrRd"
_HIGHEST = 98  # Percentile of the cells with landslides that has the darkest colour.
_WIDTH, _LEAST_HEIGHT, _MOST_HEIGHT = 9.0, 2.2, 5.0  # Inches.


def density(bands: np.ndarray, side: float) -> Figure:
  """Draws what `density.read` returns, f32[rows, cols, 2], of cells of `side` metres."""
  rows, cols = bands.shape[:2]
  unit, name = (1000.0, "km") if max(rows, cols) * side >= 2000 else (1.0, "m")
  extent = (0.0, cols * side / unit, rows * side / unit, 0.0)
  height = float(np.clip(0.38 * _WIDTH * rows / cols + 0.8, _LEAST_HEIGHT, _MOST_HEIGHT))
  with matplotlib.rc_context({**STYLE, "axes.grid": False}):
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    for axis, band, title in zip(
      figure.subplots(1, 2), (bands[..., 1], 100 * bands[..., 0]),
      ("Landslides per km\u00b2", "Mapped share of the area [%]"), strict=True,
    ):
      above = band[band > 0]
      top = float(np.percentile(above, _HIGHEST)) if len(above) else 1.0
      image = axis.imshow(
        band, cmap=_COLOURS, vmin=0, vmax=top, extent=extent, interpolation="nearest"
      )
      extend = "max" if len(above) and above.max() > top else "neither"
      figure.colorbar(image, ax=axis, extend=extend, shrink=0.9)
      axis.set(title=title, xlabel=name)
    return figure

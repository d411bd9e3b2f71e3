"""The bands that can be added to a scene: their ranges, and how files hold them."""

import dataclasses

import numpy as np

from lgag_jax.imagery import band_notes
from lgag_jax.imagery.band_notes import BandNotes
from lgag_jax.options.bands import CHANGE, INDICES, Settings

_STEEPEST = 4.0  # Radii of relief: those of a mean slope of 63 degrees across the disc.


@dataclasses.dataclass(frozen=True)
class Quantity:
  """What a band holds; files hold its range as 0 to full scale, and values beyond as its ends."""

  name: str
  low: float
  high: float
  unit: str = ""

  def encode(self, values: np.ndarray, dtype: np.dtype, full_scale: float) -> np.ndarray:
    """Returns values as a file of a type holds them."""
    scaled = np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0) * full_scale
    return (np.rint(scaled) if np.issubdtype(dtype, np.integer) else scaled).astype(dtype)

  def notes(self, full_scale: float) -> BandNotes:
    """Returns what a file says of the band."""
    unit = f" {self.unit}" if self.unit else ""
    text = f"{self.name}, {self.low:g} to {self.high:g}{unit} as 0 to {full_scale:g}"
    return BandNotes(text, tags={
      band_notes.QUANTITY: self.name, "LGAG_LOW": f"{self.low:g}", "LGAG_HIGH": f"{self.high:g}",
      "LGAG_UNIT": self.unit, band_notes.FULL_SCALE: f"{full_scale:g}",
    })


def asked_for(settings: Settings) -> list[Quantity]:
  """Returns the bands that --add names, in its order; those of a DEM as in `geo.terrain_layers`."""
  radius = settings.relief_radius
  terrain = {
    "slope": [Quantity("slope", 0, 90, "degrees")],
    "aspect": [Quantity("eastness", -1, 1), Quantity("northness", -1, 1)],
    "curvature": [Quantity("curvature", -90, 90, "degrees")],
    "relief": [Quantity("relief", 0, _STEEPEST * radius, f"m within {radius:g} m")],
  }
  indices = {name: [Quantity(name, -1, 1)] for name in INDICES}
  changes = {f"{name}{CHANGE}": [Quantity(f"{name}{CHANGE}", -2, 2)] for name in INDICES}
  bands = terrain | indices | changes
  return [quantity for name in settings.add for quantity in bands[name]]

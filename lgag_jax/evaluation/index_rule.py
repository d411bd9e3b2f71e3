"""Colour indices, from which image labels choose, and the rule that one of them gives."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from lgag_jax.runtime import sealed_json


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns log(a / b), offset by a 255th of the range so that black pixels do not divide by zero."""
  return np.log((a + 1 / 255) / (b + 1 / 255))


_LARGEST = 1e9  # Thresholds and weights are far smaller.

Index = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
# Of red, green and blue, f32[H, W] each in [0, 1]. Each may count with either sign.
INDICES: dict[str, Index] = {
  "red over green": lambda r, g, b: _ratio(r, g),
  "excess green": lambda r, g, b: (2 * g - r - b) / (r + g + b + 1 / 255),
  "red over blue": lambda r, g, b: _ratio(r, b),
  "brightness": lambda r, g, b: (r + g + b) / 3,
}
# Of near infrared, red and green. NDVI is the normalised difference vegetation index.
NIR_INDICES: dict[str, Index] = {
  "red over green": lambda n, r, g: _ratio(r, g),
  "NDVI": lambda n, r, g: (n - r) / (n + r + 1 / 255),
  "near infrared over green": lambda n, r, g: _ratio(n, g),
  "brightness": lambda n, r, g: (n + r + g) / 3,
}


@dataclasses.dataclass(frozen=True)
class ColourIndex:
  """A pixel is landslide where sign * index exceeds the threshold, in images that have enough of it."""

  name: str
  sign: int  # 1, or -1 where low values are landslides.
  threshold: float  # Of sign * index.
  share: float  # An image of which a smaller share exceeds the threshold has no landslide.
  weight: float = 0.0  # Log odds of landslide per unit of the index, beyond the threshold.
  near_infrared: bool = False  # Whether colours are those of NIR_INDICES.
  column: int = 0  # Of the colours, if it is a band of model.evidence_bands; else 0.

  def scores(self, colours: np.ndarray) -> np.ndarray:
    """Returns sign * index of colours f32[..., F], the first three those of the formulas, f32[...]."""
    if self.column:
      return self.sign * colours[..., self.column]
    return self.sign * _indices(self.near_infrared)[self.name](*np.moveaxis(colours[..., :3], -1, 0))

  def mapped(self, scores: np.ndarray) -> np.ndarray:
    """Returns where the rule maps landslides in images of scores f32[..., H, W], bool[..., H, W]."""
    above = scores >= self.threshold
    return above & (above.mean(axis=(-2, -1), keepdims=True) >= self.share)

  def log_odds(self, colours: np.ndarray) -> np.ndarray:
    """Returns weight * (score - threshold) of colours f32[..., F], f32[...]: log odds for a map."""
    return self.weight * (self.scores(colours) - self.threshold)

  def describe(self) -> str:
    """Returns the rule in words."""
    relation, value = ("above", self.threshold) if self.sign > 0 else ("below", -self.threshold)
    value = np.exp(value) if " over " in self.name else value
    return f"{self.name} {relation} {value:.3g} in at least {100 * self.share:g} % of an image"


def from_json(value: Any, bands: int) -> ColourIndex:
  """Returns the rule that `dataclasses.asdict` made; ValueError for anything else.

  `bands` is the number of model.evidence_bands, of which the rule may use one.
  """
  fields = {field.name for field in dataclasses.fields(ColourIndex)}
  if not isinstance(value, dict) or set(value) != fields:
    raise ValueError(f"its fields are not {', '.join(sorted(fields))}")
  rule = ColourIndex(**value)
  sound = type(rule.sign) is int and rule.sign in (1, -1) and isinstance(rule.near_infrared, bool)
  sound &= sealed_json.is_number(rule.share, 0.0, 1.0)
  sound &= all(sealed_json.is_number(x, -_LARGEST, _LARGEST) for x in (rule.threshold, rule.weight))
  named = isinstance(rule.name, str) and rule.name in _indices(bool(rule.near_infrared))
  of_band = type(rule.column) is int and 3 <= rule.column < 3 + bands and isinstance(rule.name, str)
  if not (sound and (of_band or (named and rule.column == 0))):
    raise ValueError(f"{str(value)[:200]} is no rule")
  return rule


def _indices(near_infrared: bool) -> dict[str, Index]:
  return NIR_INDICES if near_infrared else INDICES


def values(
  colours: np.ndarray, near_infrared: bool, bands: tuple[int, ...]
) -> dict[str, np.ndarray]:
  """Returns all indices of pixels f32[n, F], f32[n] each; see `colour_index.share_levels`."""
  found = {name: index(*colours[:, :3].T) for name, index in _indices(near_infrared).items()}
  of_bands = zip(bands, colours[:, 3:].T, strict=True)
  return found | {band_name(band): column for band, column in of_bands}


def band_name(band: int) -> str:
  """Returns the name of an index that is a band itself, such as the slope."""
  return f"band {band}"

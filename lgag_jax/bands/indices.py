"""Spectral indices of named bands: NDVI, NDWI and BSI, and their change between two dates."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from lgag_jax.imagery.opening import ImageError
from lgag_jax.options.bands import CHANGE, NAMES


def _normalised_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns (a - b) / (a + b), or 0 where the sum is 0."""
  total = a + b
  return np.divide(a - b, total, out=np.zeros_like(total), where=total != 0)


_INDICES: dict[str, tuple[tuple[str, ...], Callable[..., np.ndarray]]] = {
  "ndvi": (("nir", "red"), _normalised_difference),  # Rouse et al. (1974).
  "ndwi": (("green", "nir"), _normalised_difference),  # McFeeters (1996).
  "bsi": (  # Rikimaru, Roy and Miyatake (2002).
    ("swir1", "red", "nir", "blue"), lambda s, r, n, b: _normalised_difference(s + r, n + b)),
}


def check_names(path: pathlib.Path, wanted: Sequence[str], names: Sequence[str]) -> None:
  """Raises ImageError naming a scene whose bands have not the names that indices need."""
  for index in wanted:
    needed, _ = _INDICES[index.removesuffix(CHANGE)]
    if missing := [name for name in needed if name not in names]:
      known = ", ".join(name for name in names if name) or "none"
      raise ImageError(
        f"{path}: {index} needs {', '.join(needed)}, but no band is named {missing[0]} (names: "
        f"{known}). Name the bands in order, such as --names={','.join(NAMES[:4])}."
      )


def of_dates(
  dates: Sequence[np.ndarray], names: Sequence[str], wanted: Sequence[str]
) -> dict[str, np.ndarray]:
  """Returns indices f32[h, w] of the dates' pixels [h, w, bands], the one after the event first."""
  results = {}
  for index in wanted:
    needed, formula = _INDICES[index.removesuffix(CHANGE)]
    numbers = [names.index(name) for name in needed]
    values = [formula(*(date[..., n].astype(np.float32) for n in numbers)) for date in dates]
    # A quotient of values near zero may be anything.
    values = [np.clip(value, -1.0, 1.0) for value in values]
    results[index] = values[0] - values[1] if index.endswith(CHANGE) else values[0]
  return results

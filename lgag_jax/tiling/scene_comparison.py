"""Compares scenes that are cut into one training set: their types, values and ground resolutions."""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
from rasterio.windows import Window

from lgag_jax.geo.grid import Grid
from lgag_jax.geo.pair import Pair
from lgag_jax.geo.scene import Scene

_SAMPLES, _SAMPLE_SIDE = 5, 256  # Windows of a scene that are read, and their side in pixels.
_BRIGHT = 99.5  # The percentile that stands for the largest value: single pixels may be wrong.
# Larger ratios of two scenes are a warning. Light and ground differ less between scenes of one unit.
_MAX_VALUE_RATIO, _MAX_RESOLUTION_RATIO = 8.0, 1.5


@dataclasses.dataclass(frozen=True)
class SceneFigures:
  """What scenes of one training set should share."""

  dtype: np.dtype
  gsd: float | None  # Metres per pixel, if the file gives them.
  bright: float  # A large value of its sampled pixels; 0 without data.
  band_types: tuple[str, ...] = ()  # If its bands have several.


def sample_windows(grid: Grid) -> Iterator[Window]:
  """Yields windows along the diagonal of a scene."""
  height, width = min(grid.height, _SAMPLE_SIDE), min(grid.width, _SAMPLE_SIDE)
  for part in range(_SAMPLES):
    row, col = (part * (n - side) // (_SAMPLES - 1)
                for n, side in ((grid.height, height), (grid.width, width)))
    yield Window(col, row, width, height)


def figures(scene: Scene | Pair) -> SceneFigures:
  """Returns what is compared, from the header and a sample of the pixels; raises ImageError."""
  parts = [pixels[valid] for pixels, valid in map(scene.read, sample_windows(scene.grid))]
  values = np.concatenate([part.ravel() for part in parts])
  values = values[np.isfinite(values)]
  bright = float(np.percentile(values, _BRIGHT)) if values.size else 0.0
  types = tuple(dict.fromkeys(map(str, scene.band_types)))
  return SceneFigures(scene.dtype, scene.grid.gsd(), bright, types if len(types) > 1 else ())


def compare(scenes: dict[pathlib.Path, SceneFigures]) -> list[str]:
  """Returns warnings about wide types and scenes that differ; raises ValueError if their types do."""
  first, *others = scenes
  for other in others:
    if scenes[other].dtype != scenes[first].dtype:
      raise ValueError(
        f"{first} holds {scenes[first].dtype}, but {other} holds {scenes[other].dtype}: training "
        "scales each by the range of its own type. Give all scenes one type and one unit, such as with "
        "gdal_translate -ot and -scale, or cut a training set from each."
      )
  warnings = [
    f"{path} holds {scene.dtype}, and so will its tiles. To train on them, set data.max_value to the "
    "largest valid value, or first convert the scene: gdal_translate -ot Byte or -ot UInt16."
    for path, scene in scenes.items() if scene.dtype.kind in "ui" and scene.dtype.itemsize > 2
  ]
  warnings += [
    f"{path} has bands of {' and '.join(scene.band_types)}, and its tiles will hold {scene.dtype}. To "
    "train on them, set data.max_value or data.normalise='train', or first convert the bands to one "
    "type and one range of values."
    for path, scene in scenes.items() if scene.band_types
  ]
  resolutions = {path: scene.gsd for path, scene in scenes.items() if scene.gsd}
  if pair := _apart(resolutions, _MAX_RESOLUTION_RATIO):
    fine, coarse = pair
    warnings.append(
      f"{fine} has pixels of {resolutions[fine]:.3g} m, but {coarse} of {resolutions[coarse]:.3g} m, "
      "so their tiles show different areas of ground. Resample all scenes to one ground resolution "
      "(gdalwarp -tr), or cut a training set from each."
    )
  values = {path: scene.bright for path, scene in scenes.items() if scene.bright > 0}
  if pair := _apart(values, _MAX_VALUE_RATIO):
    dark, bright = pair
    warnings.append(
      f"the values of {dark} reach about {_shown(values[dark])}, but those of {bright} "
      f"{_shown(values[bright])}. Check that both are in one unit; gdal_translate -scale converts one."
    )
  return warnings


def _apart(
  numbers: dict[pathlib.Path, float], ratio: float
) -> tuple[pathlib.Path, pathlib.Path] | None:
  """Returns the scenes of the smallest and the largest number if these differ by more than a ratio."""
  if not numbers:
    return None
  low, high = min(numbers, key=numbers.__getitem__), max(numbers, key=numbers.__getitem__)
  return (low, high) if numbers[high] > ratio * numbers[low] else None


def _shown(value: float) -> str:
  return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

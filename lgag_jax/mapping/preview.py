"""The outlines of a map at other thresholds, quickly from its probabilities: a preview."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import numpy as np
import rasterio.features
import shapely.geometry
from affine import Affine
from shapely.geometry.base import BaseGeometry

from lgag_jax.inference import exclusive_classes
from lgag_jax.mapping import rasters
from lgag_jax.mapping.rasters import NO_DATA

_SIDE = 1500  # Pixels that the probabilities are read at, on the scene's longer side.
_MOST_VALUES = 4 * _SIDE**2  # Of all classes. With more than 4, the side is smaller.
_MIN_PIXELS = 16  # Of an outline. The map itself drops small regions, too.
_MOST = 3000  # Outlines.


@dataclasses.dataclass(frozen=True)
class Preview:
  """The largest outlines, and the share of the scene that is mapped."""

  outlines: Sequence[tuple[int, BaseGeometry]]  # In pixels of the scene, with their class from 0.
  share: float  # Of the pixels with data that reach a threshold.
  left_out: int  # Outlines that are smaller than those.


def preview(path: pathlib.Path, thresholds: Sequence[float]) -> Preview:
  """Draws the classes of a raster of probabilities; raises ImageError if it cannot be read.

  It must have a band for each of the `thresholds`. Large scenes are read at a
  smaller scale. Probabilities in percent are rounded.
  """
  bands = range(1, len(thresholds) + 1)
  with rasters.open_map_raster(path, len(bands)) as raster:
    height, width = raster.dataset.shape
    side = min(_SIDE, math.sqrt(_MOST_VALUES / len(bands)))
    step = max(1, math.ceil(max(height, width) / side))
    shape = math.ceil(height / step), math.ceil(width / step)
    scores = np.stack([raster.read(band, shape=shape) for band in bands], axis=-1)
  valid = scores[..., 0] != NO_DATA if scores.dtype == np.uint8 else ~np.isnan(scores[..., 0])
  scores = scores / np.float32(100 if scores.dtype == np.uint8 else 1)
  scores[~valid] = 0.0
  mask = exclusive_classes.drawn(scores, thresholds)
  scale = Affine.scale(width / shape[1], height / shape[0])
  found = [
    (int(value) - 1, shapely.geometry.shape(outline))
    for outline, value in rasterio.features.shapes(mask, mask > 0, connectivity=8, transform=scale)
  ]
  found = [(number, outline) for number, outline in found if outline.area >= _MIN_PIXELS]
  found.sort(key=lambda pair: -pair[1].area)
  share = np.count_nonzero(mask) / max(np.count_nonzero(valid), 1)
  return Preview(found[:_MOST], share, max(0, len(found) - _MOST))

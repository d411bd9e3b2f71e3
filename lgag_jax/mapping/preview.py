"""The outlines of a map at other thresholds or another gate, quickly: a preview."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import rasterio.features
import shapely.geometry
from affine import Affine
from shapely.geometry.base import BaseGeometry

from lgag_jax.inference import exclusive_classes
from lgag_jax.mapping import gate_windows, rasters
from lgag_jax.mapping.gate_windows import GateWindows
from lgag_jax.mapping.rasters import NO_DATA

_MIN_PIXELS = 16  # Of an outline. The map itself drops small regions, too.
_MOST = 3000  # Outlines.


@dataclasses.dataclass(frozen=True)
class Preview:
  """The largest outlines, and the share of the scene that is mapped."""

  outlines: Sequence[tuple[int, BaseGeometry]]  # In pixels of the scene, with their class from 0.
  share: float  # Of the pixels with data that reach a threshold.
  left_out: int  # Outlines that are smaller than those.


@dataclasses.dataclass(frozen=True)
class Gate:
  """A gate, and what a map needs to be drawn with it."""

  windows: GateWindows
  mapped: float  # The map's own.
  value: float


def preview(path: pathlib.Path, thresholds: Sequence[float], gate: Gate | None = None) -> Preview:
  """Draws the classes of a raster of probabilities; raises ImageError if it cannot be read.

  It must have a band for each of the `thresholds`. Large scenes are read at a
  smaller scale. Probabilities in percent are rounded. Where the `gate` opens or closes windows, their
  scores take the place of the raster's; raises ValueError if they do not fit it.
  """
  bands = range(1, len(thresholds) + 1)
  with rasters.open_map_raster(path, len(bands)) as raster:
    height, width = raster.dataset.shape
    shape = gate_windows.cell_shape(height, width, len(bands))
    scores = np.stack([raster.read(band, shape=shape) for band in bands], axis=-1)
  valid = scores[..., 0] != NO_DATA if scores.dtype == np.uint8 else ~np.isnan(scores[..., 0])
  scores = scores / np.float32(100 if scores.dtype == np.uint8 else 1)
  if gate:
    other, changed = gate.windows.at(gate.value, gate.mapped, shape)
    scores = np.where(changed, other, scores)
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

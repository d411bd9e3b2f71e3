"""Ties labels and decisions to the ground of a scene: its grid as a text, for tables and logs.

A scene without a place is told by a digest of its pixels. The CRS is left out: pixels keep their labels
if only the name of their system is corrected.
"""

import dataclasses
import functools
import hashlib
import math
import pathlib

import numpy as np
from affine import Affine
from rasterio.windows import Window

from lgag_jax.geo import crs_relation, vrt
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery import opening

COLUMN = "scene_grid"  # Of a table or a log.
_TOLERANCE = 0.5  # Pixels that a corner may be off, after another program has saved the scene.
_DIGEST, _ROWS = "sha256:", 64  # At most so many rows of pixels are in a digest.


@dataclasses.dataclass(frozen=True)
class SceneGround:
  """The ground that a scene shows."""

  scene: pathlib.Path
  grid: Grid

  @functools.cached_property
  def text(self) -> str:
    """Returns "<width>x<height>" and the transform's six numbers, or a digest of pixels.

    A scene without a place that cannot be read, such as one that was removed, has its size only.
    """
    size = f"{self.grid.width}x{self.grid.height}"
    if self.grid.placed:
      return " ".join([size, *(f"{number:.15g}" for number in self.grid.transform[:6])])
    digest = self._digest
    return f"{size} {_DIGEST}{digest}" if digest else size

  @functools.cached_property
  def _digest(self) -> str:
    digest = hashlib.sha256()  # Not of the file, which overviews and tags change.
    try:
      with vrt.open_scene_raster(self.scene) as raster, opening.error_context(self.scene):
        for row in range(0, raster.height, -(-raster.height // _ROWS)):
          digest.update(raster.read(window=Window(0, row, raster.width, 1)).tobytes())
    except (opening.ImageError, OSError):
      return ""
    return digest.hexdigest()[:32]

  def difference(self, text: str) -> str:
    """Returns how the scene of a `text` differs from this one, in words; "" if it does not.

    An empty text, as earlier releases left it, fits every scene. Raises ValueError for a damaged text.
    """
    if not text or text == self.text:
      return ""
    size, *place = text.split()
    width, height = map(int, size.split("x"))
    if (width, height) != (self.grid.width, self.grid.height):
      return f"it had {width} x {height} pixels, and now has {self.grid.width} x {self.grid.height}"
    if place and place[0].startswith(_DIGEST):
      digest = self._digest
      return "" if digest in ("", place[0].removeprefix(_DIGEST)) else "it showed something else"
    if not place:
      return ""
    corners = [(x, y) for x in (0, width) for y in (0, height)]
    a, b, c, d, e, f = map(float, place)
    other = Affine(a, b, c, d, e, f)
    moved = [~self.grid.transform @ (other @ corner) for corner in corners]
    if np.allclose(moved, corners, rtol=0, atol=_TOLERANCE):
      return ""
    if not self.grid.placed:
      return "it had a place on the ground, and now has none"
    return f"it lay at {_place(other)}, and now lies at {_place(self.grid.transform)}"

  def fits_crs(self, crs: str) -> bool:
    """Returns whether coordinates in a CRS, "" if it is unknown, mean the same place in the scene's."""
    if not (crs and self.grid.crs) or crs_relation.same(crs, self.grid.crs):
      return True
    transformer, transform = crs_relation.transformer(crs, self.grid.crs), self.grid.transform
    if transformer is None:
      return False
    moved = ~transform @ transformer.transform(transform.c, transform.f)
    return np.allclose(moved, (0, 0), rtol=0, atol=_TOLERANCE)


def _place(transform: Affine) -> str:
  """Returns the upper left corner and the steps of a pixel, in the units of the scene's CRS."""
  steps = math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e)
  return f"{transform.c:.10g}, {transform.f:.10g} with pixels of {steps[0]:.6g} x {steps[1]:.6g}"

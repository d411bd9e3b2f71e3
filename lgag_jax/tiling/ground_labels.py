"""Labels of the ground where somebody has decided; everything else is unknown."""

import hashlib

import numpy as np
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window

from lgag_jax.imagery import reading
from lgag_jax.options.tiling import UNKNOWN_LABEL, Settings

_INSET = 1e-6  # Pixels. Shapes that end on a tile's border do not reach into it.


class GroundLabels:
  """Shapes in a scene's pixels, with what each is. Later shapes cover earlier ones."""

  def __init__(
    self, geometries: np.ndarray, values: np.ndarray, undecided: np.ndarray, settings: Settings,
    *, is_partial: bool = False,
  ):
    """Takes shapes with their values, u8[n], k for class k and 0 for none, and undecided shapes.

    `is_partial`: they do not show all landslides that are known in other labels, as a review does.
    """
    self._is_partial = is_partial
    self._geometries, self._values, self._settings = geometries, values, settings
    self._tree = shapely.STRtree(geometries)
    self._doubtful_tree = shapely.STRtree(np.concatenate([undecided, geometries[values > 0]]))
    dimensions = shapely.get_dimensions(geometries)
    # Of a point only one pixel is known, and of a line few: what is named at all is certain.
    self._always_enough = (dimensions == 0) | ((dimensions == 1) & (values > 0))
    self._has_outlines = bool(np.any(dimensions > 0))

  @property
  def count(self) -> int:
    """The number of shapes."""
    return len(self._geometries)

  @property
  def digest(self) -> str:
    """What tells these shapes and values from any others."""
    content = b"".join(shapely.to_wkb(self._geometries).tolist()) + self._values.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]

  def read(self, window: Window) -> np.ndarray:
    """Returns u8[h, w] of a window: k for class k, 0 for certain background, else UNKNOWN."""
    size, hits = (int(window.height), int(window.width)), self._hits(window)
    if not len(hits):
      return np.full(size, reading.UNKNOWN, np.uint8)
    pairs = zip(self._geometries[hits], self._values[hits].tolist(), strict=True)
    origin = Affine.translation(window.col_off, window.row_off)
    return rasterize(
      pairs, out_shape=size, fill=reading.UNKNOWN, transform=origin, dtype=np.uint8)

  def label(
    self, window: Window, valid: np.ndarray, buffer: float
  ) -> tuple[str, np.ndarray | None]:
    """Returns the label and the mask of a tile, bool[h, w] `valid`; `buffer` is in pixels.

    A tile is negative if something in it was called no landslide, and nothing in it may be one: whoever
    decided has looked there. A tile without any shape is negative only with --unmapped_background.
    Points alone give no mask.
    """
    name, mask = self._label(window, valid, buffer)
    return name, mask if self._has_outlines else None

  def label_over(
    self, name: str, other_mask: np.ndarray | None, window: Window, valid: np.ndarray, buffer: float
  ) -> tuple[str, np.ndarray | None]:
    """Returns the label and the mask of a tile that has others, which count where nobody decided."""
    own_name, mask = self._label(window, valid, buffer)
    background = self._settings.background
    if own_name == background and self._is_partial and name == UNKNOWN_LABEL:
      undecided = np.count_nonzero((mask == reading.UNKNOWN) & valid)  # May hold a landslide.
      return (name, None) if undecided >= self._least(mask) else (background, mask)
    if own_name == background and self._is_partial and name in self._settings.classes:
      if other_mask is None:  # The landslide is beside what was drawn.
        return name, mask if self._has_outlines else None
      other_mask = np.where(mask == reading.UNKNOWN, other_mask, mask)
      return (name if self._has_landslide(other_mask) else background), other_mask
    if own_name != UNKNOWN_LABEL:
      return own_name, mask
    if self._has_landslide(mask):  # Too little of a landslide, or several classes.
      return UNKNOWN_LABEL, mask
    if other_mask is not None:
      other_mask = np.where(mask == reading.UNKNOWN, other_mask, mask)
    elif name in self._settings.classes and np.any(mask != reading.UNKNOWN):
      other_mask = mask if self._has_outlines else None
    return name, other_mask

  def _label(self, window: Window, valid: np.ndarray, buffer: float) -> tuple[str, np.ndarray]:
    settings = self._settings
    mask = np.where(valid, self.read(window), np.uint8(reading.UNKNOWN))
    pixels = {number: np.count_nonzero(mask == number) for number in range(len(settings.classes) + 1)}
    classes = [number for number, count in pixels.items() if count and number]
    minimum = self._least(mask)
    hits = self._hits(window)
    certain = set(self._values[hits[self._always_enough[hits]]].tolist())
    enough = {n: count >= (1 if n in certain else minimum) for n, count in pixels.items()}
    name = UNKNOWN_LABEL
    if classes:  # A tile has one class: with pixels of several classes its label is uncertain.
      if len(classes) == 1 and enough[classes[0]]:
        name = settings.classes[classes[0] - 1]
    elif not self.near_doubt(window, buffer) and (
      enough[0] or (settings.unmapped_background and not pixels[0])
    ):
      name = settings.background
    return name, mask

  def _least(self, mask: np.ndarray) -> float:
    """Returns the pixels of a landslide below which a tile is not called one."""
    return max(self._settings.min_pixels, self._settings.min_fraction * mask.size)

  def _hits(self, window: Window) -> np.ndarray:
    """Returns the shapes in a window, in their order."""
    return np.sort(self._tree.query(_box(window, 0.0), predicate="intersects"))

  @staticmethod
  def _has_landslide(mask: np.ndarray) -> bool:
    return bool(np.any((mask > 0) & (mask != reading.UNKNOWN)))

  def near_doubt(self, window: Window, distance: float) -> bool:
    """Returns whether a landslide or an undecided shape is within so many pixels of a window."""
    box = _box(window, _INSET)
    return len(self._doubtful_tree.query(box, predicate="dwithin", distance=distance)) > 0


def _box(window: Window, inset: float) -> shapely.Geometry:
  return shapely.box(
    window.col_off + inset, window.row_off + inset,
    window.col_off + window.width - inset, window.row_off + window.height - inset,
  )

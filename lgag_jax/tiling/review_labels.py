"""Labels that a review of a map gives (--mode=review): certain where a person decided, else unknown."""

import logging
import pathlib

import numpy as np
import pyogrio.raw
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window

from lgag_jax.geo import shapes
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery import reading
from lgag_jax.options.tiling import UNKNOWN_LABEL, Settings
from lgag_jax.tiling import review_files
from lgag_jax.tiling.review_files import (
  LANDSLIDES,
  LAYER,
  MISSED,
  NOT_LANDSLIDE,
  ORIGINALS,
  REJECTED,
  ReviewFile,
)

_LOG = logging.getLogger(__name__)

_INSET = 1e-6  # Pixels. Shapes that end on a tile's border do not reach into it.


def open_review(
  path: pathlib.Path, scene: pathlib.Path, grid: Grid, settings: Settings, flag: str = "labels"
) -> "ReviewLabels | None":
  """Opens the review of a scene, which `--flag` names; None if a folder of reviews has none of it."""
  review = review_files.of_scene(review_files.find(path, flag), scene, grid)
  if review is None:
    level = logging.WARNING if flag == "labels" else logging.INFO  # Else it has other labels.
    _LOG.log(level, "%s has no review in %s.", scene, path)
    return None
  return ReviewLabels(review, grid, settings)


class ReviewLabels:
  """The decisions on a scene, in its pixels. Later shapes cover earlier ones."""

  def __init__(self, review: ReviewFile, grid: Grid, settings: Settings):
    """Reads a review; raises ValueError naming the file and the remedy."""
    self._path, self._grid, self._settings = review.path, grid, settings
    classes = settings.classes
    try:
      decisions = pyogrio.raw.read(
        review.path, layer=LAYER, columns=["decision"], read_geometry=False)[3][0]
    except (RuntimeError, ValueError) as error:
      raise ValueError(f"{review.path} cannot be read as labels: {error}.") from error
    self._known = {str(decision or "") for decision in decisions}
    known = {"", REJECTED, MISSED, NOT_LANDSLIDE, *LANDSLIDES}
    if unknown := sorted(self._known - known):
      raise ValueError(
        f"{review.path} holds the decision {unknown[0]!r}: leave it empty, or use one of "
        f"{', '.join(sorted(known - {''}))}."
      )
    parts = [
      self._read((REJECTED,)), self._read(("redrawn",), layer=ORIGINALS),
      self._read(LANDSLIDES, classes, "class"), self._drawn(classes),
    ]
    self._geometries = np.concatenate([part[0] for part in parts])
    self._values = np.concatenate([part[1] for part in parts])
    self._tree = shapely.STRtree(self._geometries)
    undecided = self._read(("",))[0]
    landslides = self._geometries[self._values > 0]
    self._doubtful_tree = shapely.STRtree(np.concatenate([undecided, landslides]))

  def read(self, window: Window) -> np.ndarray:
    """Returns u8[h, w] of a window: k for class k, 0 for certain background, else UNKNOWN."""
    size = int(window.height), int(window.width)
    hits = np.sort(self._tree.query(_box(window, 0.0), predicate="intersects"))
    if not len(hits):
      return np.full(size, reading.UNKNOWN, np.uint8)
    pairs = zip(self._geometries[hits], self._values[hits].tolist(), strict=True)
    origin = Affine.translation(window.col_off, window.row_off)
    return rasterize(
      pairs, out_shape=size, fill=reading.UNKNOWN, transform=origin, dtype=np.uint8)

  def label(
    self, window: Window, valid: np.ndarray, buffer: float
  ) -> tuple[str, np.ndarray]:
    """Returns the label and the mask of a tile, bool[h, w] `valid`; `buffer` is in pixels.

    A tile is negative if something in it was called no landslide, and nothing in it may be one: whoever
    decided has looked there. A tile without any polygon is negative only with --unmapped_background.
    """
    settings = self._settings
    mask = np.where(valid, self.read(window), np.uint8(reading.UNKNOWN))
    pixels = {name: np.count_nonzero(mask == number) for number, name in enumerate(settings.classes, 1)}
    classes = [name for name, count in pixels.items() if count]
    minimum = max(settings.min_pixels, settings.min_fraction * mask.size)
    rejected, name = np.count_nonzero(mask == 0), UNKNOWN_LABEL
    if classes:  # A tile has one class: with pixels of several classes its label is uncertain.
      if len(classes) == 1 and pixels[classes[0]] >= minimum:
        name = classes[0]
    elif not self.near_doubt(window, buffer) and (
      rejected >= minimum or (settings.unmapped_background and not rejected)
    ):
      name = settings.background
    return name, mask

  def label_over(
    self, name: str, other_mask: np.ndarray | None, window: Window, valid: np.ndarray, buffer: float
  ) -> tuple[str, np.ndarray | None]:
    """Returns the label and the mask of a tile that has others, which count where nobody decided."""
    own_name, mask = self.label(window, valid, buffer)
    if own_name != UNKNOWN_LABEL:
      return own_name, mask
    if np.any((mask > 0) & (mask != reading.UNKNOWN)):  # Too little of a landslide, or several classes.
      return UNKNOWN_LABEL, mask
    if other_mask is not None:
      other_mask = np.where(mask == reading.UNKNOWN, other_mask, mask)
    return name, other_mask

  def near_doubt(self, window: Window, distance: float) -> bool:
    """Returns whether a landslide or an undecided polygon is within so many pixels of a window."""
    box = _box(window, _INSET)
    return len(self._doubtful_tree.query(box, predicate="dwithin", distance=distance)) > 0

  def _drawn(self, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns what was drawn, in this order, and its classes, 0 for what is no landslide."""
    geometries, kinds = self._read((MISSED, NOT_LANDSLIDE), (MISSED, NOT_LANDSLIDE), "decision")
    values = np.zeros(len(kinds), np.uint8)
    values[kinds == 1] = self._read((MISSED,), classes, "class")[1]
    return geometries, values

  def _read(
    self, decisions: tuple[str, ...], values: tuple[str, ...] = (), field: str = "", layer: str = LAYER
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shapes with these decisions, and from 1 which of the values a field has, or 0."""
    if not self._known & set(decisions):
      return np.array([], object), np.array([], np.uint8)
    texts = ", ".join(f"'{decision}'" for decision in decisions)
    where = f"coalesce(decision, '') IN ({texts})"
    found = shapes.read_shapes(
      self._path, self._grid, values or ("",), layer=layer, field=field, where=where
    )
    if found.kind != "polygons":
      raise ValueError(f"{self._path}: the layer {layer} must hold polygons only.")
    return found.geometries, found.classes if field else np.zeros(len(found.classes), np.uint8)


def _box(window: Window, inset: float) -> shapely.Geometry:
  return shapely.box(
    window.col_off + inset, window.row_off + inset,
    window.col_off + window.width - inset, window.row_off + window.height - inset,
  )

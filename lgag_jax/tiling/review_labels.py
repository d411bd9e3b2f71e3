"""Labels that a review of a map gives (--mode=review): certain where a person decided, else unknown.

A review is a GeoPackage per scene. Its layer `review` holds each polygon of the map with the decision
on it, and what was drawn; its layer `originals` holds the outlines as they were mapped.
"""

import dataclasses
import json
import pathlib

import numpy as np
import pyogrio
import pyogrio.raw
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window

from lgag_jax.geo import shapes
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery import reading

LAYER, ORIGINALS = "review", "originals"
NOT_LANDSLIDE = "not_landslide"  # A decision, and the class of what has it.
LANDSLIDES = ("accepted", "redrawn")  # Decisions on mapped polygons.
REJECTED, MISSED = "rejected", "missed"
COLUMNS = ("feature", "number", "decision", "class")
LOG_SUFFIX = ".jsonl"
_INSET = 1e-6  # Pixels. Shapes that end on a tile's border do not reach into it.


@dataclasses.dataclass(frozen=True)
class ReviewFile:
  """What a review's GeoPackage says of itself."""

  path: pathlib.Path
  scene: str  # The scene's file name.
  source: str  # Its absolute path when it was mapped.
  size: tuple[int, int]  # Rows and columns.
  log_bytes: int  # The length of the log that it was written from.
  digest: str  # Of its features as they were written.


def describe(path: pathlib.Path) -> ReviewFile | None:
  """Returns what a GeoPackage says of itself; None if it is no review."""
  with path.open("rb") as file:
    if not file.read(16).startswith(b"SQLite format 3\0"):
      return None
  try:
    info = pyogrio.read_info(path, layer=LAYER)
    if info["driver"] != "GPKG" or not set(COLUMNS) <= set(info["fields"]):
      return None
    note = json.loads((info["layer_metadata"] or {})["lgag_review"])
    return ReviewFile(
      path, str(note["scene"]), str(note["source"]), (int(note["height"]), int(note["width"])),
      int(note["log_bytes"]), str(note["digest"]),
    )
  except (RuntimeError, ValueError, LookupError, TypeError):  # pyogrio raises the first two.
    return None


def find(labels: pathlib.Path) -> list[ReviewFile]:
  """Returns the reviews in a folder or a file; [] if the file is none.

  Raises ValueError for a folder without any.
  """
  if not labels.is_dir():
    is_package = labels.suffix.lower() == ".gpkg" and labels.is_file()
    return [review] if is_package and (review := describe(labels)) else []
  reviews = [review for path in sorted(labels.glob("*.gpkg")) if (review := describe(path))]
  if not reviews:
    raise ValueError(
      f"--labels={labels} is a folder without a review: name a file of labels, or review a map with "
      "--mode=review first."
    )
  return reviews


def check(labels: pathlib.Path, scenes: list[pathlib.Path]) -> None:
  """Raises ValueError or FileNotFoundError if labels are reviews of none of the scenes."""
  if not labels.exists():
    raise FileNotFoundError(f"--labels={labels}: no such file.")
  reviews = find(labels)
  if reviews and not {review.scene for review in reviews} & {scene.name for scene in scenes}:
    raise ValueError(
      f"--labels={labels} holds reviews of {', '.join(r.scene for r in reviews[:5])}, which "
      "--input does not name: name the scenes that were mapped."
    )


def of_scene(reviews: list[ReviewFile], scene: pathlib.Path, grid: Grid) -> ReviewFile | None:
  """Returns the review of a scene, None if it has none; raises ValueError if it does not fit."""
  same = [review for review in reviews if review.scene == scene.name]
  if len(same) > 1:
    same = [review for review in same if review.source == str(scene.absolute())]
    if len(same) != 1:
      raise ValueError(
        f"--labels: several reviews are of scenes named {scene.name}: name the GeoPackage of one."
      )
  if not same:
    return None
  review, size = same[0], (grid.height, grid.width)
  if review.size != size:
    raise ValueError(
      f"{review.path} is a review of {review.size[0]} x {review.size[1]} pixels, but {scene} has "
      f"{size[0]} x {size[1]}: use the scene that was mapped."
    )
  log = review.path.with_suffix(LOG_SUFFIX)
  if log.exists() and log.stat().st_size != review.log_bytes:
    raise ValueError(
      f"{review.path} lacks the last decisions in {log.name}: end the review, or run --mode=review "
      "once more if it was killed."
    )
  return review


class ReviewLabels:
  """The decisions on a scene, in its pixels. Later shapes cover earlier ones."""

  def __init__(self, review: ReviewFile, grid: Grid, classes: tuple[str, ...]):
    """Reads a review; raises ValueError naming the file and the remedy."""
    self._path, self._grid = review.path, grid
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

"""Labels that a review of a map gives (--mode=review): certain where a person decided, else unknown."""

import logging
import pathlib

import numpy as np
import pyogrio.raw

from lgag_jax.geo import drawn_shapes, layer_fields, shapes
from lgag_jax.geo.grid import Grid
from lgag_jax.options.tiling import Settings
from lgag_jax.tiling import drawn_labels, review_files
from lgag_jax.tiling.ground_labels import GroundLabels
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

_Shapes = tuple[np.ndarray, np.ndarray]  # Geometries and values, 0 for none.


def open_review(
  path: pathlib.Path, scene: pathlib.Path, grid: Grid, settings: Settings, flag: str = "labels"
) -> GroundLabels | None:
  """Opens the review of a scene, which `--flag` names; None if a folder of reviews has none of it."""
  review_files.require_readable(path, scene)
  review = review_files.of_scene(review_files.find(path, flag), scene, grid)
  if review is None:
    level = logging.WARNING if flag == "labels" else logging.INFO  # Else it has other labels.
    _LOG.log(level, "%s has no review in %s.", scene, path)
    return None
  return _read(review, grid, settings)


def _read(review: ReviewFile, grid: Grid, settings: Settings) -> GroundLabels:
  """Reads a review; raises ValueError naming the file and the remedy."""
  try:
    decisions = pyogrio.raw.read(
      review.path, layer=LAYER, columns=["decision"], read_geometry=False)[3][0]
  except (RuntimeError, ValueError) as error:
    raise ValueError(f"{review.path} cannot be read as labels: {error}.") from error
  found = {str(decision or "") for decision in decisions}
  known = {"", REJECTED, MISSED, NOT_LANDSLIDE, *LANDSLIDES}
  if unknown := sorted(found - known):
    raise ValueError(
      f"{review.path} holds the decision {unknown[0]!r}: leave it empty, or use one of "
      f"{', '.join(sorted(known - {''}))}."
    )
  polygons = _Polygons(review.path, grid, found)
  parts = [
    polygons.read((REJECTED,)), polygons.read(("redrawn",), layer=ORIGINALS),
    polygons.read(LANDSLIDES, settings.classes, "class"), polygons.drawn(settings.classes),
    _added_layers(review, grid, settings),
  ]
  geometries, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
  return GroundLabels(geometries, values, polygons.read(("",))[0], settings)


def _added_layers(review: ReviewFile, grid: Grid, settings: Settings) -> _Shapes:
  """Returns the shapes of layers that somebody added in a GIS, such as one of lines."""
  names = []
  for name, fields in drawn_shapes.layers(review.path).items():
    if name in (LAYER, ORIGINALS):
      continue
    if layer_fields.name_in(fields, layer_fields.DECISION):
      names.append(name)
    else:
      _LOG.warning(
        "%s: its layer %s is not used, since it has no field %s.", review.path, name,
        layer_fields.DECISION,
      )
  if not names:
    return np.array([], object), np.array([], np.uint8)
  return drawn_labels.read_decisions(review.path, names, grid, settings, review.scene)


class _Polygons:
  """The polygons of a review by their decisions."""

  def __init__(self, path: pathlib.Path, grid: Grid, decisions: set[str]):
    self._path, self._grid, self._decisions = path, grid, decisions

  def drawn(self, classes: tuple[str, ...]) -> _Shapes:
    """Returns what was drawn, in this order."""
    geometries, kinds = self.read((MISSED, NOT_LANDSLIDE), (MISSED, NOT_LANDSLIDE), "decision")
    values = np.zeros(len(kinds), np.uint8)
    values[kinds == 1] = self.read((MISSED,), classes, "class")[1]
    return geometries, values

  def read(
    self, decisions: tuple[str, ...], values: tuple[str, ...] = (), field: str = "", layer: str = LAYER
  ) -> _Shapes:
    """Returns the shapes with these decisions, and from 1 which of the values a field has, or 0."""
    if not self._decisions & set(decisions):
      return np.array([], object), np.array([], np.uint8)
    texts = ", ".join(f"'{decision}'" for decision in decisions)
    where = f"coalesce(decision, '') IN ({texts})"
    found = shapes.read_shapes(
      self._path, self._grid, values or ("",), layer=layer, field=field, where=where
    )
    if found.kind != "polygons":
      raise ValueError(f"{self._path}: the layer {layer} must hold polygons only.")
    return found.geometries, found.classes if field else np.zeros(len(found.classes), np.uint8)

"""Labels drawn in a GIS: shapes that say what is a landslide and what is none.

Only what is drawn is known. An inventory, in contrast, says that everything outside it is background.
"""

import logging
import pathlib

import numpy as np
import shapely

from lgag_jax.geo import class_fields, drawn_shapes, layer_fields, placement, tile_outlines
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.layer_fields import DECISION
from lgag_jax.options.tiling import UNKNOWN_LABEL, Settings
from lgag_jax.tiling import review_files, tile_labels
from lgag_jax.tiling.ground_labels import GroundLabels
from lgag_jax.tiling.review_files import MISSED, NOT_LANDSLIDE

_LOG = logging.getLogger(__name__)

_UNDECIDED = 255


def are_drawn(path: pathlib.Path, settings: Settings) -> bool:
  """Returns whether --labels names what is no landslide, too: in a field, or in --negative_labels."""
  if settings.negative_labels:
    return True
  layers = _layers(path, settings.layer)
  if any(map(layer_fields.of_review, layers.values())):  # An exported review.
    return False
  words: set[str] = set()
  for name, fields in layers.items():
    field = settings.field or layer_fields.name_in(fields, DECISION)
    words |= drawn_shapes.values(path, name, field) if field in fields else set()
  if not settings.field:
    return bool(set(map(layer_fields.decision_word, words)) & {MISSED, NOT_LANDSLIDE})
  return any(_is_background(word, settings) for word in words)


def open_drawn(
  path: pathlib.Path, scene: pathlib.Path, grid: Grid, settings: Settings
) -> GroundLabels:
  """Opens what --labels and --negative_labels name; raises ValueError naming file and remedy."""
  _require_place(path, grid)
  names = list(_layers(path, settings.layer))
  if settings.field or not settings.negative_labels:
    field = settings.field or DECISION
    read = _read_field if settings.field else read_decisions
    _require_field(path, names, field, settings)
    geometries, values = read(path, names, grid, settings, scene)
  else:
    if len(settings.classes) > 1:
      raise ValueError(f"{path}: set --field to the field that holds the class.")
    for name, fields in _layers(path, settings.layer).items():
      if field := layer_fields.name_in(fields, DECISION):
        layer_fields.check_decisions(path, drawn_shapes.values(path, name, field))
      class_fields.check_kinds(path, _kinds(path, name, fields), settings.classes, settings.background)
    geometries = drawn_shapes.read(path, names, (), grid, scene).geometries
    values = np.ones(len(geometries), np.uint8)
  if settings.negative_labels:
    other = pathlib.Path(settings.negative_labels)
    negatives = drawn_shapes.read(other, list(_layers(other, "")), (), grid, scene).geometries
    geometries = np.concatenate([geometries, negatives])
    values = np.concatenate([values, np.zeros(len(negatives), np.uint8)])
    order = np.argsort(-shapely.get_dimensions(geometries), kind="stable")
    geometries, values = geometries[order], values[order]
  decided = values != _UNDECIDED
  _log(path, scene, grid, geometries[decided], values[decided])
  return GroundLabels(
    geometries[decided], values[decided], geometries[~decided], settings, is_partial=True)


def open_decisions(
  path: pathlib.Path, scene: pathlib.Path, grid: Grid, settings: Settings
) -> GroundLabels:
  """Opens shapes with a field `decision`, which --review names."""
  _require_place(path, grid)
  names = list(_layers(path, ""))
  _require_field(path, names, DECISION, settings)
  geometries, values = read_decisions(path, names, grid, settings, scene)
  _log(path, scene, grid, geometries, values)
  return GroundLabels(geometries, values, np.array([], object), settings, is_partial=True)


def _require_place(path: pathlib.Path, grid: Grid) -> None:
  if warning := placement.unplaced_warning(grid):
    raise ValueError(f"{path} cannot label the scene: {warning}")


def read_decisions(
  path: pathlib.Path, names: list[str], grid: Grid, settings: Settings, scene: pathlib.Path | str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns shapes and values: `missed` is a landslide, of the class in the field `class`."""
  drawn = drawn_shapes.read(path, names, (DECISION, "class"), grid, scene)
  words = zip(drawn.words[DECISION], drawn.words["class"], strict=True)
  numbers = [_decided(path, decision, class_name, settings) for decision, class_name in words]
  return drawn.geometries, np.array(numbers, np.uint8)


def _decided(path: pathlib.Path, decision: str, class_name: str, settings: Settings) -> int:
  if decision == NOT_LANDSLIDE:
    return 0
  if decision != MISSED:
    raise ValueError(
      f"{path}: a shape has the {DECISION} {decision!r}: write {MISSED} or {NOT_LANDSLIDE} "
      "into the field, or delete the shape."
    )
  if not class_name and len(settings.classes) == 1:
    return 1
  if class_name not in settings.classes:
    raise ValueError(
      f"{path}: a {MISSED} landslide has the class {class_name!r}, which is not among the classes "
      f"({', '.join(settings.classes)}): write one of them into its field class."
    )
  return settings.classes.index(class_name) + 1


def _read_field(
  path: pathlib.Path, names: list[str], grid: Grid, settings: Settings, scene: pathlib.Path | str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns shapes and values by the field --field; a field `decision` may not deny a landslide."""
  drawn = drawn_shapes.read(path, names, (settings.field, DECISION), grid, scene)
  numbers = {settings.background: 0, UNKNOWN_LABEL: _UNDECIDED}
  numbers |= {name: number for number, name in enumerate(settings.classes, 1)}
  labels = [
    settings.background if word == NOT_LANDSLIDE
    else tile_labels.read_label(f"{path}: a shape", word, settings)
    for word in drawn.words[settings.field]
  ]
  values = np.array([numbers[label] for label in labels], np.uint8)
  if settings.field != DECISION:
    decisions = drawn.words[DECISION][(values > 0) & (values != _UNDECIDED)]
    layer_fields.check_decisions(path, decisions[decisions != ""].tolist())
  return drawn.geometries, values


def check_negatives(settings: Settings, *, of_tiles: bool) -> None:
  """Raises ValueError or FileNotFoundError if --negative_labels cannot be used with --labels."""
  path, positives = pathlib.Path(settings.negative_labels), pathlib.Path(settings.labels)
  if not path.is_file():
    raise FileNotFoundError(f"--negative_labels={path}: no such file.")
  if of_tiles or review_files.find(positives) or not _layers(positives, settings.layer):
    raise ValueError(
      f"--negative_labels={path} needs a layer of landslides (.gpkg, .shp, .geojson) as --labels, but "
      f"{positives} is none."
    )
  layers = _layers(path, "")
  if not layers:
    raise ValueError(f"--negative_labels={path} is no layer of shapes (.gpkg, .shp, .geojson).")
  if path.samefile(positives):
    raise ValueError(f"--negative_labels={path} is the file of --labels. Give that of the negatives.")
  if tile_outlines.tile_layers(path) or any(
    layer_fields.name_in(fields, DECISION) for fields in layers.values()
  ):
    raise ValueError(
      f"--negative_labels={path} holds outlines of tiles or decisions of a review. Give a layer in "
      "which every shape is no landslide."
    )
  for name, fields in layers.items():
    class_fields.check_negatives(path, _kinds(path, name, fields), settings.classes)


def _kinds(path: pathlib.Path, layer: str, fields: set[str]) -> dict[str, set[str]]:
  return {field: drawn_shapes.values(path, layer, field) for field in class_fields.of_kinds(fields)}


def _layers(path: pathlib.Path, layer: str) -> dict[str, set[str]]:
  """Returns the fields of the layers to read."""
  layers = drawn_shapes.layers(path)
  if layer and layers and layer not in layers:
    raise ValueError(f"{path} has no layer {layer!r}: choose one with --layer, of {', '.join(layers)}.")
  return {layer: layers[layer]} if layer and layers else layers


def _require_field(path: pathlib.Path, names: list[str], field: str, settings: Settings) -> None:
  layers = _layers(path, settings.layer if path == pathlib.Path(settings.labels) else "")
  for name in names:
    if not (layer_fields.name_in(layers[name], field) if field == DECISION else field in layers[name]):
      raise ValueError(
        f"{path}: its layer {name} has no field {field!r}, which says what is a landslide and what is "
        "none. Add it, or remove the layer from the file."
      )


def _is_background(word: str, settings: Settings) -> bool:
  """Returns whether a word in --field names what is no landslide."""
  if word == NOT_LANDSLIDE:
    return True
  try:
    return tile_labels.read_label("", word, settings) == settings.background
  except ValueError:
    return False


def _log(
  path: pathlib.Path, scene: pathlib.Path | str, grid: Grid, geometries: np.ndarray, values: np.ndarray
) -> None:
  if not len(geometries):
    raise ValueError(f"{path} holds no shape that can be read: draw landslides and what is none.")
  inside = shapely.intersects(geometries, shapely.box(0, 0, grid.width, grid.height))
  if not inside.any():
    _LOG.warning(
      "%s: none of its %d shapes lies in %s. Check its coordinates.", path, len(inside), scene)
    return
  _LOG.info(
    "%s: %d shapes of landslides and %d of none lie in %s. Only what is drawn is known: tiles without "
    "a shape are skipped.", path, np.sum(inside & (values > 0)), np.sum(inside & (values == 0)), scene,
  )

"""Labels of the tiles themselves: a table (CSV), or a layer of tile outlines with a field `label`."""

import math
import pathlib
from collections.abc import Iterable

import numpy as np
import shapely

from lgag_jax.geo import antimeridian, scene_ground, shapes, tile_outlines
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scene_ground import SceneGround
from lgag_jax.imagery import listing
from lgag_jax.inputs import splits
from lgag_jax.options.tiling import NO_DATA, UNKNOWN_LABEL, Settings
from lgag_jax.tiling import label_rows, tile_grid
from lgag_jax.tiling.label_rows import LabelRow

_TOLERANCE = 0.5  # Pixels that an outline's borders may be off, after a GIS has converted it.


def are_of_tiles(path: pathlib.Path, settings: Settings) -> bool:
  """Returns whether a file holds labels of tiles and not of the ground."""
  return path.suffix.lower() == ".csv" or bool(tile_outlines.tile_layers(path, settings.layer))


def are_answers(path: pathlib.Path, settings: Settings) -> bool:
  """Returns whether labels of tiles were given by hand to tiles that --mode=label has listed."""
  return any(row.is_answer for row in label_rows.read(path, settings))


def check_scenes(scenes: list[pathlib.Path], settings: Settings) -> None:
  """Raises ValueError if --labels name none of the scenes in a row, or hold no label at all."""
  path = pathlib.Path(settings.labels)
  rows, named = label_rows.read(path, settings), _by_name(scenes)
  for row in rows:
    name = row.cells.get("scene") or ""
    if listing.name_key(name) not in named and (name or len(scenes) > 1 or label_rows.is_layer(path)):
      raise ValueError(
        f"{row.where} names the scene {name!r}, which is not in --input={settings.input}: "
        f"{', '.join(scene.name for scene in scenes[:5])}{', ...' if len(scenes) > 5 else ''}."
      )
  if label_rows.is_layer(path) and not any(row.cells["label"] for row in rows):
    raise ValueError(
      f"{path} holds the outlines of {len(rows)} tiles, and their field label is empty: fill it in, "
      f"such as in QGIS, with {', '.join((*settings.classes, settings.background))} or {UNKNOWN_LABEL}."
    )


def _by_name(scenes: Iterable[pathlib.Path]) -> dict[str, pathlib.Path]:
  """Returns the scenes by the names that a table may call them: with their suffix, and without.

  The stem of a.png.tif is the whole name of a.png, which then means a.png.
  """
  scenes = list(scenes)
  stems = {listing.stem_key(scene): scene for scene in scenes}
  return stems | {listing.name_key(scene.name): scene for scene in scenes}


def read(
  path: pathlib.Path, scene: pathlib.Path, grid: Grid, settings: Settings,
  scenes: Iterable[pathlib.Path],
) -> dict[tuple[int, int], str]:
  """Returns the labels by row and column of the tiles of a scene, one of `scenes`.

  In a table of --mode=label, which has the column tile_size, the latest row of a tile counts. There and
  in a layer an empty label means that there is no answer. Raises ValueError naming a row that does not
  fit the scene.
  """
  by_name = _by_name(scenes)
  rows = [
    row for row in label_rows.read(path, settings)
    if not (name := row.cells.get("scene")) or by_name.get(listing.name_key(name)) == scene
  ]
  if is_layer := label_rows.is_layer(path):
    _check_outlines(path, rows, scene, grid, settings)
  are_answers = not is_layer and any(row.is_answer for row in rows)
  ground = SceneGround(scene, grid)
  named = lambda row: (row.cells.get("row"), row.cells.get("col"))
  for row in label_rows.latest(rows, named).values() if are_answers else rows:
    if row.is_answer and row.cells["label"]:
      check_ground(row.where, row.cells.get(scene_ground.COLUMN, ""), ground)
  tiles = {row.where: _tile_of(row, grid, settings, is_layer=is_layer) for row in rows}
  texts = {row.where: _label_of(row, settings, is_layer=is_layer) for row in rows}
  labels: dict[tuple[int, int], str] = {}
  counting = label_rows.latest(rows, lambda row: tiles[row.where]).values() if are_answers else rows
  for row in counting:
    tile, label = tiles[row.where], texts[row.where]
    if (other := labels.setdefault(tile, label)) != label:
      raise ValueError(
        f"{row.where} labels tile {tile[0]},{tile[1]} as {label}, but an earlier row labels it as "
        f"{other}: remove one of them."
      )
  return labels


def _tile_of(row: LabelRow, grid: Grid, settings: Settings, *, is_layer: bool) -> tuple[int, int]:
  """Returns row and column of a tile; raises ValueError for a tile of another size or stride."""
  size = row.cells.get(tile_outlines.SIZE_FIELD, "")
  if row.is_answer and size != str(settings.tile_size):
    raise _other_size(row.where, size or "unknown", settings)
  if row.is_answer and not is_layer and row.cells.get("row") and settings.stride != settings.tile_size:
    raise ValueError(
      f"{row.where} counts tiles that lie {settings.tile_size} pixels apart, but --tile_stride="
      f"{settings.tile_stride}: leave --tile_stride out."
    )
  return _tile_of_row(row.where, row.cells, grid, settings)


def _label_of(row: LabelRow, settings: Settings, *, is_layer: bool) -> str:
  text = row.cells["label"]
  if not text and (row.is_answer or is_layer):
    return UNKNOWN_LABEL
  return read_label(row.where, text, settings)


def check_ground(where: str, text: str, ground: SceneGround) -> None:
  """Raises ValueError, naming `where` it stands, if a tile was labelled on another ground."""
  try:
    difference = ground.difference(text)
  except ValueError as error:
    raise ValueError(
      f"{where} holds {text!r} in {scene_ground.COLUMN}, which is no grid: restore it, or empty the "
      "column."
    ) from error
  if difference:
    raise ValueError(
      f"{where} labels a tile of another {ground.scene}: {difference}. Use the scene that was "
      "labelled, or label anew into another folder. If each tile shows the same as it did, empty the "
      f"column {scene_ground.COLUMN}."
    )


def read_label(where: str, text: str | None, settings: Settings) -> str:
  """Returns the label that a cell of a table means; raises ValueError naming `where` it stands."""
  text = (text or "").strip()
  if text in (*settings.classes, settings.background, UNKNOWN_LABEL):
    return text
  if text == NO_DATA:
    return UNKNOWN_LABEL
  if text.lower() in splits.NO:
    return settings.background
  if text.lower() in splits.YES and len(settings.classes) == 1:
    return settings.classes[0]
  known = ", ".join((*settings.classes, settings.background, UNKNOWN_LABEL, NO_DATA))
  raise ValueError(
    f"{where} has the label {text!r}: use one of {known}, or for one class "
    f"{', '.join(splits.YES)} and {', '.join(splits.NO)}."
  )


def _check_outlines(
  path: pathlib.Path, rows: list[LabelRow], scene: pathlib.Path, grid: Grid, settings: Settings
) -> None:
  """Raises ValueError naming an outline that is not where the scene's tile of its row and column is."""
  for crs in {row.crs for row in rows}:
    members = [row for row in rows if row.crs == crs]
    outlines, located = shapes.to_pixels(
      path, np.array([row.outline for row in members]), crs, grid, scene)
    bounds = np.full((len(members), 4), np.nan)
    bounds[located] = shapely.bounds(outlines)
    side, step = settings.tile_size, settings.stride
    for row, (left, top, right, bottom) in zip(members, bounds.tolist(), strict=True):
      number = _tile_of_row(row.where, row.cells, grid, settings)
      expected = number[1] * step, number[0] * step
      expected = *expected, expected[0] + side, expected[1] + side
      if np.allclose((left, top, right, bottom), expected, rtol=0, atol=_TOLERANCE):
        continue
      if not abs(right - left - side) < _TOLERANCE and right > left:
        raise _other_size(row.where, f"{right - left:.6g}", settings)
      raise ValueError(
        f"{row.where} does not lie where row {number[0]}, column {number[1]} of {scene} is: "
        "change nothing but the field label, and set the tile size and stride of the outlines."
      )


def _other_size(where: str, size: str, settings: Settings) -> ValueError:
  return ValueError(
    f"{where} labels a tile of {size} pixels, but --tile_size={settings.tile_size}: set the size of "
    "the labelled tiles."
  )


def _tile_of_row(where: str, line: dict, grid: Grid, settings: Settings) -> tuple[int, int]:
  pairs = [names for names in (("row", "col"), ("x", "y")) if line.get(names[0])] or [("x", "y")]
  try:
    places = [(float(line[first]), float(line[second])) for first, second in pairs]
    tiles = [
      place if names[0] == "row" else _tile_at(*place, grid, settings)
      for names, place in zip(pairs, places, strict=True)
    ]
  except (KeyError, TypeError, ValueError, OverflowError) as error:
    raise ValueError(
      f"{where} needs numbers in row and col, or in x and y, with decimal points: {line}."
    ) from error
  apart = max(abs(a - b) for a, b in zip(tiles[0], tiles[-1], strict=True))
  if apart * settings.stride >= settings.tile_size:  # Tiles that overlap share a place.
    raise ValueError(
      f"{where} means two tiles, one by row and col, another by x and y: {line}. Remove the columns "
      "that do not hold."
    )
  tile, counts = tiles[0], tile_grid.counts(grid, settings)
  if not all(n in range(count) for n, count in zip(tile, counts, strict=True)):
    (a, b), (first, second) = pairs[0], places[0]
    raise ValueError(f"{where} means no tile of the scene: {a}={first:g}, {b}={second:g}")
  return int(tile[0]), int(tile[1])


def _tile_at(x: float, y: float, grid: Grid, settings: Settings) -> tuple[int, int]:
  """Returns row and column of the tile with the nearest centre that holds a point, -1 for no tile."""
  side, step = settings.tile_size, settings.stride
  tile, counts = (-1, -1), tile_grid.counts(grid, settings)
  for place in antimeridian.same_places(x, grid):
    row, col = (
      _number_at(pixel, length, count, side, step) for pixel, length, count in zip(
        (~grid.transform @ (place, y))[::-1], (grid.height, grid.width), counts, strict=True,
      )
    )
    if min(row, col) >= 0:
      return row, col
    tile = max(tile, (row, col))
  return tile


def _number_at(pixel: float, length: int, count: int, side: int, step: int) -> int:
  number = min(max(math.floor((pixel - side / 2) / step + 0.5), 0), count - 1)
  inside = 0 <= pixel < length and number * step <= pixel < number * step + side
  return number if inside else -1

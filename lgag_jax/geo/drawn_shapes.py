"""Reads what somebody has drawn in a GIS: points, lines and polygons, with texts of their fields."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import pyogrio
import pyogrio.raw
import shapely

from lgag_jax.geo import (
  antimeridian,
  geometry_parts,
  layer_fields,
  layer_files,
  layer_formats,
  layer_geometry,
  shapes,
)
from lgag_jax.geo.geometry_parts import warn
from lgag_jax.geo.grid import Grid


@dataclasses.dataclass(frozen=True)
class DrawnShapes:
  """Shapes in the scene's pixels in the order of drawing: polygons, then lines, then points.

  Within each kind they are in the order of their layers and features.
  """

  geometries: np.ndarray  # Single polygons, lines and points, valid and not empty.
  words: dict[str, np.ndarray]  # By field: the text of each shape, "" where there is none.


def layers(path: pathlib.Path) -> dict[str, set[str]]:
  """Returns the field names of each layer in a file; {} for a file that is not a vector layer.

  Raises ValueError naming a file that cannot be read.
  """
  if path.suffix.lower() not in layer_formats.SUFFIXES or not path.is_file():
    return {}
  source = layer_files.source(path)[1]
  with shapes.error_context(path):
    names = [name for name, kind in pyogrio.list_layers(source) if kind is not None]
    return {name: set(pyogrio.read_info(source, layer=name)["fields"]) for name in names}


def with_decisions(path: pathlib.Path) -> bool:
  """Returns whether a file holds shapes with a field `decision`, and is no exported review."""
  return any(
    layer_fields.name_in(fields, layer_fields.DECISION) and not layer_fields.of_review(fields)
    for fields in layers(path).values()
  )


def values(path: pathlib.Path, layer: str, field: str) -> set[str]:
  """Returns the different texts in a field, with "" for empty ones."""
  source = layer_files.source(path)[1]
  with shapes.error_context(path):
    data = pyogrio.raw.read(source, layer=layer, columns=[field], read_geometry=False)[3]
  return {layer_fields.text(value).strip() for value in data[0].tolist()}


def read(
  path: pathlib.Path, names: Sequence[str], fields: Sequence[str], grid: Grid,
  scene: pathlib.Path | str,
) -> DrawnShapes:
  """Reads layers of a file, with `fields`, in any case, of those layers that have them.

  Skips parts that are empty or have no position in the scene's coordinates, repairs invalid polygons,
  and warns with the number of features of each. Raises ValueError naming the file.
  """
  parts = [_read_layer(path, name, fields, grid, scene) for name in names]
  geometries = np.concatenate([part.geometries for part in parts])
  order = np.argsort(-shapely.get_dimensions(geometries), kind="stable")
  words = {field: np.concatenate([part.words[field] for part in parts])[order] for field in fields}
  return DrawnShapes(geometries[order], words)


def _read_layer(
  path: pathlib.Path, layer: str, fields: Sequence[str], grid: Grid, scene: pathlib.Path | str
) -> DrawnShapes:
  source = layer_files.source(path)[1]
  with shapes.error_context(path):
    info = pyogrio.read_info(source, layer=layer)
    shapes.refuse_points(info)
    present = set(info["fields"])
    columns = {field: name for field in fields if (name := layer_fields.name_in(present, field))}
    meta, numbers, wkb, data = pyogrio.raw.read(
      source, layer=layer, columns=list(columns.values()), force_2d=True, return_fids=True)
  features = layer_geometry.read(path, source, layer, wkb, numbers)
  texts = dict(zip(meta["fields"].tolist(), data, strict=True))
  readable = np.flatnonzero(~(shapely.is_missing(features) | shapely.is_empty(features)))
  unreadable = np.setdiff1d(np.arange(len(features)), readable)
  warn(path, unreadable, "have no readable geometry; skipping them")
  parts, index = geometry_parts.take_all(path, features[readable])
  owners = readable[index]
  if not len(parts):  # A layer in which nothing was drawn yet.
    return DrawnShapes(np.array([], object), {field: np.array([], object) for field in fields})
  parts, located = shapes.to_pixels(path, parts, meta["crs"], grid, scene)
  warn(path, owners[~located], "have no position in the scene's coordinates; skipping them")
  owners = owners[located]
  is_polygon = shapely.get_dimensions(parts) == 2
  repaired, with_area = geometry_parts.repaired(path, parts[is_polygon], owners[is_polygon])
  usable = ~is_polygon
  usable[is_polygon] = with_area
  parts[usable & is_polygon] = repaired
  geometries, index = antimeridian.copies_in_scene(parts[usable], grid)
  owners = owners[usable][index]
  return DrawnShapes(geometries, {
    field: np.array([
      layer_fields.text(texts[columns[field]][n]).strip() if field in columns else "" for n in owners
    ], object) for field in fields
  })

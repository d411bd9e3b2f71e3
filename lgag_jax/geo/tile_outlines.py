"""Layers of tile outlines, which --mode=tile and --mode=label write.

They are no landslides: read as an inventory, every tile would be one. Their field `label` may hold the
label that somebody gave a tile in a GIS.
"""

import functools
import pathlib
import re

import numpy as np
import pyogrio
import pyogrio.raw
import shapely

from lgag_jax.geo import layer_fields, layer_files, layer_formats

FIELDS = ("label", "scene", "row", "col")
SIZE_FIELD = "tile_size"  # Of the outlines that are written to be labelled.
_LAYER = re.compile(r"tiles(_\d+)?")
_CORNERS = 5  # Coordinates of a rectangle's outline.

Outline = tuple[int, dict[str, str], shapely.Geometry | None]  # A feature's number, cells and shape.


def are_tiles(source: str | bytes, layer: str) -> bool:
  """Returns whether a layer holds outlines of tiles, also a copy that a GIS saved or added to.

  An inventory that got their columns by a join has other outlines than rectangles.
  """
  fields = _fields(source, layer)
  if not fields >= set(FIELDS):
    return False
  return bool(_LAYER.fullmatch(layer)) or SIZE_FIELD in fields or _are_rectangles(source, layer)


def lost_fields(source: str | bytes, layer: str) -> list[str]:
  """Returns the fields that outlines of tiles have lost in a GIS; [] for all else."""
  present = _fields(source, layer) & {*FIELDS, SIZE_FIELD}
  lost = [name for name in FIELDS if name not in present]
  return lost if len(present) >= len(FIELDS) - 1 and _are_rectangles(source, layer) else []


def _fields(source: str | bytes, layer: str) -> set[str]:
  return {name.lower() for name in pyogrio.read_info(source, layer=layer)["fields"]}


def _are_rectangles(source: str | bytes, layer: str) -> bool:
  shapes = shapely.from_wkb(pyogrio.raw.read(source, layer=layer, columns=[])[2], on_invalid="ignore")
  return bool(len(shapes)) and float(np.mean(shapely.get_num_coordinates(shapes) == _CORNERS)) > 0.5


def tile_layers(path: pathlib.Path, layer: str = "") -> tuple[str, ...]:
  """Returns the layers of a file that are read as labels of tiles; () if it is an inventory.

  That is the layer `layer`, or all layers if every one of them holds outlines of tiles. Raises
  ValueError naming a file that cannot be read.
  """
  if path.suffix.lower() not in layer_formats.SUFFIXES or not path.is_file():
    return ()
  status = path.stat()
  return _tile_layers(path, layer, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=32)
def _tile_layers(path: pathlib.Path, layer: str, *_: int) -> tuple[str, ...]:
  source = layer_files.source(path)[1]
  try:
    names = [name for name, kind in pyogrio.list_layers(source) if kind is not None]
    tiles = [name for name in names if are_tiles(source, name)]
  except (RuntimeError, ValueError) as error:  # pyogrio raises either.
    raise ValueError(f"{path} cannot be read as labels: {str(error).rstrip('.')}.") from error
  if layer:
    return (layer,) if layer in tiles else ()
  return tuple(tiles) if tiles == names else ()


def read(path: pathlib.Path, layer: str) -> tuple[list[Outline], str | None]:
  """Reads a layer of outlines: its features, with empty cells as "", and its CRS."""
  source = layer_files.source(path)[1]
  try:
    meta, numbers, wkb, columns = pyogrio.raw.read(source, layer=layer, force_2d=True, return_fids=True)
  except (RuntimeError, ValueError) as error:
    raise ValueError(f"{path} cannot be read as labels: {str(error).rstrip('.')}.") from error
  names = [name.lower() for name in meta["fields"]]
  shapes = shapely.from_wkb(wkb, on_invalid="ignore")
  cells = zip(*(map(layer_fields.text, column.tolist()) for column in columns), strict=True)
  rows = (dict(zip(names, values, strict=True)) for values in cells)
  return list(zip(np.asarray(numbers).tolist(), rows, shapes, strict=True)), meta["crs"]

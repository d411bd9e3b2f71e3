"""Writes a review for a GIS: every polygon with its decision, and the final inventory.

`<stem>.gpkg` is written from the log and read by `tiling.review_labels`. If somebody has changed it or
the inventory in a GIS since, the changed file is moved to `edited/`, and the log stays what counts.
"""

import json
import pathlib
import sqlite3
import warnings
from collections.abc import Sequence

import numpy as np
import pyogrio
import pyogrio.errors
import pyogrio.raw
import shapely

from lgag_jax.geo import layer_files, sqlite_files
from lgag_jax.reviewing import edited_files, outlines
from lgag_jax.reviewing.decisions import Decision, DecisionLog, Mapped
from lgag_jax.reviewing.maps import SceneMap
from lgag_jax.runtime import files
from lgag_jax.tiling import review_files
from lgag_jax.tiling.review_files import LANDSLIDES, MISSED, NOT_LANDSLIDE

_TEXT, _REAL, _WHOLE = object, np.float64, np.int64
_REVIEW_FIELDS = {
  "feature": _TEXT, "number": _WHOLE, "decision": _TEXT, "class": _TEXT, "mapped_class": _TEXT,
  "comment": _TEXT, "mean_probability": _REAL, "mapped_area_m2": _REAL, "area_m2": _REAL,
  "origin": _TEXT, "source": _TEXT, "time": _TEXT,
}
_INVENTORY_FIELDS = {
  "class": _TEXT, "area_m2": _REAL, "status": _TEXT, "comment": _TEXT, "mean_probability": _REAL,
  "number": _WHOLE, "source": _TEXT, "reviewed": _TEXT,
}
_INVENTORY_LAYER, _INVENTORY_NOTE = "landslides", "lgag_inventory"
Row = tuple[shapely.Geometry, dict]


def write(
  scene_map: SceneMap, log: DecisionLog, folder: pathlib.Path, inventory_name: str
) -> None:
  """Writes the GeoPackages of a scene; raises OSError naming a file that cannot be written.

  Files that another program has changed are moved to `edited/` before they are replaced. Raises OSError
  for one that another program has open, which stays, and ValueError for a link.
  """
  latest, mapped, log_bytes = log.state()
  rows, originals = _rows(scene_map, latest, mapped)
  path = folder / f"{scene_map.stem}.gpkg"
  crs = scene_map.grid.crs.to_wkt() if scene_map.grid.crs else None
  note = {
    "scene": scene_map.file, "source": str(scene_map.scene.absolute()),
    "height": scene_map.grid.height, "width": scene_map.grid.width, "scene_grid": log.ground.text,
    "crs": crs, "log_bytes": log_bytes,
    "digest": edited_files.NO_DIGEST,
  }
  with files.atomic_path(path) as partial:
    partial.unlink(missing_ok=True)
    metadata = {"lgag_review": json.dumps(note)}
    _write_layer(partial, review_files.LAYER, rows, _REVIEW_FIELDS, crs, layer_metadata=metadata)
    names = ("feature", "number", "decision", "class")
    fields = {name: _REVIEW_FIELDS[name] for name in names}
    _write_layer(partial, review_files.ORIGINALS, originals, fields, crs, append=True)
    _seal(partial)
    edited_files.keep_edited(path, _is_review_as_written)
  inventory = folder / f"{inventory_name}.gpkg"
  landslides = _inventory(scene_map, rows)
  with files.atomic_path(inventory) as partial:
    partial.unlink(missing_ok=True)
    metadata = {_INVENTORY_NOTE: edited_files.NO_DIGEST}
    _write_layer(
      partial, _INVENTORY_LAYER, landslides, _INVENTORY_FIELDS, crs, layer_metadata=metadata)
    _seal(partial)
    edited_files.keep_edited(inventory, _is_inventory_as_written)


def inventory_names(stems: Sequence[str]) -> dict[str, str]:
  """Returns the file name, without its suffix, of each map's inventory; none is that of a review."""
  names: dict[str, str] = {}
  for stem in stems:
    name = f"{stem}_reviewed"
    while name in stems or name in names.values():
      name += "_"
    names[stem] = name
  return names


def _is_review_as_written(path: pathlib.Path) -> bool:
  review = review_files.describe(path)
  return review is not None and edited_files.digest_of(path, review.digest) == review.digest


def _is_inventory_as_written(path: pathlib.Path) -> bool:
  layer_files.check_geopackage(path)
  notes = pyogrio.read_info(path, layer=_INVENTORY_LAYER)["layer_metadata"] or {}
  digest = notes[_INVENTORY_NOTE]
  return edited_files.digest_of(path, digest) == digest


def _rows(
  scene_map: SceneMap, latest: dict[str, Decision], logged: dict[str, Mapped]
) -> tuple[list[Row], list[Row]]:
  """Returns the rows of the layers "review", in the order of painting labels, and "originals"."""
  rows, originals = [], []
  current = {polygon.feature: polygon for polygon in scene_map.polygons}
  earlier = {
    name: polygon for name, polygon in logged.items() if name not in current and name in latest
  }
  for origin, polygons in (("map", current), ("earlier map", earlier)):
    for feature, mapped in polygons.items():
      decision = latest.get(feature)
      shape = decision.geometry if decision and decision.geometry is not None else mapped.geometry
      row = _row(feature, decision, shape, scene_map) | {
        "number": mapped.number, "mapped_class": mapped.class_name, "origin": origin,
        "mean_probability": mapped.mean_probability, "mapped_area_m2": mapped.area_m2,
      }
      if not row["decision"]:
        row |= {"class": mapped.class_name, "area_m2": mapped.area_m2}
      rows.append((shape, row))
      originals.append((mapped.geometry, row))
  drawn = [d for feature, d in latest.items() if feature not in current and feature not in earlier]
  for decision in sorted(drawn, key=lambda decision: decision.time):
    if decision.geometry is not None:
      row = _row(decision.feature, decision, decision.geometry, scene_map)
      rows.append((decision.geometry, row | {
        "number": 0, "mapped_class": None, "mean_probability": None, "mapped_area_m2": None,
        "origin": "drawn",
      }))
  return rows, originals


def _row(
  feature: str, decision: Decision | None, shape: shapely.Geometry, scene_map: SceneMap
) -> dict:
  text = scene_map.file.encode(errors="backslashreplace").decode()
  row = {"feature": feature, "source": text, "decision": "", "comment": "", "time": None}
  if decision is not None:
    row |= {
      "decision": decision.decision, "class": decision.class_name, "comment": decision.comment,
      "time": decision.time, "area_m2": outlines.area_m2(shape, scene_map.grid),
    }
  return row


def _inventory(scene_map: SceneMap, rows: list[Row]) -> list[Row]:
  """Returns the landslides of a review, without the areas that were called no landslide."""
  result = []
  excluded = [i for i, (_, row) in enumerate(rows) if row["decision"] == NOT_LANDSLIDE]
  areas = np.array([rows[i][0] for i in excluded], object)
  tree = shapely.STRtree(areas)
  for i, (shape, row) in enumerate(rows):
    if row["decision"] not in (*LANDSLIDES, MISSED):
      continue
    area_m2 = row["area_m2"]
    # What is drawn later counts, as in the labels.
    over = [k for k in sorted(tree.query(shape, predicate="intersects").tolist()) if excluded[k] > i]
    if over:
      shape = outlines.as_multi(shapely.difference(shape, shapely.union_all(areas[over])))
      if shape.is_empty:
        continue
      area_m2 = outlines.area_m2(shape, scene_map.grid)
    result.append((
      shape, {**row, "status": row["decision"], "reviewed": row["time"], "area_m2": area_m2}))
  return result


def _write_layer(
  path: pathlib.Path, layer: str, rows: list[Row], fields: dict[str, type], crs: str | None, **options
) -> None:
  geometries = np.array([outlines.as_multi(geometry) for geometry, _ in rows], object)
  columns = []
  for name, kind in fields.items():
    values = [row[name] for _, row in rows]
    columns.append(np.array([np.nan if v is None and kind is _REAL else v for v in values], kind))
  try:
    with warnings.catch_warnings():
      warnings.filterwarnings("ignore", message="'crs' was not provided")  # Some scenes have none.
      pyogrio.raw.write(
        path, shapely.to_wkb(geometries), columns, list(fields), layer=layer, driver="GPKG",
        geometry_type="MultiPolygon", crs=crs, **options,
      )
    if pyogrio.read_info(path, layer=layer, force_feature_count=True)["features"] != len(rows):
      raise pyogrio.errors.DataLayerError("features are missing")
  except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
    raise OSError(f"{path.parent} cannot be written to: {error} (is the disk full?).") from error
  finally:
    sqlite_files.remove_side_files(path)


def _seal(path: pathlib.Path) -> None:
  try:
    edited_files.seal(path)
  except (sqlite3.Error, ValueError) as error:  # A full disk may cut a file, too.
    raise OSError(f"{path.parent} cannot be written to: {error} (is the disk full?).") from error
  finally:
    sqlite_files.remove_side_files(path)

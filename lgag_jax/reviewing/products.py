"""Writes a review for a GIS: every polygon with its decision, and the final inventory.

`<stem>.gpkg` is written from the log and read by `tiling.review_labels`. If somebody has changed it in
a GIS since, the changed file is moved to `edited/`, and the log stays what counts.
"""

import datetime
import hashlib
import json
import logging
import pathlib
import warnings

import numpy as np
import pyogrio
import pyogrio.errors
import pyogrio.raw
import shapely

from lgag_jax.mapping import vectors
from lgag_jax.reviewing import outlines
from lgag_jax.reviewing.decisions import Decision, DecisionLog, Mapped
from lgag_jax.reviewing.maps import SceneMap
from lgag_jax.runtime import files
from lgag_jax.tiling import review_files
from lgag_jax.tiling.review_files import LANDSLIDES, MISSED, NOT_LANDSLIDE

_LOG = logging.getLogger(__name__)

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
Row = tuple[shapely.Geometry, dict]


def write(scene_map: SceneMap, log: DecisionLog, folder: pathlib.Path) -> None:
  """Writes the GeoPackages of a scene; raises OSError naming a file that cannot be written."""
  latest, mapped, log_bytes = log.state()
  rows, originals = _rows(scene_map, latest, mapped)
  path = folder / f"{scene_map.stem}.gpkg"
  crs = scene_map.grid.crs.to_wkt() if scene_map.grid.crs else None
  note = {
    "scene": scene_map.file, "source": str(scene_map.scene.absolute()),
    "height": scene_map.grid.height, "width": scene_map.grid.width, "scene_grid": log.ground.text,
    "crs": crs, "log_bytes": log_bytes,
    "digest": _digest([(g, row["decision"], row["class"], row["comment"]) for g, row in rows]),
  }
  with files.atomic_path(path) as partial:
    partial.unlink(missing_ok=True)
    metadata = {"lgag_review": json.dumps(note)}
    _write_layer(partial, review_files.LAYER, rows, _REVIEW_FIELDS, crs, layer_metadata=metadata)
    names = ("feature", "number", "decision", "class")
    fields = {name: _REVIEW_FIELDS[name] for name in names}
    _write_layer(partial, review_files.ORIGINALS, originals, fields, crs, append=True)
    vectors.remove_side_files(path)
  inventory = folder / f"{scene_map.stem}_reviewed.gpkg"
  with files.atomic_path(inventory) as partial:
    partial.unlink(missing_ok=True)
    _write_layer(partial, "landslides", _inventory(scene_map, rows), _INVENTORY_FIELDS, crs)
    vectors.remove_side_files(inventory)


def keep_edited(path: pathlib.Path) -> None:
  """Moves a review that was changed by another program to `edited/`, before it is written again."""
  if not path.exists():
    return
  review = review_files.describe(path)
  if review is not None:
    names = ["decision", "class", "comment"]
    try:
      meta, _, wkb, data = pyogrio.raw.read(path, layer=review_files.LAYER, columns=names)
      columns = dict(zip(meta["fields"].tolist(), data, strict=True))
      values = (columns[name].tolist() for name in names)
      layers = {name for name, kind in pyogrio.list_layers(path) if kind is not None}
      same = _digest(list(zip(shapely.from_wkb(wkb), *values, strict=True))) == review.digest
      if same and layers == {review_files.LAYER, review_files.ORIGINALS}:
        return
    except (RuntimeError, ValueError, LookupError):
      pass
  folder = path.parent / "edited"
  folder.mkdir(exist_ok=True)
  now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
  kept = folder / f"{path.stem}_{now}.gpkg"
  path.rename(kept)
  _LOG.warning(
    "%s was changed by another program. It is kept as %s, which --mode=tile takes as --labels. The "
    "page does not show its changes.", path, kept,
  )


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
    vectors.remove_side_files(path)


def _digest(rows: list[tuple]) -> str:
  digest = hashlib.sha256()
  for geometry, *texts in rows:
    if geometry is not None:
      digest.update(shapely.to_wkb(outlines.as_multi(geometry)))
    digest.update(repr([str(text or "") for text in texts]).encode())
  return digest.hexdigest()

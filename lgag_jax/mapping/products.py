"""Writes the products of a scene's map, and predictions.csv, the table of all maps.

The products are rasters, polygons, styles, an overlay and figures.
"""

import contextlib
import csv
import ctypes
import dataclasses
import math
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import numpy as np

from lgag_jax.config import Config
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scale import WindowPlan
from lgag_jax.imagery import tables
from lgag_jax.mapping import (
  map_names,
  output_folder,
  overlay,
  polygons,
  qgis_style,
  rasters,
  vectors,
)
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.mapping.rasters import NO_DATA
from lgag_jax.mapping.row_store import RowStore
from lgag_jax.mapping.schemas import Provenance
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import files

_ROWS_AT_ONCE = 512  # Rows of the map in memory.
_MIN_POLYGON_SIDE = 4  # In the network's pixels: the finest that its maps resolve.


@dataclasses.dataclass(frozen=True)
class ScenePlan:
  """A scene to map, and how."""

  path: pathlib.Path
  stem: str  # Of the names of its files.
  grid: Grid
  windows: WindowPlan
  key: str  # Identifies the network, the scene and the options: another key is another map.
  dtype: np.dtype = np.dtype(np.uint8)  # Of its values.
  warnings: tuple[str, ...] = ()  # What its header tells the reader of its map to check.
  provenance: Provenance = Provenance()

  def working_folder(self, output: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the map's rows until the map is whole."""
    return output_folder.working_folder(output, self.stem)

  def figures_path(self, output: pathlib.Path) -> pathlib.Path:
    """Returns the file of the map's figures, which is written last."""
    return output_folder.record_path(output, self.stem)

  def product_names(self, classes: int, options: Options) -> list[str]:
    """Returns the files of the map below its output, except the figures."""
    raster = lambda folder, bands, dtype: rasters.path_with_suffix(
      pathlib.Path(folder, self.stem), self.grid, bands, np.dtype(dtype)
    ).as_posix()
    names = [raster("probability", classes, options.dtype), raster("mask", 1, np.uint8)]
    if self.grid.georeferenced:
      names += [f"{folder}/{self.stem}.qml" for folder in ("mask", "probability", "polygons")]
      names.append(f"polygons/{self.stem}.gpkg")
      if self.grid.to_wgs84() is not None:
        names.append(f"polygons/{self.stem}.geojson")
    return [*names, f"overlay/{self.stem}.png"]

  def min_area(self, options: Options) -> float:
    """Returns the smallest area of a polygon in square metres, or in pixels without a CRS."""
    if options.min_area >= 0:
      return options.min_area
    windows = self.windows
    network_pixel = windows.reduction * windows.side / windows.model_side  # In the scene's.
    return (_MIN_POLYGON_SIDE * network_pixel * (self.grid.gsd() or 1.0)) ** 2


def is_complete(plan: ScenePlan, output: pathlib.Path) -> bool:
  """Returns whether all products of a plan exist and have its key."""
  try:
    figures = files.read_json(plan.figures_path(output))
    return figures["key"] == plan.key and all((output / name).exists() for name in figures["files"])
  except (OSError, ValueError, LookupError, TypeError):
    return False


def write(
  plan: ScenePlan, stores: Sequence[RowStore], image_scores: np.ndarray, effort: dict,
  output: pathlib.Path, config: Config, options: Options,
) -> None:
  """Writes the products of a scene from its stores, then removes the stores.

  - probability/ and mask/: cloud-optimised GeoTIFFs on the scene's grid, or PNGs.
  - polygons/: GeoPackage and GeoJSON, if the scene has a georeference; QGIS styles beside all three.
  - overlay/: a picture.
  - scenes/<stem>.json: figures.

  All are written into the working folder first: until they are whole, an earlier map stays as it is.
  `image_scores`, f32[C], are the image's highest scores; `effort` is added to the figures.
  """
  _release_memory()
  names, pixel_counts = config.data.classes, np.zeros(256, np.int64)
  staged = plan.working_folder(output) / "products"
  shutil.rmtree(staged, ignore_errors=True)
  with (
    rasters.write_and_open(
      staged / "probability" / plan.stem, plan.grid, len(names), np.dtype(options.dtype),
      ((first, scores) for first, scores, _ in _read_rows(stores)), names, averaged=True,
    ) as probability,
    rasters.write_and_open(
      staged / "mask" / plan.stem, plan.grid, 1, np.dtype(np.uint8), _mask_rows(stores, pixel_counts),
      ("class",), averaged=False, colours=overlay.mask_colours(len(names)),
    ) as mask,
  ):
    areas = None
    if plan.grid.georeferenced:
      _write_styles(plan, staged, names, options)
      areas = {name: [] for name in names}
      landslides = polygons.trace(
        mask, probability, names, plan.path.name, min_area=plan.min_area(options),
        simplify=options.simplify, thresholds=plan.provenance.thresholds,
      )
      vector_paths = [staged / "polygons" / f"{plan.stem}{suffix}" for suffix in (".gpkg", ".geojson")]
      with contextlib.closing(landslides):
        collected = _collect_areas(landslides, areas)
        vectors.write(collected, plan.grid, *vector_paths, provenance=plan.provenance)
    with files.atomic_path(staged / "overlay" / f"{plan.stem}.png") as partial:
      overlay.overlay_image(plan.path, mask, config, options).save(partial)
  figures = _figures(plan, pixel_counts, image_scores, areas, config) | effort
  output_folder.publish(output, plan.stem, staged, plan.product_names(len(names), options), figures)


def _write_styles(
  plan: ScenePlan, folder: pathlib.Path, names: tuple[str, ...], options: Options
) -> None:
  styles = {
    "mask": qgis_style.mask_style(names),
    "probability": qgis_style.probability_style(options.probability == "percent"),
    "polygons": qgis_style.polygon_style(names),
  }
  for kind, style in styles.items():
    files.write_text(folder / kind / f"{plan.stem}.qml", style)


def _release_memory() -> None:
  """Returns freed memory to the system, so that writing products does not add to it."""
  with contextlib.suppress(OSError, AttributeError):  # C libraries other than glibc do so themselves.
    ctypes.CDLL(None).malloc_trim(0)


def _read_rows(stores: Sequence[RowStore]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
  """Yields (first row, scores, mask) from top to bottom."""
  for store in sorted(stores, key=lambda store: store.span):
    for first in range(*store.span, _ROWS_AT_ONCE):
      yield first, *store.read(first, min(_ROWS_AT_ONCE, store.span[1] - first))


def _mask_rows(
  stores: Sequence[RowStore], pixel_counts: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (first row, mask [n, W, 1]), and adds the number of pixels of each value to the counts."""
  for first, _, mask in _read_rows(stores):
    pixel_counts += np.bincount(mask.ravel(), minlength=256)
    yield first, mask[..., None]


def _collect_areas(
  landslides: Iterator[Landslide], areas: dict[str, list[float]]
) -> Iterator[Landslide]:
  """Yields the landslides, and appends their areas in square metres, NaN if unknown, per class."""
  for landslide in landslides:
    area = landslide.area_m2
    areas[landslide.class_name].append(math.nan if area is None else area)
    yield landslide


def _figures(
  plan: ScenePlan, pixel_counts: np.ndarray, image_scores: np.ndarray,
  areas: dict[str, list[float]] | None, config: Config,
) -> dict:
  valid = int(pixel_counts[:NO_DATA].sum())
  classes = {}
  for c, name in enumerate(config.data.classes):
    class_areas = np.sort(areas[name] if areas else [])
    metric = areas is not None and not np.isnan(class_areas).any()
    classes[name] = {
      "probability": round(float(image_scores[c]), 4),
      "share": round(float(pixel_counts[c + 1]) / max(valid, 1), 6), "pixels": int(pixel_counts[c + 1]),
      "landslides": None if areas is None else len(class_areas),
      "areas_m2": [_rounded(area, 2) for area in class_areas.tolist()] if metric else None,
    }
  grid = plan.grid
  return {
    "key": plan.key, "file": plan.path.name, "path": map_names.source_path(plan.path),
    "stem": plan.stem, **map_names.grid_figures(grid),
    "event": plan.provenance.event, "image_date": plan.provenance.image_date,
    "georeferenced": grid.georeferenced, "valid_pixels": valid,
    "no_data_share": 1.0 - valid / (grid.height * grid.width), "view": dataclasses.asdict(plan.windows),
    "classes": classes,
  }


def _rounded(area: float, decimals: int) -> float:
  """Rounds an area in square metres; an area of its own never becomes zero."""
  return round(area, decimals) or float(f"{area:.3g}")


def write_table(
  plans: Sequence[ScenePlan], output: pathlib.Path, scenes: Sequence[dict]
) -> list[dict]:
  """Writes predictions.csv of what `read_figures` returns; returns the rows of the plans."""
  rows = {}
  for scene in scenes:
    row = {"file": scene["file"]}
    for name, values in scene["classes"].items():
      row |= {f"{name}_{key}": values[key] for key in ("probability", "share", "landslides")}
      areas = values["areas_m2"]
      row[f"{name}_area_m2"] = None if areas is None else _rounded(sum(areas), 1)
    row["no_data_share"] = round(scene["no_data_share"], 6)
    rows[scene["stem"]] = row | {"path": scene.get("path", "")}  # Earlier releases recorded no path.
  if rows:
    path = output / "predictions.csv"
    with (
      files.atomic_path(path) as partial,
      partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
      writer = csv.writer(file)
      for row in (next(iter(rows.values())), *(row.values() for row in rows.values())):
        writer.writerow(map(tables.cell, row))
  return [rows[plan.stem] for plan in plans if is_complete(plan, output)]

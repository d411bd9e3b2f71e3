"""Writes the products of a scene's map: rasters, polygons, styles, pictures and figures."""

import contextlib
import ctypes
import dataclasses
import logging
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np

from lgag_jax.config import Config
from lgag_jax.mapping import (
  decided_ground,
  density,
  extreme_points,
  gate_windows,
  geoparquet,
  map_names,
  maps_table,
  output_folder,
  overlay,
  polygons,
  qgis_style,
  rasters,
  schemas,
  unsplit,
  vectors,
)
from lgag_jax.mapping.density import Cells
from lgag_jax.mapping.gate_windows import GateWindows
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.mapping.rasters import NO_DATA, MapRaster
from lgag_jax.mapping.row_store import RowStore
from lgag_jax.mapping.scene_plans import ScenePlan
from lgag_jax.mapping.terrain_filter import TerrainFilter, open_filter
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import files
from lgag_jax.tiling.ground_labels import GroundLabels

_LOG = logging.getLogger(__name__)

_ROWS_AT_ONCE = 512  # Rows of the map in memory.


def is_complete(plan: ScenePlan, output: pathlib.Path) -> bool:
  """Returns whether all products of a plan exist and have its key."""
  try:
    figures = files.read_json(plan.figures_path(output))
    return figures["key"] == plan.key and all((output / name).exists() for name in figures["files"])
  except (OSError, ValueError, LookupError, TypeError):
    return False


def write(
  plan: ScenePlan, stores: Sequence[RowStore], image_scores: np.ndarray,
  before_gate: GateWindows | None, effort: dict, output: pathlib.Path, config: Config, options: Options,
) -> None:
  """Writes the products of a scene from its stores, then removes the stores.

  - probability/ and mask/: cloud-optimised GeoTIFFs on the scene's grid, or PNGs.
  - polygons/: GeoPackage, GeoJSON and GeoParquet, if the scene has a georeference. Regions that are too
    flat are neither in them nor in the mask. QGIS styles lie beside rasters and GeoPackages.
  - unsplit/: outlines of split polygons; points/: highest and lowest points; both if asked for.
  - overlay/, image/ and image_before/: pictures of the scene with the map, and of each date without it.
  - gate/: the windows before the gate, if the network has one, for the page of reviews.
  - density/: landslides per cell of a grid, if the map has any and the scene's pixels are small enough.
  - scenes/<stem>.json: figures.

  All are written into the working folder first: until they are whole, an earlier map stays as it is.
  `image_scores`, f32[C], are the image's highest scores; `effort` is added to the figures.
  """
  _release_memory()
  names, pixel_counts = config.data.classes, np.zeros(256, np.int64)
  areas, cells, staged = None, density.cells_of(plan.grid), plan.working_folder(output) / "products"
  shutil.rmtree(staged, ignore_errors=True)

  def write_mask(path: pathlib.Path, rows: Iterator) -> AbstractContextManager[MapRaster]:
    return rasters.write_and_open(
      path, plan.grid, 1, np.dtype(np.uint8), rows, ("class",), averaged=False, product="mask",
      colours=overlay.mask_colours(len(names)), description=plan.provenance.method,
    )

  with (
    rasters.write_and_open(
      staged / "probability" / plan.stem, plan.grid, len(names), np.dtype(options.dtype),
      ((first, scores) for first, scores, _ in _read_rows(stores)), names, averaged=True,
      product="probability",
    ) as probability,
    open_filter(plan.path, plan.grid, options, plan.working_folder(output)) as terrain,
  ):
    if terrain and terrain.drops:  # Which regions are flat is known when all have been traced.
      whole_path = plan.working_folder(output) / "unfiltered"
      with write_mask(whole_path, _mask_rows(stores, plan.decided, None)) as whole:
        areas = _write_polygons(plan, whole, probability, terrain, cells, staged, names, options)
    rows = _counted(_mask_rows(stores, plan.decided, terrain), pixel_counts, cells)
    with write_mask(staged / "mask" / plan.stem, rows) as mask:
      if plan.grid.georeferenced and areas is None:
        areas = _write_polygons(plan, mask, probability, terrain, cells, staged, names, options)
      _write_pictures(plan, mask, staged, config, options)
  figures = _figures(plan, pixel_counts, image_scores, areas, terrain, config) | effort
  figures |= {"workdir": plan.workdir, "flags": options.flags()}
  for text in (terrain.finish() if terrain else ()):
    _LOG.warning("%s: %s", plan.path, text)
    figures["warnings"] = [*figures.get("warnings", ()), text]
  if before_gate:
    gate_windows.write(staged / gate_windows.file_name(plan.stem), before_gate)
  written = plan.product_names(len(names), options)
  if cells and cells.landslides:
    figures["density_cell_m"] = cells.side
    density.write(cells, staged, plan.stem)
  else:
    written = [name for name in written if name not in density.file_names(plan.stem)]
  output_folder.publish(output, plan.stem, staged, written, figures)


def _write_polygons(
  plan: ScenePlan, mask: MapRaster, probability: MapRaster, terrain: TerrainFilter | None,
  cells: Cells | None, folder: pathlib.Path, names: tuple[str, ...], options: Options,
) -> dict[str, list[float]]:
  """Writes polygons and styles; returns the polygons' areas per class."""
  areas = {name: [] for name in names}
  _write_styles(plan, folder, names, options)
  landslides = polygons.trace(
    mask, probability, names, plan.path.name, min_area=plan.min_area(options),
    simplify=options.simplify, split_necks=options.split_necks,
    thresholds=plan.provenance.thresholds, terrain=terrain,
  )
  vector_paths = [folder / "polygons" / f"{plan.stem}{suffix}" for suffix in (".gpkg", ".geojson")]
  profile, table = schemas.PROFILES[options.schema], None
  with contextlib.ExitStack() as stack:
    stack.enter_context(contextlib.closing(landslides))
    if plan.grid.to_wgs84() is not None:
      path = folder / "polygons" / f"{plan.stem}.parquet"
      table = stack.enter_context(geoparquet.create(path, plan.provenance, profile))
    takers = [cells.add_landslide] if cells else []
    if terrain:
      path = folder / "points" / f"{plan.stem}.gpkg"
      takers.append(stack.enter_context(extreme_points.create(path, plan.grid)).add)
      files.write_text(path.with_suffix(".qml"), qgis_style.point_style(extreme_points.KINDS))
    if options.split_necks:
      path = folder / "unsplit" / f"{plan.stem}.gpkg"
      takers.append(stack.enter_context(unsplit.create(path, plan.grid)).add)
      files.write_text(path.with_suffix(".qml"), qgis_style.polygon_style(names, "class"))
    collected = _collected(landslides, areas, takers)
    vectors.write(
      collected, plan.grid, *vector_paths, provenance=plan.provenance, profile=profile, table=table,
    )
  return areas


def _write_pictures(
  plan: ScenePlan, mask: MapRaster, folder: pathlib.Path, config: Config, options: Options
) -> None:
  pictures = overlay.pictures(plan.source, mask, config, options)
  for name, picture in zip(overlay.file_names(plan.stem, plan.dates), pictures, strict=True):
    with files.atomic_path(folder / name) as partial:
      picture.save(partial, quality=overlay.QUALITY)


def _write_styles(
  plan: ScenePlan, folder: pathlib.Path, names: tuple[str, ...], options: Options
) -> None:
  styles = {
    "mask": qgis_style.mask_style(names),
    "probability": qgis_style.probability_style(options.probability == "percent"),
    "polygons": qgis_style.polygon_style(names, schemas.PROFILES[options.schema].class_field),
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
  stores: Sequence[RowStore], decided: GroundLabels | None, terrain: TerrainFilter | None
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (first row, mask [n, W, 1]) as decided, without flat regions if `terrain` drops them."""
  for first, _, mask in _read_rows(stores):
    mask = decided_ground.follow(decided, first, mask)
    yield first, (terrain.without_flat(first, mask) if terrain else mask)[..., None]


def _counted(
  rows: Iterator[tuple[int, np.ndarray]], pixel_counts: np.ndarray, cells: Cells | None
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields rows of a mask; adds the number of pixels of each value to the counts, and to the cells."""
  for first, mask in rows:
    pixel_counts += np.bincount(mask.ravel(), minlength=256)
    if cells:
      cells.add_rows(first, mask[..., 0])
    yield first, mask


def _collected(
  landslides: Iterator[Landslide], areas: dict[str, list[float]],
  takers: Sequence[Callable[[Landslide], None]],
) -> Iterator[Landslide]:
  """Yields the landslides; adds their areas in m², NaN if unknown, and gives each to `takers`."""
  for landslide in landslides:
    area = landslide.area_m2
    areas[landslide.class_name].append(math.nan if area is None else area)
    for take in takers:
      take(landslide)
    yield landslide


def _figures(
  plan: ScenePlan, pixel_counts: np.ndarray, image_scores: np.ndarray,
  areas: dict[str, list[float]] | None, terrain: TerrainFilter | None, config: Config,
) -> dict:
  valid = int(pixel_counts[:NO_DATA].sum())
  classes = {}
  for c, name in enumerate(config.data.classes):
    class_areas = np.sort(areas[name] if areas else [])
    metric = areas is not None and not np.isnan(class_areas).any()
    classes[name] = {
      "probability": round(float(image_scores[c]), 4),
      "threshold": plan.provenance.thresholds[c] if plan.provenance.thresholds else None,
      "share": round(float(pixel_counts[c + 1]) / max(valid, 1), 6), "pixels": int(pixel_counts[c + 1]),
      "landslides": None if areas is None else len(class_areas),
      "flat": terrain.flat_regions[c + 1] if terrain and terrain.drops else None,
      "areas_m2": [maps_table.rounded(area, 2) for area in class_areas.tolist()] if metric else None,
    }
  grid = plan.grid
  return {
    "key": plan.key, "file": plan.path.name, "path": map_names.source_path(plan.path),
    "stem": plan.stem, **map_names.grid_figures(grid),
    "method": plan.provenance.method, "gate": config.localize.gate,
    "event": plan.provenance.event, "image_date": plan.provenance.image_date,
    "before_date": plan.provenance.before_date,
    "georeferenced": grid.georeferenced, "valid_pixels": valid,
    "no_data_share": 1.0 - valid / (grid.height * grid.width),
    "clouds": dataclasses.asdict(plan.cover) if plan.cover else None,
    "view": dataclasses.asdict(plan.windows), "classes": classes,
  }

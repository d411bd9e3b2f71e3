"""Compares a scene's map with its reference: pixels, landslides and polygons, and a picture.

Both are read by blocks of rows, so memory follows the scene's width and the number of its landslides
and polygons. The comparison writes temporary rasters on the scene's grid: so the same code traces and
measures the landslides of the reference and those of the map.
"""

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import numpy as np
import rasterio
import shapely
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter

from lgag_jax.config import Config
from lgag_jax.evaluation import metrics
from lgag_jax.evaluation.index_rule import ColourIndex
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.reference import Reference, reference_from_shapes
from lgag_jax.geo.shapes import Shapes
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.mapping import output_folder, overlay, polygons, rasters, scene_index
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.mapping.rasters import NO_DATA, MapRaster
from lgag_jax.mapping.scene_plans import ScenePlan
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import files, preemption

_DETECTED, _MISSED, _FALSE = 1, 2, 3
_COLOURS = np.array([(40, 160, 60), (40, 110, 250), (230, 60, 40)], np.float32)  # In this order.
# Temporary rasters; unknown pixels and those without data are 255.
_TRUTH = "truth.tif"  # The reference.
_IN_TRUTH = "in_truth.tif"  # For each class 100 where the reference has it, else 0.
_IN_POLYGONS = "in_polygons.tif"  # For each class 100 where the map has a polygon, else 0.
_OUTCOME = "outcome.tif"  # Detected, missed and falsely mapped pixels.
_PERCENT = 100  # The value of a pixel that lies in a shape, in rasters that are read as percent.


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Counts of one scene, or of several together."""

  pixels: np.ndarray  # i64[256, 256], by the reference's class and the map's.
  histograms: np.ndarray  # f64[C, 2, bins], scores of truly positive and negative pixels.
  # For each class f64[n, 2]: a landslide's area and the share of it that is mapped.
  landslides: list[np.ndarray]
  # For each class f64[n, 2]: a polygon's area and the share of its known pixels on landslides; NaN if
  # none is known. Areas that cannot be measured are NaN.
  polygons: list[np.ndarray]
  indices: list[scene_index.Counts] = dataclasses.field(default_factory=list)  # See `scene_index`.

  def confusion(self, c: int) -> dict[str, np.ndarray]:
    """Counts as `metrics.confusion` does, for class `c`, the pixels known to reference and map."""
    known = self.pixels[:UNKNOWN, :NO_DATA]
    hits, true, mapped = known[c, c], known[c].sum(), known[:, c].sum()
    return {
      "true_positive": hits, "false_negative": true - hits, "false_positive": mapped - hits,
      "true_negative": known.sum() - true - mapped + hits,
    }


def compare(
  plan: ScenePlan, reference: Reference, output: pathlib.Path, config: Config, options: Options,
  rules: Sequence[ColourIndex | None] = (),
) -> Comparison:
  """Compares a scene's map in `output` with its reference, and writes a picture, eval/<stem>.png.

  `rules` are colour indices to count beside it, one for each class if any.

  Detected pixels are green in the picture, missed ones blue, falsely mapped ones red. Raises ImageError
  naming a raster that is damaged.
  """
  names = config.data.classes
  mask_path = rasters.path_with_suffix(output / "mask" / plan.stem, plan.grid, 1, np.dtype(np.uint8))
  scores_path = rasters.path_with_suffix(
    output / "probability" / plan.stem, plan.grid, len(names), np.dtype(options.dtype)
  )
  with (
    rasters.open_map_raster(mask_path, 1) as mask,
    rasters.open_map_raster(scores_path, len(names)) as scores,
    _empty_folder(output / "eval" / output_folder.UNFINISHED_EVALUATION) as folder,
  ):
    pixels, histograms = _count(mask, scores, reference, len(names), folder)
    indices = scene_index.count(plan, rules, reference, mask, config, options)
    with rasters.open_map_raster(folder / _IN_TRUTH, len(names)) as in_truth:
      mapped = list(polygons.trace(
        mask, in_truth, names, plan.path.name, min_area=plan.min_area(options)
      ))
    _draw_polygons(mapped, names, mask, folder / _IN_POLYGONS)
    with (
      rasters.open_map_raster(folder / _TRUTH, 1) as truth,
      rasters.open_map_raster(folder / _IN_POLYGONS, len(names)) as in_polygons,
    ):
      true = list(polygons.trace(truth, in_polygons, names, plan.path.name))
    with (
      rasters.open_map_raster(folder / _OUTCOME, 1) as outcome,
      files.atomic_path(output / "eval" / f"{plan.stem}.png") as picture,
    ):
      overlay.overlay_image(plan.path, outcome, config, options, _COLOURS).save(picture)
  metric = plan.grid.to_wgs84() is not None
  return Comparison(
    pixels, histograms, landslides=[_areas_and_shares(true, name, metric) for name in names],
    polygons=[_areas_and_shares(mapped, name, metric) for name in names], indices=indices,
  )


@contextlib.contextmanager
def _empty_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Makes a folder, which is removed afterwards."""
  shutil.rmtree(folder, ignore_errors=True)  # A killed run may have left it.
  folder.mkdir(parents=True)
  try:
    yield folder
  finally:
    shutil.rmtree(folder)


def _count(
  mask: MapRaster, scores: MapRaster, reference: Reference, classes: int, folder: pathlib.Path
) -> tuple[np.ndarray, np.ndarray]:
  """Counts pixels and scores as `Comparison` has them; writes the reference and the outcome."""
  pixels, histograms = np.zeros((256, 256), np.int64), np.zeros((classes, 2, metrics.BINS))
  grid = mask.grid
  with (
    _create(folder / _TRUTH, grid, 1) as truth_raster,
    _create(folder / _IN_TRUTH, grid, classes) as in_truth_raster,
    _create(folder / _OUTCOME, grid, 1) as outcome_raster,
  ):
    for window in mask.row_blocks():
      preemption.check_if_single_process()
      mapped, true = mask.read(1, window), reference.read(window)
      pairs = true.astype(np.uint16) * 256 + mapped
      pixels += np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
      true[mapped == NO_DATA] = UNKNOWN
      unknown = true == UNKNOWN
      truth_raster.write(true, 1, window=window)
      for c in range(1, classes + 1):
        band, inside = scores.read(c, window), true == c
        band[(mapped != 0) & (mapped != c)] = 0  # A pixel counts for one class at most.
        histograms[c - 1, 0] += metrics.histogram_of(band[inside])
        histograms[c - 1, 1] += metrics.histogram_of(band[~inside & ~unknown])
        band = np.where(unknown, np.uint8(UNKNOWN), inside * np.uint8(_PERCENT))
        in_truth_raster.write(band, c, window=window)
      outcome = np.where(true > 0, np.where(true == mapped, _DETECTED, _MISSED), _FALSE * (mapped > 0))
      outcome[unknown] = NO_DATA
      outcome_raster.write(outcome.astype(np.uint8), 1, window=window)
  return pixels, histograms


def _draw_polygons(
  landslides: list[Landslide], names: tuple[str, ...], mask: MapRaster, path: pathlib.Path
) -> None:
  """Writes a raster on the mask's grid: for each class 100 where it has a polygon, else 0."""
  grid = mask.grid
  to_pixels = lambda points: np.rint(np.stack(~grid.transform @ tuple(points.T), axis=1))
  geometries = np.array([landslide.geometry for landslide in landslides], object)
  classes = [names.index(landslide.class_name) + 1 for landslide in landslides]
  shapes = reference_from_shapes(Shapes(
    "polygons", shapely.transform(geometries, to_pixels), np.array(classes, np.uint8)
  ))
  with _create(path, grid, len(names)) as raster:
    for window in mask.row_blocks():
      preemption.check_if_single_process()
      values = shapes.read(window)
      for c in range(1, len(names) + 1):
        raster.write((values == c) * np.uint8(_PERCENT), c, window=window)


def _areas_and_shares(landslides: list[Landslide], name: str, metric: bool) -> np.ndarray:
  """Returns area and mean probability, f64[n, 2], of the landslides of a class; None becomes NaN."""
  rows = [
    (landslide.area_m2 if metric else landslide.pixels, landslide.mean_probability)
    for landslide in landslides if landslide.class_name == name
  ]
  return np.array(rows, np.float64).reshape(-1, 2)


@contextlib.contextmanager
def _create(path: pathlib.Path, grid: Grid, bands: int) -> Iterator[DatasetWriter]:
  """Yields a raster of uint8 to write to; raises OSError naming it if it cannot be written."""
  try:
    with rasterio.open(
      path.absolute(), "w", driver="GTiff", height=grid.height, width=grid.width, count=bands,
      dtype="uint8", crs=grid.crs, transform=grid.transform, tiled=True, interleave="band",
      compress="DEFLATE", zlevel=1, BIGTIFF="IF_SAFER",
    ) as raster:
      yield raster
  except (RasterioError, CPLE_BaseError) as error:
    raise files.write_error(path, error) from error

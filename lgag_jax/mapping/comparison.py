"""How a scene's map agrees with its reference: pixels, landslides and polygons, and a picture.

Both are read by blocks of rows: memory follows the scene's width and the number of its landslides and
polygons. What is compared is written beside, on the scene's grid, so that one piece of code finds and
measures the landslides of a reference and those of a map.
"""

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np
import rasterio
import shapely
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window

from lgag_jax.config import Config
from lgag_jax.evaluation import metrics
from lgag_jax.geo.formats import SCENE_OPTIONS
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.reference import Reference, reference_from_shapes
from lgag_jax.geo.shapes import Shapes
from lgag_jax.imagery import opening, reading
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.mapping import cog, polygons, products, regions
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.mapping.products import Plan
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import files, preemption

_FOUND, _MISSED, _FALSE = 1, 2, 3
_COLOURS = np.array([(40, 160, 60), (40, 110, 250), (230, 60, 40)], np.float32)  # In their order.
_PERCENT = 100  # Marks a pixel in rasters that are read as probabilities.


@dataclasses.dataclass(frozen=True)
class Judged:
  """What was counted of a scene, or of several together."""

  pixels: np.ndarray  # i64[256, 256], by the reference's class and the map's.
  histograms: np.ndarray  # f64[C, 2, bins], scores of truly positive and negative pixels.
  # Of each class f64[n, 2], area and the share that is mapped, or that lies on landslides. The share
  # of a polygon of which nothing is known is NaN, as is an area that cannot be measured.
  landslides: list[np.ndarray]
  polygons: list[np.ndarray]

  def confusion(self, c: int) -> dict[str, np.ndarray]:
    """Counts pixels, of which both are known, of class `c` and others, as `metrics.confusion` does."""
    known = self.pixels[:UNKNOWN, : cog.NO_DATA]
    hit, true, mapped = known[c, c], known[c].sum(), known[:, c].sum()
    return {
      "true_positive": hit, "false_negative": true - hit, "false_positive": mapped - hit,
      "true_negative": known.sum() - true - mapped + hit,
    }


def compare(
  plan: Plan, reference: Reference, output: pathlib.Path, config: Config, options: Options
) -> Judged:
  """Judges a scene's map that lies in `output`, and writes a picture, eval/<stem>.png.

  The picture has found pixels green, missed ones blue and falsely mapped ones red. Raises ImageError
  naming a raster that is damaged.
  """
  folder, names = output / "eval" / ".unfinished", config.data.classes
  mask = cog.file_of(output / "mask" / plan.stem, plan.grid, 1, np.dtype(np.uint8))
  scores = cog.file_of(
    output / "probability" / plan.stem, plan.grid, len(names), np.dtype(options.dtype)
  )
  truth, on_truth, picture, mapped = (folder / f"{name}.tif" for name in ("truth", "on", "look", "map"))
  shutil.rmtree(folder, ignore_errors=True)  # Of a run that was killed.
  folder.mkdir(parents=True)
  try:
    pixels, histograms = _count(mask, scores, reference, len(names), truth, on_truth, picture)
    least = plan.min_area(options)
    found = list(polygons.find(mask, on_truth, names, plan.path.name, min_area=least))
    _draw(found, names, truth, mapped)
    landslides = list(polygons.find(truth, mapped, names, plan.path.name))
    with files.atomic_path(output / "eval" / f"{plan.stem}.png") as path:
      products.quick_look(plan.path, picture, config, options, _COLOURS).save(path)
  finally:
    shutil.rmtree(folder)
  metric = plan.grid.to_wgs84() is not None
  return Judged(
    pixels, histograms, *([_rows(kind, name, metric) for name in names] for kind in (landslides, found))
  )


def _count(
  mask_path: pathlib.Path, scores_path: pathlib.Path, reference: Reference, classes: int,
  truth_path: pathlib.Path, on_truth_path: pathlib.Path, picture_path: pathlib.Path,
) -> tuple[np.ndarray, np.ndarray]:
  """Counts pixels and scores, and writes three rasters.

  The reference where the map has data; for each class where it is, in percent; and what is found,
  missed and false. In all of them unknown pixels and those without data are 255.
  """
  pixels, histograms = np.zeros((256, 256), np.int64), np.zeros((classes, 2, metrics.BINS))
  with (
    rasterio.Env(**SCENE_OPTIONS),
    reading.open_raster(mask_path) as mask, reading.open_raster(scores_path) as scores,
    _created(truth_path, Grid.from_raster(mask), 1) as truth,
    _created(on_truth_path, Grid.from_raster(mask), classes) as on_truth,
    _created(picture_path, Grid.from_raster(mask), 1) as picture,
  ):
    for window in regions.row_blocks(mask):
      preemption.check_if_single_process()
      drawn, true = _read(mask, 1, window), reference.read(window)
      pairs = true.astype(np.uint16) * 256 + drawn
      pixels += np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
      true[drawn == cog.NO_DATA] = UNKNOWN
      unknown = true == UNKNOWN
      truth.write(true, 1, window=window)
      for c in range(1, classes + 1):
        band, inside = _read(scores, c, window), true == c
        band[(drawn != 0) & (drawn != c)] = 0  # A pixel counts for one class at most.
        histograms[c - 1, 0] += metrics.histogram_of(band[inside])
        histograms[c - 1, 1] += metrics.histogram_of(band[~inside & ~unknown])
        band = np.where(unknown, np.uint8(UNKNOWN), inside * np.uint8(_PERCENT))
        on_truth.write(band, c, window=window)
      look = np.where(true > 0, np.where(true == drawn, _FOUND, _MISSED), _FALSE * (drawn > 0))
      look[unknown] = cog.NO_DATA
      picture.write(look.astype(np.uint8), 1, window=window)
  return pixels, histograms


def _draw(
  found: list[Landslide], names: tuple[str, ...], like: pathlib.Path, path: pathlib.Path
) -> None:
  """Writes for each class where its polygons are, in percent, on the grid of `like`."""
  with rasterio.Env(**SCENE_OPTIONS), rasterio.open(like) as raster:
    grid, windows = Grid.from_raster(raster), list(regions.row_blocks(raster))
  back = lambda points: np.rint(np.stack(~grid.transform @ tuple(points.T), axis=1))
  drawn = reference_from_shapes(Shapes(
    "polygons", shapely.transform(np.array([x.geometry for x in found], object), back),
    np.array([names.index(x.class_name) + 1 for x in found], np.uint8),
  ))
  with rasterio.Env(**SCENE_OPTIONS), _created(path, grid, len(names)) as raster:
    for window in windows:
      preemption.check_if_single_process()
      values = drawn.read(window)
      for c in range(1, len(names) + 1):
        raster.write((values == c) * np.uint8(_PERCENT), c, window=window)


def _rows(found: list[Landslide], name: str, metric: bool) -> np.ndarray:
  """Returns area and share, f64[n, 2], of the landslides of a class; None becomes NaN."""
  rows = [
    (x.area_m2 if metric else x.pixels, x.mean_probability) for x in found if x.class_name == name
  ]
  return np.array(rows, np.float64).reshape(-1, 2)


def _read(raster: rasterio.DatasetReader, band: int, window: Window) -> np.ndarray:
  with opening.error_context(raster.name, "Delete it, and run the same command again."):
    return raster.read(band, window=window)


@contextlib.contextmanager
def _created(path: pathlib.Path, grid: Grid, bands: int) -> Iterator[rasterio.io.DatasetWriter]:
  """Yields a raster of uint8 to write to; an OSError names it when it cannot be written."""
  try:
    with rasterio.open(
      path, "w", driver="GTiff", height=grid.height, width=grid.width, count=bands, dtype="uint8",
      crs=grid.crs, transform=grid.transform, tiled=True, interleave="band", compress="DEFLATE",
      zlevel=1, BIGTIFF="IF_SAFER",
    ) as raster:
      yield raster
  except (RasterioError, CPLE_BaseError) as error:
    raise OSError(f"{path} could not be written (is the disk full?): {error}") from error

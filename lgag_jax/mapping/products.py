"""What a map of a scene consists of: rasters, polygons, styles, an overlay, and the numbers."""

import contextlib
import csv
import ctypes
import dataclasses
import itertools
import math
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageColor
from rasterio.windows import Window

from lgag_jax.config import Config
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scale import View
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import scaling
from lgag_jax.mapping import cog, polygons, qgis_style, vectors
from lgag_jax.mapping.polygons import Landslide
from lgag_jax.mapping.unfinished import Store
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import files

_SUFFIXES = (".tif", ".png", ".gpkg", ".geojson", ".qml")
_ROWS = 512  # Of a map in memory at once.
_OVERLAY_SIDE = 2048
_LEAST_SIDE = 4  # Of a polygon, in pixels as the network sees them: the finest that its maps resolve.
_COLOURS = np.array([ImageColor.getrgb(colour) for colour in qgis_style.COLOURS], np.float32)


@dataclasses.dataclass(frozen=True)
class Plan:
  """A scene that is to be mapped, and how."""

  path: pathlib.Path
  stem: str  # Of its files.
  grid: Grid
  view: View
  key: str  # Tells this map from that of another network, scene or option.

  def working(self, output: pathlib.Path) -> pathlib.Path:
    """The folder of what is not finished."""
    return output / ".unfinished" / self.stem

  def min_area(self, options: Options) -> float:
    """The least area of a polygon, square metres, or pixels where the scene lies nowhere."""
    if options.min_area >= 0:
      return options.min_area
    seen = self.view.reduction * self.view.side / self.view.model_side  # Of the scene's pixels.
    return (_LEAST_SIDE * seen * (self.grid.gsd() or 1.0)) ** 2

  def result(self, output: pathlib.Path) -> pathlib.Path:
    return output / "scenes" / f"{self.stem}.json"


def is_done(plan: Plan, output: pathlib.Path) -> bool:
  """Whether a map is there, whole, and still what is asked for."""
  try:
    result = files.read_json(plan.result(output))
    return result["key"] == plan.key and all((output / name).exists() for name in result["files"])
  except (OSError, ValueError, LookupError, TypeError):
    return False


def write(
  plan: Plan, stores: Sequence[Store], probability: np.ndarray, effort: dict, output: pathlib.Path,
  config: Config, options: Options,
) -> None:
  """Makes a scene's products of what its stores hold, which is then removed.

  probability/ and mask/ (cloud-optimised GeoTIFFs on the scene's own grid), overlay/, polygons/
  (GeoPackage and GeoJSON) where the scene has a georeference, styles beside each, and last, since it
  says that all is there, scenes/<stem>.json.
  """
  plan.result(output).unlink(missing_ok=True)
  _give_memory_back()
  names, count = config.data.classes, np.zeros(256, np.int64)
  scores = cog.write(
    output / "probability" / plan.stem, plan.grid, len(names), np.dtype(options.dtype),
    ((first, part) for first, part, _ in _rows(stores)), names, averaged=True,
  )
  mask = cog.write(
    output / "mask" / plan.stem, plan.grid, 1, np.dtype(np.uint8),
    ((first, part[..., None]) for first, _, part in _counted(stores, count)), ("class",),
    averaged=False, colours=_mask_colours(len(names)),
  )
  areas, made = None, [scores, mask]
  if plan.grid.georeferenced:
    styles = {
      mask: qgis_style.mask_style(names),
      scores: qgis_style.probability_style(options.probability == "percent"),
      output / "polygons" / f"{plan.stem}.qml": qgis_style.polygon_style(names),
    }
    for path, text in styles.items():
      made.append(path.with_suffix(".qml"))
      files.write_text(made[-1], text)
    areas = {name: [] for name in names}
    vectors_at = [output / "polygons" / f"{plan.stem}{suffix}" for suffix in (".gpkg", ".geojson")]
    found = polygons.find(
      mask, scores, names, plan.path.name, min_area=plan.min_area(options), simplify=options.simplify
    )
    with contextlib.closing(found):
      made += vectors.write(_noted(found, areas), plan.grid, *vectors_at)
  made.append(output / "overlay" / f"{plan.stem}.png")
  with files.atomic_path(made[-1]) as path:
    quick_look(plan.path, mask, config, options).save(path)
  _remove_others(plan, output, made)
  numbers = _numbers(plan, count, probability, areas, effort, config)
  made = [path.relative_to(output).as_posix() for path in made]
  files.write_json(plan.result(output), {**numbers, "files": made})
  shutil.rmtree(plan.working(output))


def _remove_others(plan: Plan, output: pathlib.Path, made: Sequence[pathlib.Path]) -> None:
  """Removes what an earlier map has left in a form that this one, with or without a CRS, has not."""
  for folder, suffix in itertools.product(("mask", "probability", "polygons"), _SUFFIXES):
    path = output / folder / f"{plan.stem}{suffix}"
    if path not in made:
      path.unlink(missing_ok=True)


def _give_memory_back() -> None:
  """Hands what mapping has freed back to the system, so that products do not come on top of it."""
  with contextlib.suppress(OSError, AttributeError):  # Other C libraries than glibc do so themselves.
    ctypes.CDLL(None).malloc_trim(0)


def _mask_colours(classes: int) -> dict[int, tuple[int, int, int]]:
  shown = {c + 1: tuple(map(int, _COLOURS[c % len(_COLOURS)])) for c in range(classes)}
  return {0: (30, 30, 30), **shown, cog.NO_DATA: (255, 255, 255)}


def _rows(stores: Sequence[Store]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
  for store in sorted(stores, key=lambda store: store.span):
    for first in range(*store.span, _ROWS):
      yield first, *store.read(first, min(_ROWS, store.span[1] - first))


def _counted(stores: Sequence[Store], count: np.ndarray) -> Iterator[tuple]:
  for first, scores, mask in _rows(stores):
    count += np.bincount(mask.ravel(), minlength=256)
    yield first, scores, mask


def _noted(landslides: Iterator[Landslide], areas: dict[str, list[float]]) -> Iterator[Landslide]:
  """Yields the landslides, and notes the area of each in square metres, NaN where it has none."""
  for landslide in landslides:
    area = landslide.area_m2
    areas[landslide.class_name].append(math.nan if area is None else area)
    yield landslide


def _numbers(
  plan: Plan, count: np.ndarray, probability: np.ndarray, areas: dict[str, list[float]] | None,
  effort: dict, config: Config,
) -> dict:
  valid = int(count[: cog.NO_DATA].sum())
  classes = {}
  for c, name in enumerate(config.data.classes):
    of_class = None if areas is None else np.sort(areas[name])
    metric = areas is not None and not np.isnan(of_class).any()
    classes[name] = {
      "probability": round(float(probability[c]), 4),
      "share": round(float(count[c + 1]) / max(valid, 1), 6),
      "pixels": int(count[c + 1]),
      "landslides": None if areas is None else len(of_class),
      "areas_m2": of_class.round(2).tolist() if metric else None,
    }
  grid = plan.grid
  return {
    "key": plan.key, "file": plan.path.name, "stem": plan.stem, "height": grid.height,
    "width": grid.width, "gsd": grid.gsd(), "crs": grid.crs.to_string() if grid.crs else None,
    "georeferenced": grid.georeferenced, "valid_pixels": valid,
    "no_data_share": 1.0 - valid / (grid.height * grid.width), "view": dataclasses.asdict(plan.view),
    "classes": classes, **effort,
  }


def quick_look(
  path: pathlib.Path, mask: pathlib.Path, config: Config, options: Options,
  colours: np.ndarray = _COLOURS,
) -> Image.Image:
  """Returns the scene, at most 2048 pixels wide and high, with what is mapped tinted and outlined."""
  with open_scene(path, config.data.channels, bands=options.bands) as scene:
    height, width = scene.grid.height, scene.grid.width
    by = max(1, -(-max(height, width) // _OVERLAY_SIDE))
    shape = (-(-height // by), -(-width // by))
    whole = Window(0, 0, width, height)
    pixels, _ = scene.read(whole, out_shape=shape if by > 1 else None)
  return overlay(pixels, cog.read_small(mask, shape), config, colours)


def overlay(
  pixels: np.ndarray, mask: np.ndarray, config: Config, colours: np.ndarray = _COLOURS
) -> Image.Image:
  """Returns the image with each class tinted and outlined, white where there is no data.

  `colours`, f32[n, 3], are those of class 1, 2 and so on.
  """
  shown = scaling.picture(pixels, config.model.rgb_bands, mask != cog.NO_DATA).astype(np.float32)
  inside = (mask > 0) & (mask != cog.NO_DATA)
  colour = colours[(np.maximum(mask, 1) - 1) % len(colours)]
  same = np.ones(mask.shape, bool)
  for axis in (0, 1):
    for shift in (1, -1):
      same &= np.roll(mask, shift, axis) == mask
  shown = np.where(inside[..., None], 0.65 * shown + 0.35 * colour, shown)
  shown = np.where((inside & ~same)[..., None], colour, shown)
  shown = np.where((mask == cog.NO_DATA)[..., None], 255.0, shown)
  return Image.fromarray(np.uint8(shown))


def results(output: pathlib.Path, config: Config) -> list[dict]:
  """Returns the numbers of all maps of these classes in an output, of earlier inputs too."""
  found = [files.read_json(path) for path in sorted((output / "scenes").glob("*.json"))]
  return [result for result in found if tuple(result["classes"]) == config.data.classes]


def collect(plans: Sequence[Plan], output: pathlib.Path, config: Config) -> list[dict]:
  """Writes predictions.csv of all maps in an output; returns the rows of those that are asked for."""
  rows = {}
  for result in results(output, config):
    row = {"file": result["file"]}
    for name, values in result["classes"].items():
      row |= {f"{name}_{key}": values[key] for key in ("probability", "share", "landslides")}
      areas = values["areas_m2"]
      row[f"{name}_area_m2"] = None if areas is None else round(sum(areas), 1)
    rows[result["stem"]] = row | {"no_data_share": round(result["no_data_share"], 6)}
  if rows:
    path = output / "predictions.csv"
    with files.atomic_path(path) as partial, partial.open("w", newline="") as file:
      writer = csv.DictWriter(file, next(iter(rows.values())).keys())
      writer.writeheader()
      writer.writerows(rows.values())
  return [rows[plan.stem] for plan in plans if is_done(plan, output)]

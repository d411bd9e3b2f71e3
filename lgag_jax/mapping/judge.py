"""Evaluates maps of scenes against reference rasters or polygons: --mode=eval with --input.

These references never choose a threshold of the maps.
"""

import contextlib
import logging
import math
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from lgag_jax import config as configs
from lgag_jax.config import Config
from lgag_jax.evaluation import metrics, thresholds_file
from lgag_jax.evaluation.evaluate import SIZE_EDGES
from lgag_jax.evaluation.index_rule import ColourIndex
from lgag_jax.geo import companions, shared_labels
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.label_reach import Reach
from lgag_jax.geo.reference import Reference, open_reference
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import listing, reading
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.mapping import (
  map_names,
  output_folder,
  predict,
  products,
  reference_files,
  scene_index,
  scene_tables,
)
from lgag_jax.mapping.comparison import Comparison, compare
from lgag_jax.mapping.predict import MappingResult
from lgag_jax.mapping.rasters import NO_DATA
from lgag_jax.options.mapping import Options, References
from lgag_jax.runtime import files, lock, processes

_LOG = logging.getLogger(__name__)

_SIZE_EDGES = {"m2": (0, 100, 1_000, 10_000, 100_000, 1_000_000), "pixels": SIZE_EDGES}


def evaluate(
  workdir: pathlib.Path, source: str | pathlib.Path, output: pathlib.Path, options: Options,
  reference_options: References,
) -> dict:
  """Maps scenes as `predict.map_scenes` does, then evaluates the maps against references.

  Writes eval/ (scenes.json, scenes.md, pictures) and the page; returns the content of scenes.json.
  Scenes without a reference are logged and skipped. Raises ValueError or OSError naming file or flag.
  """
  scenes = [scene.path for scene in companions.find(listing.scene_files(source), options)]
  output_folder.require_flags(output, scenes, options.flags())
  references = reference_files.find(scenes, reference_options.labels)
  config = configs.load(workdir / "config.json")
  processes.run_on_first(lambda: _check_references(references, config, options, reference_options))
  result = predict.map_scenes(workdir, source, output, options)
  indices = thresholds_file.load_indices(workdir, config)
  with lock.hold(output, "output"):
    return processes.run_on_first(
      lambda: evaluate_maps(result, references, output, options, reference_options, indices)
    )


def _check_references(
  references: dict, config: Config, options: Options, reference_options: References
) -> None:
  grids: dict[pathlib.Path, Grid] = {}
  for path in references:
    try:
      with open_scene(path, config.data.channels, bands=options.bands) as scene:
        grids[path] = scene.grid
    except reading.ImageError:  # Mapping reports it.
      continue
  for labels in dict.fromkeys(references.values()):
    of_labels = {path: grid for path, grid in grids.items() if references[path] == labels}
    shared_labels.check(labels, of_labels, layer=reference_options.layer)
  reach = Reach(grids, layer=reference_options.layer)
  for path, grid in grids.items():
    labels = references[path]
    with _open_reference(labels, path, grid, config, reference_options, references) as reference:
      reach.note(labels, path, inside=reference.inside)


@contextlib.contextmanager
def _open_reference(
  path: pathlib.Path, scene: pathlib.Path, grid: Grid, config: Config, options: References,
  references: dict[pathlib.Path, pathlib.Path],
) -> Iterator[Reference]:
  with open_reference(
    path, grid, config.data.classes, layer=options.layer, field=options.field,
    ignore=options.mask_ignore, masks=list(references.values()), scene=scene,
    background=config.data.background,
    may_be_empty=not pathlib.Path(options.labels).is_file(),  # The reference of a scene of its own.
  ) as reference:
    if reference.kind == "points":
      raise ValueError(
        f"{path} holds points, which do not say which pixels are landslides: give polygons or a "
        "raster mask."
      )
    yield reference


def evaluate_maps(
  result: MappingResult, references: dict[pathlib.Path, pathlib.Path], output: pathlib.Path,
  options: Options, reference_options: References, indices: Sequence[ColourIndex | None] = (),
) -> dict:
  """Evaluates the maps in `output`, and each class's colour index if given; see `evaluate`."""
  config, scenes, skipped = result.config, [], {}
  names = scene_tables.names_of([
    {"stem": plan.stem, "file": plan.path.name, "path": str(plan.path)} for plan in result.plans
  ])
  by_unit: dict[str, list[Comparison]] = {}
  plans = [plan for plan in result.plans if products.is_complete(plan, output)]
  output_folder.prepare_evaluation(output, [plan.stem for plan in plans if plan.path in references])
  for plan in plans:
    if plan.path not in references:
      skipped[names[plan.stem]] = f"no reference of this name in --labels={reference_options.labels}"
      _LOG.warning("Not evaluated: %s: %s.", plan.path, skipped[names[plan.stem]])
      continue
    labels, unit = references[plan.path], "pixels" if plan.grid.to_wgs84() is None else "m2"
    opened = _open_reference(labels, plan.path, plan.grid, config, reference_options, references)
    with opened as reference:
      comparison = compare(plan, reference, output, config, options, indices)
    if not _pixel_counts(comparison.pixels)["judged"]:
      skipped[names[plan.stem]] = f"{labels} does not cover it: check the coordinates of both"
      _LOG.warning("Not evaluated: %s: %s.", plan.path, skipped[names[plan.stem]])
      continue
    by_unit.setdefault(unit, []).append(comparison)
    classes = _pixel_figures(comparison, result, options, indices)
    for c, figures in enumerate(classes.values()):
      figures["objects"] = _object_figures(comparison, c, reference_options, unit)
    scenes.append({
      "file": plan.path.name, "path": map_names.source_path(plan.path), "stem": plan.stem,
      "reference": labels.name, "pixels": _pixel_counts(comparison.pixels), "classes": classes,
    })
  if not scenes:
    reason = next(iter(skipped.values()), "none could be mapped")
    raise ValueError(
      f"--labels={reference_options.labels} evaluates no scene. The first was skipped: {reason}."
    )
  pooled_by_unit = {unit: _pool(of_unit) for unit, of_unit in by_unit.items()}
  pooled = _pool([comparison for of_unit in by_unit.values() for comparison in of_unit])
  classes = _pixel_figures(pooled, result, options, indices)
  for c, figures in enumerate(classes.values()):  # Square metres and pixels cannot be added.
    figures["objects"] = [
      _object_figures(of_unit, c, reference_options, unit) for unit, of_unit in pooled_by_unit.items()
    ]
  content = {
    "step": result.step, "threshold_rule": result.threshold_rule, "probability": options.probability,
    "min_overlap": reference_options.min_overlap, "pixels": _pixel_counts(pooled.pixels),
    "classes": classes, "scenes": scenes, "left_out": skipped, "unmapped": [*result.skipped.values()],
  }
  files.write_json(output / "eval" / "scenes.json", content)
  files.write_text(output / "eval" / "scenes.md", scene_tables.markdown(content))
  shown = output_folder.read_figures(output, config.data.classes)
  predict.write_page(result, output, shown, evaluation=content)
  return content


def _pool(comparisons: list[Comparison]) -> Comparison:
  concatenate = lambda per_scene: [np.concatenate(rows) for rows in zip(*per_scene, strict=True)]
  return Comparison(
    np.sum([one.pixels for one in comparisons], axis=0),
    np.sum([one.histograms for one in comparisons], axis=0),
    landslides=concatenate(one.landslides for one in comparisons),
    polygons=concatenate(one.polygons for one in comparisons),
    indices=[
      scene_index.total(rows) for rows in zip(*(one.indices for one in comparisons), strict=True)
    ],
  )


def _pixel_counts(pixels: np.ndarray) -> dict[str, int]:
  """Counts pixels that are evaluated, without data in the map, and with data but unknown."""
  return {
    "judged": int(pixels[:UNKNOWN, :NO_DATA].sum()), "no_data": int(pixels[:, NO_DATA].sum()),
    "unknown": int(pixels[UNKNOWN, :NO_DATA].sum()),
  }


def _pixel_figures(
  comparison: Comparison, result: MappingResult, options: Options,
  indices: Sequence[ColourIndex | None],
) -> dict:
  """Returns each class's rates at the map's threshold and the best one, and those of its index."""
  classes, of_indices = {}, scene_index.figures(indices, comparison.indices)
  for c, name in enumerate(result.config.data.classes):
    threshold, oracle = metrics.oracle(*comparison.histograms[c])
    if options.probability == "percent":  # The lowest whole percent above it.
      threshold = math.ceil(threshold * 100 - 1e-9) / 100
    label_free = metrics.rates(comparison.confusion(c + 1))
    classes[name] = {
      "label_free": {"threshold": result.thresholds[c], **label_free},
      "oracle": {"threshold": threshold, **oracle},
      "colour_index": of_indices[c] if of_indices else None,
    }
  return classes


def _object_figures(comparison: Comparison, c: int, reference_options: References, unit: str) -> dict:
  """Returns a class's figures of landslides and polygons; polygons of unknown pixels do not count."""
  polygons = comparison.polygons[c]
  known = polygons[~np.isnan(polygons[:, 1])]
  figures = metrics.objects(
    comparison.landslides[c], known, reference_options.min_overlap, _SIZE_EDGES[unit]
  )
  return {"unit": unit, **figures, "unknown_polygons": len(polygons) - len(known)}

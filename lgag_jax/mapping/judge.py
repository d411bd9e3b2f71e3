"""Maps of scenes against reference rasters or polygons: --mode=eval with --input.

    python -m lgag_jax.main --mode=eval --workdir=runs/x --input=scene.tif --labels=reference.gpkg \\
      --output=maps

No threshold is ever chosen by the references that are read here.
"""

import contextlib
import glob
import logging
import math
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from lgag_jax import config as configs
from lgag_jax.config import Config
from lgag_jax.evaluation import metrics
from lgag_jax.evaluation.evaluate import SIZE_EDGES
from lgag_jax.geo import shapes
from lgag_jax.geo.formats import scene_files
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.reference import Reference, open_reference
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import opening, reading
from lgag_jax.imagery.reading import UNKNOWN
from lgag_jax.mapping import comparison, predict, products, scene_tables
from lgag_jax.mapping.cog import NO_DATA
from lgag_jax.mapping.comparison import Judged
from lgag_jax.method.registry import method_of
from lgag_jax.options.mapping import Options, References
from lgag_jax.runtime import files, lock, processes

_LOG = logging.getLogger(__name__)

_EDGES = {"m2": (0, 100, 1_000, 10_000, 100_000, 1_000_000), "pixels": SIZE_EDGES}


def evaluate(
  workdir: pathlib.Path, source: str | pathlib.Path, output: pathlib.Path, options: Options,
  wanted: References,
) -> dict:
  """Maps scenes as `predict` does, then writes eval/ (scenes.json, .md, pictures) and the page.

  Returns what scenes.json holds. Scenes without a reference are named and left out. Raises ValueError
  or OSError that names the file or the flag, before anything is mapped where that can be told.
  """
  references = find_references(scene_files(source), wanted.labels)
  config = configs.load(workdir / "config.json")
  processes.from_first(lambda: _check(references, config, options, wanted))
  mapped = predict.map_scenes(workdir, source, output, options)
  with lock.hold(output):
    return processes.from_first(lambda: judge(mapped, references, output, options, wanted))


def find_references(
  scenes: Sequence[pathlib.Path], labels: str
) -> dict[pathlib.Path, pathlib.Path]:
  """Returns the scenes' references: one file's, or by name; raises ValueError when there is none."""
  path = pathlib.Path(labels)
  own = {scene.absolute() for scene in scenes}
  if path.is_file():
    others = [scene for scene in scenes if scene.absolute() != path.absolute()]
    if len(others) > 1 and path.suffix.lower() not in shapes.SUFFIXES:
      raise ValueError(
        f"--labels={labels} is one mask for {len(others)} scenes: name a folder or a glob of masks "
        f"that have the scenes' names, such as {others[0].stem}{path.suffix}."
      )
    if not others:
      raise ValueError(f"--labels={labels} is the scene itself: name its reference.")
    return dict.fromkeys(others, path)
  found = path.iterdir() if path.is_dir() else map(pathlib.Path, glob.glob(labels, recursive=True))
  by_stem: dict[str, list[pathlib.Path]] = {}
  for file in sorted(found):
    if file.suffix.lower() in (*shapes.SUFFIXES, *opening.SUFFIXES) and file.absolute() not in own:
      by_stem.setdefault(file.stem, []).append(file)
  for stem in {scene.stem for scene in scenes}:
    if len(files_of := by_stem.get(stem, [])) > 1:
      raise ValueError(
        f"{files_of[0]} and {files_of[1]} are both references of {stem}: name one kind, such as "
        f"--labels='{files_of[0].parent}/*{files_of[0].suffix}'."
      )
  result = {scene: by_stem[scene.stem][0] for scene in scenes if scene.stem in by_stem}
  if not result:
    raise ValueError(
      f"--labels={labels} has no file with a scene's name: for {scenes[0].name} it would be "
      f"{scenes[0].stem}.gpkg, .shp, .geojson, .tif or .png."
    )
  return result


def _check(references: dict, config: Config, options: Options, wanted: References) -> None:
  """Raises ValueError for what is no reference of pixels."""
  for path, labels in references.items():
    try:
      with open_scene(path, config.data.channels, bands=options.bands) as scene:
        grid = scene.grid
    except reading.ImageError:  # Prediction names it.
      continue
    with _open(labels, grid, config, wanted):
      pass


@contextlib.contextmanager
def _open(
  path: pathlib.Path, grid: Grid, config: Config, wanted: References
) -> Iterator[Reference]:
  with open_reference(
    path, grid, config.data.classes, layer=wanted.layer, field=wanted.field, ignore=wanted.mask_ignore
  ) as reference:
    if reference.kind == "points":
      raise ValueError(
        f"{path} holds points, which do not tell the pixels of a landslide: maps are judged against "
        "polygons or a raster mask."
      )
    yield reference


def judge(
  mapped: predict.Mapped, references: dict[pathlib.Path, pathlib.Path], output: pathlib.Path,
  options: Options, wanted: References,
) -> dict:
  """Judges the maps that are in `output`; see `evaluate`."""
  config, found, scenes, left_out = mapped.config, {}, [], {}
  for plan in mapped.plans:
    if not products.is_done(plan, output):
      continue
    if plan.path not in references:
      left_out[plan.path.name] = f"no reference of this name in --labels={wanted.labels}"
      _LOG.warning("Not judged: %s: %s.", plan.path, left_out[plan.path.name])
      continue
    labels, unit = references[plan.path], "pixels" if plan.grid.to_wgs84() is None else "m2"
    with _open(labels, plan.grid, config, wanted) as reference:
      judged = comparison.compare(plan, reference, output, config, options)
    if not _pixels(judged.pixels)["judged"]:
      left_out[plan.path.name] = f"{labels} knows nothing of its ground: do both lie where they should?"
      _LOG.warning("Not judged: %s: %s", plan.path, left_out[plan.path.name])
      continue
    found.setdefault(unit, []).append(judged)
    results = _results(judged, mapped, options)
    for c, values in enumerate(results.values()):
      values["objects"] = _objects(judged, c, wanted, unit)
    scenes.append({
      "file": plan.path.name, "stem": plan.stem, "reference": labels.name,
      "pixels": _pixels(judged.pixels), "classes": results,
    })
  if not scenes:
    reason = next(iter(left_out.values()), "none could be mapped")
    raise ValueError(f"No scene is judged by --labels={wanted.labels}; the first: {reason}.")
  by_unit = {unit: _pooled(of_unit) for unit, of_unit in found.items()}
  pooled = _pooled([judged for of_unit in found.values() for judged in of_unit])
  classes = _results(pooled, mapped, options)
  for c, values in enumerate(classes.values()):  # Square metres and pixels do not add up.
    values["objects"] = [_objects(of, c, wanted, unit) for unit, of in by_unit.items()]
  result = {
    "step": mapped.step, "threshold_rule": method_of(config).rule(config),
    "probability": options.probability, "min_overlap": wanted.min_overlap,
    "pixels": _pixels(pooled.pixels), "classes": classes, "scenes": scenes, "left_out": left_out,
  }
  files.write_json(output / "eval" / "scenes.json", result)
  files.write_text(output / "eval" / "scenes.md", scene_tables.markdown(result))
  predict.write_page(mapped, output, evaluation=result)
  return result


def _pooled(found: list[Judged]) -> Judged:
  return Judged(
    sum(judged.pixels for judged in found), sum(judged.histograms for judged in found),
    *(
      [np.concatenate(of_class) for of_class in zip(*kinds, strict=True)]
      for kinds in ([judged.landslides for judged in found], [judged.polygons for judged in found])
    ),
  )


def _pixels(pixels: np.ndarray) -> dict[str, int]:
  """Counts pixels that are judged, without data in the map, and with data but unknown."""
  return {
    "judged": int(pixels[:UNKNOWN, :NO_DATA].sum()), "no_data": int(pixels[:, NO_DATA].sum()),
    "unknown": int(pixels[UNKNOWN, :NO_DATA].sum()),
  }


def _results(judged: Judged, mapped: predict.Mapped, options: Options) -> dict:
  """Returns each class's figures of pixels."""
  classes = {}
  for c, name in enumerate(mapped.config.data.classes):
    threshold, oracle = metrics.oracle(*judged.histograms[c])
    if options.probability == "percent":  # The lowest level of whole percent that lies above it.
      threshold = math.ceil(threshold * 100 - 1e-9) / 100
    label_free = metrics.rates(judged.confusion(c + 1))
    classes[name] = {
      "label_free": {"threshold": mapped.thresholds[c], **label_free},
      "oracle": {"threshold": threshold, **oracle},
    }
  return classes


def _objects(judged: Judged, c: int, wanted: References, unit: str) -> dict:
  known = judged.polygons[c][~np.isnan(judged.polygons[c][:, 1])]
  found = metrics.objects(judged.landslides[c], known, wanted.min_overlap, _EDGES[unit])
  return {"unit": unit, **found, "unknown_polygons": len(judged.polygons[c]) - len(known)}

"""Maps images and scenes of any size: rasters, polygons, figures and a page (--mode=predict)."""

import contextlib
import dataclasses
import logging
import pathlib
import shutil

import jax

from lgag_jax.config import Config
from lgag_jax.evaluation.metrics import BLACK_SHARE, WHITE_SHARE
from lgag_jax.geo import companions
from lgag_jax.geo.companions import SceneFiles
from lgag_jax.imagery import listing, reading
from lgag_jax.mapping import (
  decided_ground,
  maps_table,
  model_findings,
  output_folder,
  products,
  scene_page,
  terrain_filter,
)
from lgag_jax.mapping.loaded_model import LoadedModel, load_model
from lgag_jax.mapping.map_names import MapNames
from lgag_jax.mapping.scene_mapper import SceneMapper
from lgag_jax.mapping.scene_plans import ScenePlan, check_dates, plan_scenes
from lgag_jax.method.registry import method_of
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import lock, processes, sharding

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class MappingResult:
  """The maps in an output folder, and what made them."""

  rows: list[dict]  # Of predictions.csv.
  plans: list[ScenePlan]  # Also of scenes that could not be mapped.
  config: Config
  step: int
  thresholds: list[float]  # Per class.
  skipped: dict[str, str]  # Why images could not be mapped, by path.
  choice: str = ""  # Of `LoadedModel`.
  findings: tuple[tuple[str, str, str], ...] = ()  # Level, text and remedy: what to know of the maps.

  @property
  def threshold_rule(self) -> str:
    """Returns the rule that chose the thresholds, or the flag that set them."""
    return "--threshold" if "--threshold" in self.choice else method_of(self.config).rule(self.config)


class _SkippedImages(dict):
  """Why images could not be mapped, by path."""

  def add(self, path: pathlib.Path, error: Exception) -> None:
    self[str(path)] = str(error) if str(path) in str(error) else f"{path}: {error}"
    _LOG.warning("Skipped: %s", self[str(path)])


def map_scenes(
  model: pathlib.Path | LoadedModel, source: str | pathlib.Path, output: pathlib.Path,
  options: Options = Options(),
) -> MappingResult:
  """Maps a file, the images of a folder, or those of a glob, with a workdir's newest checkpoint.

  Writes to `output` the products of each scene (`products.write`), predictions.csv and the page. Maps
  that are complete are not made again; a map that an earlier run began is resumed. Several processes
  divide the scenes, or the rows of each if there are fewer scenes than processes; they need a disk that
  all of them see. An image that cannot be read is logged and skipped; raises ImageError if none can.
  """
  scenes = _find_scenes(source, options)
  paths = [scene.path for scene in scenes]
  output_folder.require_usable(output)
  try:
    output.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise OSError(f"--output={output} cannot be written to: {error.strerror}.") from error
  loaded = (model if isinstance(model, LoadedModel) else load_model(model)).at(options)
  config, state, mesh = loaded.config, loaded.state, loaded.mesh
  check_dates(config, options)
  if jax.process_count() > 1:  # Each maps windows of its own, on its own devices.
    mesh = sharding.make_mesh(jax.local_devices())
    state = jax.tree.map(sharding.gather_to_host, state)
  with lock.hold(output, "output"):
    skipped = _SkippedImages()
    plans = list(plan_scenes(scenes, loaded, options, MapNames(output), skipped.add))
    decided_ground.check_places({plan.path: plan.grid for plan in plans}, options)
    classes = len(config.data.classes)
    names = {plan.stem: plan.product_names(classes, options) for plan in plans}
    processes.run_on_first(lambda: output_folder.prepare(output, names))
    incomplete = [plan for plan in plans if not products.is_complete(plan, output)]
    split_scenes = 0 < len(incomplete) < jax.process_count()
    mapper = SceneMapper(output, config, options, loaded.thresholds, split_scenes, skipped.add)
    mapper.map_scenes(incomplete, loaded.network, state, mesh)
    complete = {plan.path for plan in plans if products.is_complete(plan, output)}
    reasons = {
      str(path): skipped.get(str(path), "another process could not read it; see its log")
      for path in paths if path not in complete
    }
    result = MappingResult(
      [], plans, config, int(state.step), loaded.thresholds, reasons, loaded.choice,
      model_findings.read(loaded))
    rows = processes.run_on_first(lambda: _write_table_and_page(result, output))
  if not rows:
    first = next(iter(skipped.values()), "on another process")
    raise reading.ImageError(f"No image of {source} could be read; the first: {first}")
  if len(rows) < len(paths):
    _LOG.warning("%d of %d images were skipped.", len(paths) - len(rows), len(paths))
  if warning := blank_maps_warning(rows, config):
    _LOG.warning("%s", warning)
  return dataclasses.replace(result, rows=rows)


def _find_scenes(source: str | pathlib.Path, options: Options) -> list[SceneFiles]:
  """Returns the scenes with the files that are read with them; warns of what is not mapped."""
  terrain_filter.check(options)
  paths = listing.scene_files(source)
  scenes = companions.find(terrain_filter.without_dem(paths, options), options)
  decided_ground.check([scene.path for scene in scenes], options)
  for text in listing.left_out(source):
    _LOG.warning("%s", text)
  return scenes


def _write_table_and_page(result: MappingResult, output: pathlib.Path) -> list[dict]:
  """Writes predictions.csv and the page of all maps in `output`; returns the rows of the plans.

  A page of these maps stays as it is, since it may hold an evaluation.
  """
  for plan in result.plans:
    if str(plan.path) not in result.skipped:  # A run killed at its very end leaves this folder.
      shutil.rmtree(plan.working_folder(output), ignore_errors=True)
  with contextlib.suppress(OSError):  # Not empty, if a scene is unfinished.
    (output / ".unfinished").rmdir()
  scenes = output_folder.read_figures(output, result.config.data.classes)  # Once: they may be long.
  table = maps_table.write(output, scenes)
  rows = [table[plan.stem] for plan in result.plans if products.is_complete(plan, output)]
  if blank := blank_maps_warning(rows, result.config):
    result = dataclasses.replace(result, findings=(("warning", blank, ""), *result.findings))
  if rows and not output_folder.is_page_current(output, output_folder.digest(scenes, result.skipped)):
    write_page(result, output, scenes)
  return rows


def write_page(
  result: MappingResult, output: pathlib.Path, scenes: list[dict], evaluation: dict | None = None
) -> None:
  """Writes the page of all maps in `output`, with the content of eval/scenes.json if given.

  `scenes` is what `output_folder.read_figures` returns.
  """
  config = result.config
  levels = ", ".join(f"{value:.3f}" for value in result.thresholds)
  origin = f'chosen without masks by the rule "{result.threshold_rule}"'
  if "--threshold" in result.choice:
    origin = "set with --threshold"
  description = (
    f"Method {config.model.method} on {config.model.trunk}. Score threshold: {levels}, {origin}."
  )
  if method_of(config).gated:
    origin = ", set with --gate" if "--gate" in result.choice else ""
    description += f" Gate: {config.localize.gate:g}{origin}."
  scene_page.write(
    scenes, output, description=description, skipped=result.skipped, evaluation=evaluation,
    findings=result.findings,
    maps_digest=output_folder.digest(scenes, result.skipped),
  )


def blank_maps_warning(rows: list[dict], config: Config) -> str:
  """Returns what to check if all maps are black, or all white; else ""."""
  names, gate = config.data.classes, config.localize.gate
  rows = [row for row in rows if row.get("no_data_share", 0.0) < 1.0]
  if not rows:  # Each scene without any data has a warning of its own.
    return ""
  shares = [sum(row[f"{name}_share"] for name in names) for row in rows]
  all_black, all_white = max(shares) < BLACK_SHARE, min(shares) > WHITE_SHARE
  if not all_black and not all_white:
    return ""
  limit = f"less than {100 * BLACK_SHARE:g} %" if all_black else f"more than {100 * WHITE_SHARE:g} %"
  text = (
    f"Every map is {'black' if all_black else 'white'}: {limit} of each image's pixels are mapped."
  )
  denied = sum(all(row[f"{name}_probability"] <= gate for name in names) for row in rows)
  if all_black and denied and method_of(config).gated:
    text += (
      f" In {denied} of {len(rows)} images no class's image score exceeds localize.gate={gate:g}, so "
      "their maps are empty."
    )
  if all_black and (flat := sum(row.get(f"{name}_flat") or 0 for row in rows for name in names)):
    text += f" --min_slope dropped {flat} regions."
  return (
    f"{text} If this is unexpected, compare these images with the training images: their size, their "
    "range of values, and their ground resolution (--training_gsd, --gsd). Then see the AUC and the "
    "findings in the workdir's report.html."
  )

"""Maps an area (--mode=map): finds images, plans blocks, maps those that are missing, joins them."""

import dataclasses
import functools
import hashlib
import logging
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence

import jax
from shapely.geometry.base import BaseGeometry

from lgag_jax.blocks import area_results, local_engine, map_block, network, part_lock, plan
from lgag_jax.blocks.area_results import AreaResult
from lgag_jax.blocks.inventory import Tracing
from lgag_jax.blocks.map_block import AreaJob
from lgag_jax.blocks.network_maker import NetworkMaker
from lgag_jax.blocks.plan import Block, BlockSize
from lgag_jax.catalogues import search, value_types
from lgag_jax.catalogues.images import Image
from lgag_jax.geo.scale import WindowPlan
from lgag_jax.imagery import scaling
from lgag_jax.mapping import output_folder, scene_plans, schemas
from lgag_jax.mapping.loaded_model import LoadedModel, load_model
from lgag_jax.options.area import Area, Engine, Imagery
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import printable
from lgag_jax.runtime.progress import Progress

_LOG = logging.getLogger(__name__)

_STALE_SECONDS = 3600.0  # Files of a killed process; those of a running job of an array are younger.

Run = Callable[[AreaJob, Sequence[Block], Callable[[Block, Exception | None], None]], None]


def run(
  workdir: pathlib.Path, source: str, output: pathlib.Path, imagery: Imagery, area: Area,
  engine: Engine, method_file: str = "",
) -> int:
  """Maps an area as `map_area` does, prints a summary, and returns the exit code."""
  result = map_area(workdir, source, output, imagery, area, engine, method_file)
  print(_summary(result, output))
  return 2 if result.failed else 0


def map_area(
  workdir: pathlib.Path, source: str, output: pathlib.Path, imagery: Imagery, area: Area,
  engine: Engine, method_file: str = "",
) -> AreaResult:
  """Maps the images of `source` on an area, block by block, into `output`.

  Blocks that are mapped are not mapped again. With a part of the blocks (`area.part`), only these are
  mapped, and the results are not joined. A block that fails is skipped; raises ValueError if all do.
  """
  if jax.process_count() > 1:
    raise ValueError(
      "--mode=map works in a single process: use --part=1/2 and --part=2/2 with --distributed=off, or "
      "--engine=ray."
    )
  output_folder.require_usable(output)
  outline = search.area_of(imagery.area)
  loaded = load_model(workdir)
  _require_dates(loaded, imagery)
  resolution, windows, size = network.plan_windows(loaded.training_scale, loaded.config, area)
  images = search.find_images(source, outline, loaded.config.data.channels, imagery)
  blocks = _plan(outline, resolution, size, images)
  if not blocks:
    raise ValueError(f"--input={source}: no image lies on --area={imagery.area}.")
  data = loaded.config.data
  job = AreaJob(
    output.absolute(), tuple(images), imagery, resolution, size, data.channels, data.classes,
    area.maps().dtype, _maker(loaded, imagery, area, resolution, windows),
    functools.partial(scaling.divisor, config=data),
  )
  refuse_mixed_types(job, blocks)
  _LOG.info(
    "%d images, %d blocks of %d x %d pixels at %g m.", len(images), len(blocks), size.core, size.core,
    resolution,
  )
  tracing = _tracing(loaded, area, windows, resolution, images, source)
  engine_run = _engine(loaded, windows, job, engine, method_file)
  number, count = area.part_of
  area_results.require_own(output)
  with part_lock.hold(job, blocks, area.part_of):
    area_results.begin(job, blocks, tracing)
    failed = map_missing(job, blocks[number::count], engine_run)
    if count > 1:
      return AreaResult(len(blocks[number::count]), failed, None)
    return area_results.join(job, blocks, tracing, outline, failed)


def _require_dates(loaded: LoadedModel, imagery: Imagery) -> None:
  """Raises ValueError if the days before the event are not known, or are of no use to the network."""
  if loaded.config.data.paired and not imagery.before_dates:
    raise ValueError(
      f"{loaded.workdir} compares images before and after an event: say which days of a STAC catalogue "
      "are which, such as --before_dates=2015-03-01/2015-04-20 --dates=2015-04-26/2015-05-31. For two "
      "files use --mode=predict with --before."
    )
  if imagery.before_dates and not loaded.config.data.paired:
    raise ValueError(
      f"--before_dates={imagery.before_dates}: this network maps images of one date. Omit it, or train "
      "a network for pairs with --config.data.before."
    )


def _plan(
  outline: BaseGeometry | None, resolution: float, size: BlockSize, images: Sequence[Image]
) -> list[Block]:
  """Returns the blocks with images after the event; warns of those without one before it."""
  found = plan.plan_blocks(outline, resolution, size, [image.footprint for image in images])
  if not any(image.before for image in images):
    return found
  blocks = [block for block in found if not all(images[i].before for i in block.images)]
  if alone := sum(not any(images[i].before for i in block.images) for block in blocks):
    _LOG.warning(
      "%d of %d blocks have no image before the event, and so no data. Extend --before_dates.", alone,
      len(blocks),
    )
  return blocks


def refuse_mixed_types(job: AreaJob, blocks: Sequence[Block]) -> None:
  """Raises ImageError if images of one block have types that the network scales differently.

  Only of images whose types are known. A block's own reading checks the others.
  """
  if len({dtype for image in job.images for dtype in image.types}) < 2:
    return
  for block in blocks:
    images = [job.images[i] for i in block.images]
    types = [(image.label, dtype) for image in images for dtype in image.types]
    value_types.require_one(types, job.divisor)


def map_missing(job: AreaJob, blocks: Sequence[Block], run: Run) -> dict[str, str]:
  """Maps the blocks that are not mapped yet; returns why blocks failed, by name."""
  started = time.monotonic()
  whole, stale = map_block.whole_blocks(job, blocks)
  for name in stale:  # Of earlier images or another network.
    (job.output / name).unlink(missing_ok=True)
  _remove_unfinished(job.output)
  missing = [block for block in blocks if block.name not in whole]
  _LOG.info(
    "%d of %d blocks are mapped already (%.1f s).", len(whole), len(blocks), time.monotonic() - started
  )
  pixels = job.size.core**2 / 1e6
  failed: dict[str, str] = {}
  progress = Progress(
    "mapping", len(blocks) * pixels, done=len(whole) * pixels, unit="MP"
  )
  finished = [len(whole)]

  def done(block: Block, error: Exception | None) -> None:
    finished[0] += 1
    if error is not None:
      text = " ".join(printable.without_queries(str(error)).split())
      failed[block.name] = text or type(error).__name__
      _LOG.warning("Skipped block %s: %s", block.name, failed[block.name])
    progress.advance(pixels, f"{finished[0]}/{len(blocks)} blocks, {len(failed)} failed")

  if missing:
    run(job, missing, done)
    progress.close()
  if failed and len(failed) == len(blocks):
    raise ValueError(f"All {len(failed)} blocks failed; the first: {next(iter(failed.values()))}")
  return failed


def _engine(
  loaded: LoadedModel, windows: WindowPlan, job: AreaJob, engine: Engine, method_file: str
) -> Run:
  """Returns what maps blocks."""
  if engine.engine == "ray":
    ray_engine = _ray_engine()
    method_file = method_file and str(pathlib.Path(method_file).absolute())
    make = NetworkMaker(loaded.workdir.absolute(), windows, job.size, job.dtype, method_file)
    return lambda job, blocks, done: ray_engine.run(job, blocks, make, engine, done)
  maps = network.BlockNetwork(loaded, windows, job.size, job.dtype)
  return lambda job, blocks, done: local_engine.run(job, blocks, maps, engine.attempts, done)


def _ray_engine():
  """Imports what needs Ray; raises ValueError if it is not installed."""
  try:
    from lgag_jax.blocks import ray_engine
  except ModuleNotFoundError as error:
    raise ValueError(
      f"--engine=ray needs Ray ({error}): pip install 'lgag_jax[ray]', on all machines."
    ) from error
  return ray_engine


def _summary(result: AreaResult, output: pathlib.Path) -> str:
  """Returns what was mapped, and which blocks were not, in words."""
  mapped = result.blocks - len(result.failed)
  lines = [f"{mapped} of {result.blocks} blocks mapped."]
  if result.landslides is not None:
    lines[0] = (
      f"{mapped} of {result.blocks} blocks mapped, {result.landslides} landslides. Open "
      f"{output}/report.html; for a GIS see polygons/landslides.parquet and mask/."
    )
  return "\n".join([*lines, *(f"Skipped block {name}: {why}" for name, why in result.failed.items())])


def _maker(
  loaded: LoadedModel, imagery: Imagery, area: Area, resolution: float, windows: WindowPlan
) -> str:
  """Identifies all that a block depends on, except its images."""
  options = Options(probability=area.probability, training_gsd=area.training_gsd, overlap=area.overlap)
  parts = [
    *scene_plans.map_maker(loaded, options), resolution, windows, area.block_size, imagery.composite,
    imagery.cloud_mask, imagery.cloud_classes, imagery.values,
  ]
  return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def _tracing(
  loaded: LoadedModel, area: Area, windows: WindowPlan, resolution: float, images: Sequence[Image],
  source: str,
) -> Tracing:
  options = area.maps()
  days = {
    image.time.date().isoformat() if image.time else "" for image in images if not image.before
  }
  name = pathlib.PurePath(printable.without_queries(source)).name
  provenance = scene_plans.provenance(loaded, options, resolution, name)
  if len(days) == 1:
    provenance = dataclasses.replace(provenance, image_date=next(iter(days)))
  return Tracing(
    loaded.config.data.classes, scene_plans.min_area(options, windows, resolution), options.simplify,
    provenance, schemas.PROFILES[options.schema],
  )


def _remove_unfinished(output: pathlib.Path) -> None:
  folder = output / map_block.UNFINISHED
  for path in folder.glob("*") if folder.is_dir() else ():
    try:
      if time.time() - path.stat().st_mtime > _STALE_SECONDS:
        shutil.rmtree(path, ignore_errors=True)
    except FileNotFoundError:
      continue



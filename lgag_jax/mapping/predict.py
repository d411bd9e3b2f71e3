"""Prediction: images and scenes to rasters, polygons and numbers, by windows, never whole in memory."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator

import jax
from jax.sharding import Mesh

from lgag_jax.config import Config
from lgag_jax.evaluation import threshold_rules
from lgag_jax.evaluation.metrics import BLACK_SHARE, WHITE_SHARE
from lgag_jax.geo import scale
from lgag_jax.geo.formats import scene_files
from lgag_jax.geo.scene import open_scene
from lgag_jax.imagery import listing, reading
from lgag_jax.inference.localize import map_of
from lgag_jax.mapping import products, scene_page
from lgag_jax.mapping.distribution import Share
from lgag_jax.mapping.products import Plan
from lgag_jax.method.network import Network
from lgag_jax.method.registry import method_of
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import lock, processes, sharding
from lgag_jax.state import TrainState
from lgag_jax.training import restore

_LOG = logging.getLogger(__name__)

_LONGEST_STEM = 200  # Bytes; file systems take names of 255.


@dataclasses.dataclass(frozen=True)
class Ready:
  """A trained network and what else mapping needs, read from a workdir."""

  workdir: pathlib.Path
  config: Config
  network: Network
  state: TrainState
  mesh: Mesh
  thresholds: list[float]  # A class.
  seen: scale.Scale


@dataclasses.dataclass(frozen=True)
class Mapped:
  """What a prediction has left in its output, and what made it."""

  rows: list[dict]  # Of predictions.csv.
  plans: list[Plan]  # Those of scenes that could not be mapped, too.
  config: Config
  step: int
  thresholds: list[float]  # A class.
  left_out: dict[str, str]  # Images that could not be mapped, by path, and why.


def predict(
  workdir: pathlib.Path, source: str | pathlib.Path, output: pathlib.Path, options: Options = Options()
) -> list[dict]:
  """Does what `map_scenes` says; returns the rows of predictions.csv."""
  return map_scenes(workdir, source, output, options).rows


def make_ready(workdir: pathlib.Path) -> Ready:
  """Reads a workdir, or a model directory; raises OSError or ValueError naming what is wrong."""
  mesh = sharding.make_mesh()
  config, network, state = restore.restore(workdir, mesh)
  thresholds = threshold_rules.load_thresholds(workdir, config, step=int(state.step))[map_of(config)]
  return Ready(workdir, config, network, state, mesh, thresholds, scale.load(workdir, config))


def map_scenes(
  workdir: pathlib.Path | Ready, source: str | pathlib.Path, output: pathlib.Path, options: Options
) -> Mapped:
  """Maps a file, the images of a folder, or what a glob finds, with a workdir's newest checkpoint.

  Writes what `products.write` says to `output`, predictions.csv and the page. What a
  killed run has left there is gone on with, and what is done is not done again. Several processes
  share the scenes, or the rows of each where scenes are fewer, on a disk that all of them see. An image
  that cannot be read is named, and left out; raises ImageError when none can.
  """
  paths = scene_files(source)
  try:
    output.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise OSError(f"--output={output} is no folder that can be written: {error.strerror}.") from error
  ready = workdir if isinstance(workdir, Ready) else make_ready(workdir)
  config, state, mesh, thresholds = ready.config, ready.state, ready.mesh, ready.thresholds
  if jax.process_count() > 1:  # Each maps windows of its own, on its own devices.
    mesh = sharding.make_mesh(jax.local_devices())
    state = jax.tree.map(sharding.gather_to_host, state)
  with lock.hold(output):
    bad: dict[str, str] = {}
    seen = dataclasses.replace(ready.seen, gsd=options.training_gsd or ready.seen.gsd)
    told = (ready.workdir / "config.json").read_text()
    # Of the numbers that the config does not hold, with data.normalise="train".
    given = (config.data.mean, config.data.std)
    maker = (int(state.step), thresholds, told, seen, options, given)
    plans = list(_plans(paths, config, seen, options, maker, bad))
    todo = [plan for plan in plans if not products.is_done(plan, output)]
    shared = 0 < len(todo) < jax.process_count()
    leave_out = functools.partial(_leave_out, bad)
    share = Share(output, config, options, thresholds, shared, leave_out)
    share.map(todo, ready.network, state, mesh)
    done = {plan.path for plan in plans if products.is_done(plan, output)}
    left_out = {
      str(path): bad.get(str(path), "another process could not read it; its log says why")
      for path in paths if path not in done
    }
    mapped = Mapped([], plans, config, int(state.step), thresholds, left_out)
    rows = processes.from_first(lambda: _tell(mapped, output, anew=bool(todo or left_out)))
  if not rows:
    first = next(iter(bad.values()), "on another process")
    raise reading.ImageError(f"No image of {source} could be read; the first: {first}")
  if len(rows) < len(paths):
    _LOG.warning("%d of %d images were left out.", len(paths) - len(rows), len(paths))
  if doubt := doubt_of(rows, config):
    _LOG.warning("%s", doubt)
  return dataclasses.replace(mapped, rows=rows)


def _tell(mapped: Mapped, output: pathlib.Path, *, anew: bool) -> list[dict]:
  """Writes the table and the page of all maps there; returns the table's rows of what is asked for.

  A page that needs nothing new stays: it may hold an evaluation.
  """
  for plan in mapped.plans:
    if str(plan.path) not in mapped.left_out:  # What a kill at the very end has left.
      shutil.rmtree(plan.working(output), ignore_errors=True)
  with contextlib.suppress(OSError):  # Where something is still unfinished.
    (output / ".unfinished").rmdir()
  rows = products.collect(mapped.plans, output, mapped.config)
  if rows and (anew or not (output / "report.html").exists()):
    write_page(mapped, output)
  return rows


def write_page(mapped: Mapped, output: pathlib.Path, evaluation: dict | None = None) -> None:
  """Writes the page of all maps in an output; `evaluation` is what `judge.evaluate` returns."""
  config = mapped.config
  thresholds = ", ".join(f"{value:.3f}" for value in mapped.thresholds)
  description = (
    f"Method {config.model.method} on {config.model.trunk}. Threshold {thresholds}, by the rule "
    f'"{method_of(config).rule(config)}", which uses no masks.'
  )
  scene_page.write(
    products.results(output, config), output, description=description, skipped=mapped.left_out,
    evaluation=evaluation,
  )


def doubt_of(rows: list[dict], config: Config) -> str:
  """Returns what to think and try when all maps of a prediction's rows are black, or white; else ""."""
  names, gate = config.data.classes, config.localize.gate
  shares = [sum(row[f"{name}_share"] for name in names) for row in rows]
  black, white = max(shares) < BLACK_SHARE, min(shares) > WHITE_SHARE
  if not black and not white:
    return ""
  share = f"under {100 * BLACK_SHARE:g} %" if black else f"over {100 * WHITE_SHARE:g} %"
  text = f"Every map is {'black' if black else 'white'}: {share} of each image's pixels are mapped."
  denied = sum(all(row[f"{name}_probability"] <= gate for name in names) for row in rows)
  if black and denied and method_of(config).gated:
    text += f" In {denied} of {len(rows)} images no class is found at all (localize.gate={gate:g})."
  return (
    f"{text} If that cannot be: are these images as large, as far from the ground and in the same "
    "range of values as those of training (--training_gsd, --gsd)? "
    "Then see the AUC and what is found in the workdir's report.html."
  )


def _plans(
  paths: list[pathlib.Path], config: Config, seen: scale.Scale, options: Options, maker: tuple,
  bad: dict[str, str],
) -> Iterator[Plan]:
  """Yields a plan for each scene whose header can be read; the others are named in `bad`."""
  taken = set()
  if seen.gsd is None:
    _LOG.info("Scenes are taken to have training's ground resolution, unknown here (--training_gsd).")
  for path in paths:
    try:
      with open_scene(path, config.data.channels, bands=options.bands) as scene:
        grid = scene.grid
      gsd = grid.gsd() or options.gsd or None
      view = scale.view(seen, config, gsd, options.tile_size, (grid.height, grid.width))
    except ValueError as error:
      _leave_out(bad, path, error)
      continue
    if grid.georeferenced and grid.crs is None:
      _LOG.warning("%s has no CRS: its map has none, and polygons have areas in pixels alone.", path)
    if gsd is None and seen.gsd:
      _LOG.info("%s: taken to have training's ground resolution; --gsd tells another.", path.name)
    key = json.dumps([*map(str, maker), listing.file_key(path)])
    stem = _stem(path, taken)
    taken.add(stem)
    yield Plan(path, stem, grid, view, hashlib.sha256(key.encode()).hexdigest())


def _leave_out(bad: dict[str, str], path: pathlib.Path, error: Exception) -> None:
  text = str(error) if str(path) in str(error) else f"{path}: {error}"
  bad[str(path)] = text
  _LOG.warning("Left out: %s", text)


def _stem(path: pathlib.Path, taken: set[str]) -> str:
  """Returns the name of a scene's files; two inputs may differ in suffix, or in folder, alone."""
  stem = f"{path.stem}_{path.suffix[1:]}"
  if len(os.fsencode(stem)) <= _LONGEST_STEM and stem not in taken:
    return stem
  digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
  return f"{os.fsdecode(os.fsencode(stem)[: _LONGEST_STEM - 17])}_{digest}"

"""The Python interface: `lgag_jax.load` and what it returns. See docs/api.md."""

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any, overload

import jax
import numpy as np
from affine import Affine

from lgag_jax.config import Config
from lgag_jax.geo import companions, scale
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.windows import cover_scene
from lgag_jax.imagery import arrays, listing
from lgag_jax.mapping import array_scenes, predict, scene_plans, window_pipeline
from lgag_jax.mapping.row_store import SavedState
from lgag_jax.mapping.scene_job import SceneJob, value_warnings
from lgag_jax.method import registry
from lgag_jax.options.mapping import Options
from lgag_jax.runtime import devices, user_paths

_LOG = logging.getLogger(__name__)

_FOR_OUTPUT = {  # Options that need `output`, and why.
  "dem": "slopes belong to polygons, which are files",
  "review": "decisions belong to the files of a map",
}
_FOR_FILES = {  # Options that arrays do not take, and what to do instead.
  "bands": "index the array", "before": "give the array before the event as `before`",
  "clouds": "mask the pixels under clouds, as with numpy.ma",
}


@dataclasses.dataclass(frozen=True)
class Result:
  """The map of an image; of a batch, with an axis in front of all arrays."""

  probability: np.ndarray  # f32[H, W, C], blended scores; NaN where the image has no data.
  mask: np.ndarray  # u8[H, W]: 0 background, k class k, 255 no data.
  scores: dict[str, float] | dict[str, np.ndarray]  # Per class: the image's highest score.


@dataclasses.dataclass(frozen=True)
class Model:
  """A trained network that can map images. Made by `load`."""

  loaded: predict.LoadedModel

  @property
  def config(self) -> Config:
    return self.loaded.config

  @property
  def classes(self) -> tuple[str, ...]:
    return self.config.data.classes

  @property
  def thresholds(self) -> dict[str, float]:
    """The score that a pixel of a class must reach, chosen without masks."""
    return dict(zip(self.classes, self.loaded.thresholds, strict=True))

  @property
  def gsd(self) -> float | None:
    """Metres per pixel of the training images; None if unknown."""
    return self.loaded.training_scale.gsd

  @overload
  def predict(
    self, image: np.ndarray | str | os.PathLike, *,
    before: np.ndarray | str | os.PathLike | None = None, gsd: float = 0.0,
    options: Options = Options(),
  ) -> Result: ...

  @overload
  def predict(
    self, image: str | os.PathLike, output: str | os.PathLike, *,
    before: str | os.PathLike | None = None, gsd: float = 0.0, options: Options = Options(),
  ) -> list[dict]: ...

  def predict(self, image, output=None, *, before=None, gsd=0.0, options=Options()):
    """Maps an array or files as --mode=predict does.

    An array is [H, W, channels] or [B, H, W, channels], of any size, with values as in files: integers,
    or floats in which NaN is no data. A pixel is also no data where a masked array masks it in any
    band, or where it equals the nodata value in an xarray.DataArray's attributes. An array, or one file
    without `output`, returns a Result. It takes 4 C + 1 bytes of memory per pixel, and a copy of the
    array. With `output`, the files of `image` (a file, a folder or a glob) are mapped into that folder;
    returns the rows of predictions.csv. A network that compares two dates also takes `before`, the
    image before the event: an array of the same size, or what --before takes. `gsd` is metres per
    pixel, for images that do not give theirs. Raises ValueError naming the argument.
    """
    options = _completed(options, before, gsd)
    if output is None:
      _refuse(options, _FOR_OUTPUT, "needs `output`")
    if isinstance(image, str | os.PathLike):
      image = user_paths.expanded(image, "image")
      if output is not None:
        folder = pathlib.Path(user_paths.expanded(output, "output"))
        return predict.map_scenes(self.loaded, image, folder, options).rows
      paths = listing.scene_files(image)
      if len(paths) > 1:
        raise ValueError(f"{image} is {len(paths)} images: name a folder for their maps as `output`.")
      scene_plans.check_dates(self.config, options)
      (found,) = companions.find(paths, options)
      open_file = functools.partial(
        found.open, self.config.data.channels, bands=options.bands, max_shift=options.max_shift
      )
      with open_file() as scene:
        source = str(found.path), scene.dtype, scene.grid, open_file
      return self._map([source], options)[0]
    if output is not None:
      raise ValueError("`output` needs files, which give their maps a name: omit it for an array.")
    _refuse(options, _FOR_FILES, "is for files")
    array = arrays.masked(image)
    batch = array_scenes.as_batch(array, self.config.data, "The array")
    if before is not None or self.config.data.paired:
      batch = array_scenes.with_before(batch, before, self.config.data, options.max_shift)
    grid = Grid(batch.shape[1], batch.shape[2], None, Affine.identity())
    sources = [
      ("The array", batch.dtype, grid, functools.partial(array_scenes.open_array, pixels, grid))
      for pixels in batch
    ]
    results = self._map(sources, options)
    if np.ndim(array) == 3:
      return results[0]
    return Result(
      np.stack([result.probability for result in results]),
      np.stack([result.mask for result in results]),
      {name: np.array([result.scores[name] for result in results], np.float32)
       for name in self.classes},
    )

  def _map(self, sources: list[tuple], options: Options) -> list[Result]:
    """Maps scenes as --mode=predict does; a source is (name, type, Grid, function to open it)."""
    loaded, results = self.loaded.at(options), {}
    training_scale = loaded.scale_for(options)

    def finish(number: int, rows: _MemoryRows, name: str, dtype: np.dtype, job: SceneJob) -> None:
      if job.failure:
        raise job.failure
      for text in value_warnings(job.brightest, dtype, self.config.data):
        _LOG.warning("%s: %s", name, text)
      scores = dict(zip(self.classes, map(float, job.image_scores), strict=True))
      results[number] = Result(rows.probability, rows.mask, scores)

    def jobs() -> Iterator[SceneJob]:
      for number, (name, dtype, grid, open_source) in enumerate(sources):
        classes = len(self.classes)
        gsd = scene_plans.ground_resolution(grid, options, name)
        shape = grid.height, grid.width
        windows = scale.plan_windows(training_scale, loaded.config, gsd, options.tile_size, shape)
        rows, cols = cover_scene(grid, windows, options.overlap)
        store = _MemoryRows(np.empty((*shape, classes), np.float32), np.empty(shape, np.uint8))
        yield SceneJob(
          open_source, windows, rows, cols, (0, rows.length), store,
          np.array(loaded.thresholds, np.float32), loaded.gate,
          functools.partial(finish, number, store, name, dtype),
        )

    window_pipeline.run(jobs(), loaded.network, loaded.state, loaded.config, loaded.mesh)
    return [results[number] for number in range(len(sources))]  # Scenes end in any order.


def _completed(options: Options, before: Any, gsd: Any) -> Options:
  """Returns options with the arguments `before`, if it is a path, and `gsd`, and with full paths."""
  if not isinstance(options, Options):
    raise ValueError(f"`options` is a {type(options).__name__}: give lgag_jax.Options(...).")
  if isinstance(before, str | os.PathLike):
    options = dataclasses.replace(options, before=user_paths.expanded(before, "before"))
  named = {
    name: user_paths.expanded(path, f"options.{name}")
    for name in ("dem", "clouds", "review") if (path := getattr(options, name))
  }
  return dataclasses.replace(options, gsd=Options(gsd=gsd).gsd or options.gsd, **named)


def _refuse(options: Options, reasons: dict[str, str], words: str) -> None:
  """Raises ValueError naming the first of some options that is set."""
  for name, reason in reasons.items():
    if getattr(options, name):
      raise ValueError(f"`options.{name}` {words}: {reason}.")


def load(workdir: str | os.PathLike, *, method_file: str | os.PathLike = "") -> Model:
  """Reads the workdir of a finished training, or a model directory that --mode=export wrote.

  `method_file` is your Python file that defines the method, if one does; it is executed. Raises OSError
  or ValueError naming what is missing or wrong, with the remedy.
  """
  devices.require()
  if method_file:
    registry.load_file(user_paths.expanded(method_file, "method_file"))
  if jax.process_count() > 1:
    raise ValueError("Only works in a single process: with several, use --mode=predict.")
  folder = pathlib.Path(user_paths.expanded(workdir, "workdir"))
  return Model(predict.load_model(folder.absolute()))


@dataclasses.dataclass(frozen=True)
class _MemoryRows:
  """Keeps a map's rows in memory, where `RowStore` writes them to disk."""

  probability: np.ndarray
  mask: np.ndarray
  dtype: np.dtype = np.dtype(np.float32)

  def write(self, first: int, scores: np.ndarray, mask: np.ndarray) -> None:
    self.probability[first : first + len(scores)] = scores
    self.mask[first : first + len(mask)] = mask

  def save(self, state: SavedState) -> None:
    """Does nothing: maps in memory are not resumed."""

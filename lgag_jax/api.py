"""Python's way in: `lgag_jax.load`, and what it returns. See docs/api.md."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import overload

import jax
import numpy as np
from affine import Affine
from rasterio.io import MemoryFile

from lgag_jax.config import Config, DataConfig
from lgag_jax.geo import scale
from lgag_jax.geo.formats import scene_files
from lgag_jax.geo.grid import Grid
from lgag_jax.geo.scene import Scene, open_scene
from lgag_jax.geo.windows import cover_scene
from lgag_jax.mapping import predict, window_pipeline
from lgag_jax.mapping.canvas import Canvas
from lgag_jax.method import registry
from lgag_jax.options.mapping import Options


@dataclasses.dataclass(frozen=True)
class Result:
  """A map of an image, or of a batch, which adds an axis in front."""

  probability: np.ndarray  # f32[H, W, C], the blended scores; NaN where the image has no data.
  mask: np.ndarray  # u8[H, W]: 0 background, k class k, 255 no data.
  scores: dict[str, float] | dict[str, np.ndarray]  # A class: the image's highest score of holding it.


@dataclasses.dataclass(frozen=True)
class Model:
  """A trained network, ready to map. Made by `load`."""

  ready: predict.Ready

  @property
  def config(self) -> Config:
    return self.ready.config

  @property
  def classes(self) -> tuple[str, ...]:
    return self.config.data.classes

  @property
  def thresholds(self) -> dict[str, float]:
    """The score that a pixel of a class must reach, chosen without masks."""
    return dict(zip(self.classes, self.ready.thresholds, strict=True))

  @property
  def gsd(self) -> float | None:
    """Metres a pixel of the training images; None where nothing told."""
    return self.ready.seen.gsd

  @overload
  def predict(
    self, image: np.ndarray | str | os.PathLike, *, gsd: float = 0.0, options: Options = Options()
  ) -> Result: ...

  @overload
  def predict(
    self, image: str | os.PathLike, output: str | os.PathLike, *, gsd: float = 0.0,
    options: Options = Options(),
  ) -> list[dict]: ...

  def predict(self, image, output=None, *, gsd=0.0, options=Options()):
    """Maps an array or a file as --mode=predict does; `gsd` is metres a pixel, where it does not tell.

    An array is [H, W, channels] or [B, H, W, channels], of any size, with values as they are in files:
    integers, or floats in which NaN is no data. It, or one file without `output`, gives a Result, held
    in memory: 4 C + 1 bytes a pixel, and a copy of the array. With `output`, a file, a folder or a glob
    is mapped into that folder; returned are the rows of its predictions.csv. Raises ValueError.
    """
    options = dataclasses.replace(options, gsd=gsd or options.gsd)
    if isinstance(image, str | os.PathLike):
      if output is not None:
        return predict.map_scenes(self.ready, str(image), pathlib.Path(output), options).rows
      found = scene_files(str(image))
      if len(found) > 1:
        raise ValueError(f"{image} is {len(found)} images: name a folder for their maps as `output`.")
      return self._map([_File(pathlib.Path(found[0]), self.config, options)], options)[0]
    if output is not None:
      raise ValueError("An array has no name to write its map under: leave `output` out.")
    batch = _checked(np.asarray(image), self.config.data)
    results = self._map([_Array(pixels) for pixels in batch], options)
    if np.ndim(image) == 3:
      return results[0]
    return Result(
      np.stack([result.probability for result in results]), np.stack([r.mask for r in results]),
      {name: np.array([r.scores[name] for r in results], np.float32) for name in self.classes},
    )

  def _map(self, sources: list, options: Options) -> list[Result]:
    """Maps sources, each with a grid and `open`, by the windows that a scene on disk has."""
    ready, found = self.ready, []
    seen = dataclasses.replace(ready.seen, gsd=options.training_gsd or ready.seen.gsd)

    def jobs() -> Iterator[window_pipeline.Job]:
      for source in sources:
        gsd = source.grid.gsd() or options.gsd or None
        view = scale.view(
          seen, ready.config, gsd, options.tile_size, (source.grid.height, source.grid.width)
        )
        yield _job(source, view, ready.thresholds, options)

    def finished(job: window_pipeline.Job) -> None:
      if job.failure:
        raise job.failure
      scores = dict(zip(self.classes, map(float, job.probability), strict=True))
      found.append(Result(job.store.probability, job.store.mask, scores))

    window_pipeline.run(
      jobs(), ready.network, ready.state, ready.config, ready.mesh, finished, lambda pixels: None
    )
    return found


def load(workdir: str | os.PathLike, *, method_file: str | os.PathLike = "") -> Model:
  """Reads a finished training's workdir, or a model directory that --mode=export wrote.

  `method_file` is the file of yours that defines the method, if one does: it is run. Raises OSError or
  ValueError naming what is missing or wrong, with the remedy.
  """
  if method_file:
    registry.load_file(method_file)
  if jax.process_count() > 1:
    raise ValueError("Several processes map by --mode=predict, which shares out their work.")
  return Model(predict.make_ready(pathlib.Path(workdir).absolute()))


@dataclasses.dataclass(frozen=True)
class _Kept:
  """Takes a map's rows in the place of geo.store.Store."""

  probability: np.ndarray
  mask: np.ndarray
  dtype: np.dtype = np.dtype(np.float32)

  def write(self, first: int, scores: np.ndarray, mask: np.ndarray) -> None:
    self.probability[first : first + len(scores)] = scores
    self.mask[first : first + len(mask)] = mask

  def save(self, *_) -> None:
    """There is nothing to go on from."""


class _File:
  """A scene on disk."""

  def __init__(self, path: pathlib.Path, config: Config, options: Options):
    self._arguments = path, config.data.channels, options.bands
    with self.open() as scene:
      self.grid = scene.grid

  def open(self) -> Scene:
    path, channels, bands = self._arguments
    return open_scene(path, channels, bands=bands)


class _Array:
  """An array as a scene without a georeference: as a file in memory it is read just as one on disk."""

  def __init__(self, pixels: np.ndarray):
    self._pixels = pixels
    self.grid = Grid(*pixels.shape[:2], None, Affine.identity())

  @contextlib.contextmanager
  def open(self) -> Iterator[Scene]:
    height, width, channels = self._pixels.shape
    profile = {"height": height, "width": width, "count": channels, "dtype": self._pixels.dtype}
    with MemoryFile() as file:
      with file.open(driver="GTiff", photometric="MINISBLACK", BIGTIFF="IF_SAFER", **profile) as raster:
        raster.write(np.moveaxis(self._pixels, -1, 0))
      with file.open() as raster:
        yield Scene(pathlib.Path("array"), raster, self.grid, list(range(1, channels + 1)), None)


def _checked(array: np.ndarray, data: DataConfig) -> np.ndarray:
  """Returns an array as [B, H, W, channels]; raises ValueError naming its shape or type."""
  channels = data.channels
  if array.ndim not in (3, 4) or array.shape[-1] != channels or 0 in array.shape:
    raise ValueError(
      f"The array is {list(array.shape)}: give [H, W, {channels}] or [B, H, W, {channels}]."
    )
  if array.dtype == np.float16:
    array = array.astype(np.float32)
  if array.dtype.kind not in "uif":
    raise ValueError(f"The array holds {array.dtype}: give integers as read, or floats.")
  scaled_by_type = data.normalise == "trunk" and not data.max_value
  if scaled_by_type and array.dtype.kind in "ui" and array.dtype not in (np.uint8, np.uint16):
    raise ValueError(
      f"The array holds {array.dtype}, whose range no image fills: give the type that images' files "
      "have, such as array.astype(np.uint8)."
    )
  return array if array.ndim == 4 else array[None]


def _job(source, view: scale.View, thresholds: list[float], options: Options) -> window_pipeline.Job:
  height, width = source.grid.height, source.grid.width
  rows, cols = cover_scene(source.grid, view, options.overlap)
  classes, span = len(thresholds), (0, rows.length)
  kept = _Kept(
    np.empty((height, width, classes), np.float32), np.empty((height, width), np.uint8)
  )
  return window_pipeline.Job(
    source.open, view, rows, cols, span, Canvas(rows, cols, classes, *span), kept,
    np.array(thresholds, np.float32), 0, np.zeros(classes, np.float32),
  )

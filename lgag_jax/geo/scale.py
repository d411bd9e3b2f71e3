"""The ground area that a training image shows, and the windows of a scene that show as much."""

import contextlib
import dataclasses
import math
import pathlib
import statistics
from typing import Protocol

import numpy as np

from lgag_jax.config import Config
from lgag_jax.geo.placement import grid_of
from lgag_jax.imagery import band_notes, opening, reading
from lgag_jax.runtime import sealed_json

_SAMPLES = 16  # Training images that are measured.
STRIDE = 32  # Of the trunks, which halve the size five times. A model's side is a multiple of it.
# Wider windows show more of a large landslide, and their maps agree better. A pixel of the scene costs
# as much time as with windows of the training size.
_WINDOW_FACTOR = 1.5
_MAX_SIDE = 1 << 20  # Of a training image, in pixels.
_GSD_RANGE = (1e-6, 1e7)  # Metres.
_MIN_SIDE = 8  # Pixels of a scene in a window; fewer show nothing.


@dataclasses.dataclass(frozen=True)
class Scale:
  """The scale of training images: `side` source pixels of `gsd` metres, or None if that is unknown."""

  side: int
  gsd: float | None
  bands: tuple[str, ...] = ()  # `band_notes.texts` of them; () if lgag has added no band.


@dataclasses.dataclass(frozen=True)
class WindowPlan:
  """How windows of a scene become model inputs.

  Averages blocks of `reduction` by `reduction` pixels, cuts windows of `side` by `side` averages, and
  resizes them to `model_side`.
  """

  reduction: int
  side: int
  model_side: int

  @property
  def stride(self) -> float:
    """Returns the side of a cell of the trunk's coarsest grid, in pixels after the reduction."""
    return STRIDE * self.side / self.model_side


class Examples(Protocol):
  """Training images; see `inputs.sources.Source`."""

  ids: list[str]

  def read_valid_pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels [H, W, channels] of an example, and where they are valid."""
    ...

  def files(self, index: int) -> tuple[pathlib.Path | None, pathlib.Path | None]:
    """Returns the files of an example's image and mask."""
    ...


def training_scale(examples: Examples, config: Config) -> Scale:
  """Returns the scale of training images, from a sample of them, as they are read.

  An example may be a part of its file, or have no file: only the pixels that are read tell its size.
  Raises ImageError if lgag has added different bands to images of the sample, or for another scale.
  """
  sides, gsds, notes, dtypes = [], [], {}, {}
  for index in range(0, len(examples.ids), max(1, len(examples.ids) // _SAMPLES)):
    with contextlib.suppress(reading.ImageError):
      height, width = examples.read_valid_pixels(index)[0].shape[:2]
      sides.append(math.sqrt(height * width))
      if path := examples.files(index)[0]:
        with reading.open_raster(path) as raster, opening.error_context(path):
          gsds.append(grid_of(raster, path).gsd())
          notes[path] = band_notes.read(raster, range(1, raster.count + 1))
          dtypes[path] = raster.dtypes
  side = round(statistics.median(sides)) if sides else config.data.tile_size or config.data.image_size
  known = [gsd for gsd in gsds if gsd]
  gsd = config.data.gsd or (statistics.median(known) if known else None)
  first = next(iter(notes), None)
  bands = band_notes.texts(notes[first]) if first else ()
  for path, own in notes.items():
    band_notes.check(path, own, bands, f"{first} has")
    band_notes.check_full_scale(path, own, dtypes[path], config.data)
  return Scale(side, gsd, bands if any(bands) else ())


def save(scale: Scale, workdir: pathlib.Path) -> None:
  """Writes <workdir>/scale.json."""
  sealed_json.write(workdir / "scale.json", dataclasses.asdict(scale))


def load(workdir: pathlib.Path, config: Config) -> Scale:
  """Reads <workdir>/scale.json; without it, returns the scale that the config implies."""
  path = workdir / "scale.json"
  if not path.exists():
    return Scale(config.data.tile_size or config.data.image_size, config.data.gsd or None)
  remedy = "Restore it from a copy, or remove it and give --training_gsd."
  content = sealed_json.read(path, remedy)
  if not isinstance(content, dict) or not {"side", "gsd"} <= content.keys():
    raise ValueError(f"{path} does not contain side and gsd. {remedy}")
  side, gsd = content["side"], content["gsd"]
  if not isinstance(side, int) or not sealed_json.is_number(side, 1, _MAX_SIDE):
    raise ValueError(f"{path}: side is {side!r}; it must be an integer from 1 to {_MAX_SIDE}. {remedy}")
  if gsd is not None and not sealed_json.is_number(gsd, *_GSD_RANGE):
    low, high = _GSD_RANGE
    raise ValueError(f"{path}: gsd is {gsd!r}; it must be null or {low:g} to {high:g} metres. {remedy}")
  bands = content.get("bands", ())  # Not in files of release 0.1.0.
  if not isinstance(bands, list | tuple) or not all(isinstance(text, str) for text in bands):
    raise ValueError(f"{path}: bands is {bands!r}; it must be a list of texts. {remedy}")
  return Scale(side, gsd, tuple(bands))


def plan_windows(
  scale: Scale, config: Config, gsd: float | None, tile_size: int = 0,
  shape: tuple[int, int] | None = None,
) -> WindowPlan:
  """Plans windows of a scene of `gsd` metres per pixel that show the ground as in training.

  If either ground resolution is unknown, assumes that they are equal. `tile_size` sets the side of the
  windows in pixels of the scene; it changes how much the model sees, but not the resolution. By default
  windows are 1.5 times as wide as training images if `shape`, the scene's (height, width), allows.
  Raises ValueError if the scene is too coarse, or smaller than one pixel of the network.
  """
  ratio = scale.gsd / gsd if scale.gsd and gsd else 1.0
  training_side = scale.side * ratio  # Pixels of the scene that cover as much as a training image.
  if training_side < _MIN_SIDE:
    raise ValueError(
      f"its {gsd:g} m per pixel are {1 / ratio:.0f} times as coarse as the training images' "
      f"{scale.gsd:g}: use finer imagery, or set the true resolutions with --gsd and --training_gsd"
    )
  wide_side = _WINDOW_FACTOR * training_side
  side = tile_size or (wide_side if shape and min(shape) >= wide_side else training_side)
  model_side = config.data.image_size
  if side != training_side:
    model_side = max(STRIDE, round(model_side * side / training_side / STRIDE) * STRIDE)
  reduction = max(1, int(1.01 * side / model_side))  # Map projections distort lengths a little.
  if shape and reduction > min(shape):
    raise ValueError(
      f"it has {shape[0]} x {shape[1]} pixels{f' of {gsd:g} m' if gsd else ''}, and the network sees "
      f"{reduction} x {reduction} of them as one, as in training: use a larger scene, or set the true "
      "resolutions with --gsd and --training_gsd"
    )
  return WindowPlan(reduction, max(1, round(side / reduction)), model_side)

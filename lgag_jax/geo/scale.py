"""How large a part of the ground the model saw at once in training, and what that is in a scene."""

import contextlib
import dataclasses
import math
import pathlib
import statistics

from lgag_jax.config import Config
from lgag_jax.geo.grid import Grid
from lgag_jax.imagery import reading
from lgag_jax.runtime import files

_SAMPLES = 16
STRIDE = 32  # Of the trunks, which halve the size five times: a model's side is a multiple.
# A window sees little of what is large; seeing more costs nothing, and maps of windows agree better.
_WIDER = 1.5
_LEAST = 8  # Pixels of a scene under one window: with fewer there is nothing to see.


@dataclasses.dataclass(frozen=True)
class Scale:
  """What an image of training was: `side` source pixels of `gsd` metres; None where nothing tells."""

  side: int
  gsd: float | None


@dataclasses.dataclass(frozen=True)
class View:
  """How a scene is looked at.

  `reduction` by `reduction` of its pixels are averaged; windows have `side` of what that leaves, and
  the model sees them at `model_side`.
  """

  reduction: int
  side: int
  model_side: int

  @property
  def stride(self) -> float:
    """What is left of a scene's pixels under a cell of the trunk's coarsest grid."""
    return STRIDE * self.side / self.model_side


def of_training(paths: list[pathlib.Path], config: Config) -> Scale:
  """Returns the scale of a training, read from a sample of its image files' headers."""
  grids = []
  for path in paths[:: max(1, len(paths) // _SAMPLES)]:
    with contextlib.suppress(reading.ImageError), reading.open_raster(path) as raster:
      grids.append(Grid.of(raster))
  sides = [math.sqrt(grid.height * grid.width) for grid in grids]
  side = config.data.tile_size or round(statistics.median(sides or [config.data.image_size]))
  found = [gsd for gsd in (grid.gsd() for grid in grids) if gsd]
  return Scale(side, config.data.gsd or (statistics.median(found) if found else None))


def save(scale: Scale, workdir: pathlib.Path) -> None:
  """Writes <workdir>/scale.json."""
  files.write_json(workdir / "scale.json", dataclasses.asdict(scale))


def load(workdir: pathlib.Path, config: Config) -> Scale:
  """Reads what `save` wrote; without it, what the config alone tells."""
  path = workdir / "scale.json"
  if not path.exists():
    return Scale(config.data.tile_size or config.data.image_size, config.data.gsd or None)
  try:
    content = files.read_json(path)
    side, gsd = content["side"], content["gsd"]
    if side > 0 and (gsd is None or 0 < gsd < math.inf):
      return Scale(int(side), gsd)
  except (LookupError, TypeError):
    pass
  raise ValueError(f"{path} is not what a training writes: remove it, or train again.")


def view(
  scale: Scale, config: Config, gsd: float | None, tile_size: int = 0,
  shape: tuple[int, int] | None = None,
) -> View:
  """Returns how a scene of `gsd` metres a pixel is seen as in training; equal where one is unknown.

  `tile_size` asks for windows of as many of the scene's pixels, which the model sees larger or
  smaller, not coarser or finer; without, a scene of a `shape` with room for it is seen through windows
  half as wide again as training's images. Raises ValueError for a scene too coarse to show anything.
  """
  ratio = scale.gsd / gsd if scale.gsd and gsd else 1.0
  seen = scale.side * ratio  # Pixels of the scene that cover what an image of training did.
  if seen < _LEAST:
    raise ValueError(
      f"its {gsd:g} m a pixel are {1 / ratio:.0f} times as coarse as training's {scale.gsd:g}: take "
      "finer imagery, or tell the true resolutions by --gsd and --training_gsd"
    )
  wanted = tile_size or (_WIDER * seen if shape and min(shape) >= _WIDER * seen else seen)
  model_side = config.data.image_size
  if wanted != seen:
    model_side = max(STRIDE, round(model_side * wanted / seen / STRIDE) * STRIDE)
  reduction = max(1, int(1.01 * wanted / model_side))  # Map projections are off by a little.
  return View(reduction, max(1, round(wanted / reduction)), model_side)

"""Draws a place before and after an event, and its DEM: only new landslides are in the mask.

Much changes between the dates that is no landslide: season, light and haze, ploughed and regrown
fields, new roads, and the place of the image by a few pixels. Old landslides look like new ones and
are there on both dates, so the image after the event does not tell them apart.
"""

import dataclasses
import itertools
import math

import numpy as np

from . import drawing, paint, palette, shapes, terrain

_MIN_PIXELS = 200  # New landslide pixels of a positive patch.
_MAX_SHIFT = 1  # Pixels between the dates by default, along each axis.
_MOST_SHIFT = 4  # Pixels that a scene's margin leaves.
_OLD, _NEW_ROADS = 0.7, 0.35  # Probability that a place has old landslides, and new roads.
_BOTH_DATES, _ONLY_AFTER = 0.55, 0.8  # Cumulative probability that a bare patch is there.


@dataclasses.dataclass(frozen=True)
class PairPlan:
  """Everything that determines the pixels of both dates."""

  before: drawing.Plan
  after: drawing.Plan
  shift: tuple[int, int]  # The image before shows the place (row + shift, column + shift).


@dataclasses.dataclass(frozen=True)
class Pair:
  """A window of both dates."""

  after: np.ndarray  # u8[h, w, 3]
  before: np.ndarray  # u8[h, w, 3]
  mask: np.ndarray  # u8[h, w], 1 = new landslide.
  old: np.ndarray  # u8[h, w], 1 = old landslide that no new one covers.


def make_plan(
  seed: int, height: int, width: int, *, landslide: bool, max_shift: int = _MAX_SHIFT, attempt: int = 0,
) -> PairPlan:
  """Plans both dates. Both values of `landslide` give the same pair but for the new landslides.

  Raises ValueError for a `max_shift` above 4 pixels.
  """
  if not 0 <= max_shift <= _MOST_SHIFT:
    raise ValueError(f"max_shift={max_shift}: must be from 0 to {_MOST_SHIFT} pixels")
  after = drawing.make_plan(seed, height, width, landslide=True, attempt=attempt)
  style_rng, old_rng, bare_rng, road_rng, shift_rng = (
    np.random.default_rng([seed, attempt, k]) for k in range(4, 9)
  )
  ground, old = after.ground, ()
  if old_rng.random() < _OLD:
    old = tuple(
      slide for slide in shapes.draw_slides(old_rng, ground, shapes.draw_sizes(old_rng, ground))
      if not any(_touch(slide, new) for new in after.slides)
    )
  built = ground
  if road_rng.random() < _NEW_ROADS or max(ground.shape) > 512:
    built = terrain.with_more_roads(road_rng, ground)
  when = bare_rng.random(len(after.bares))
  dates = list(zip(after.bares, when, strict=True))
  before = dataclasses.replace(
    after, style=_other_date(style_rng, after.style), slides=(), old=old,
    bares=tuple(bare for bare, x in dates if x < _BOTH_DATES or x >= _ONLY_AFTER),
  )
  after = dataclasses.replace(
    after, ground=built, old=old, bares=tuple(bare for bare, x in dates if x < _ONLY_AFTER),
    slides=after.slides if landslide else (),
  )
  row, col = shift_rng.integers(-max_shift, max_shift + 1, 2)
  return PairPlan(before, after, (int(row), int(col)))


def _touch(slide: shapes.Slide, other: shapes.Slide) -> bool:
  away = np.hypot(*np.moveaxis(slide.path[:, None] - other.path, -1, 0)).min()
  return bool(away < slide.width.max() + other.width.max())


def _other_date(rng: np.random.Generator, style: palette.Style) -> palette.Style:
  """Returns another season, light and haze of the same country: trees, soil and tarmac stay."""
  other = palette.draw_style(rng)
  moist = np.float32(1 + rng.normal(0, 0.05))
  return dataclasses.replace(
    other, soil=style.soil * moist, fresh=style.fresh * moist, wet=style.wet * moist,
    tarmac=style.tarmac, forest=style.forest, large_trees=style.large_trees,
  )


def render(plan: PairPlan, top: int, left: int, height: int, width: int) -> Pair:
  """Returns a window of both dates."""
  after, kinds = drawing.render(plan.after, top, left, height, width, classes=True)
  row, col = plan.shift
  pad = drawing.PAD - max(abs(row), abs(col))  # The ground ends there in small scenes.
  before, _ = drawing.render(plan.before, top + row, left + col, height, width, pad=pad)
  return Pair(after, before, np.uint8(kinds == 1), np.uint8(kinds == paint.OLD))


def draw_patch(
  seed: int, *, size: int = 256, landslide: bool, max_shift: int = _MAX_SHIFT
) -> Pair:
  """Returns both dates of a square patch; a positive has at least 200 pixels of new landslides.

  Raises ValueError below 48 pixels.
  """
  return plan_patch(seed, size=size, landslide=landslide, max_shift=max_shift)[1]


def plan_patch(
  seed: int, *, size: int = 256, landslide: bool, max_shift: int = _MAX_SHIFT
) -> tuple[PairPlan, Pair]:
  """Returns the plan of the patch that `draw_patch` draws, and the patch."""
  if size < 48:
    raise ValueError(f"size={size}: a landslide needs a patch of at least 48 pixels")
  for attempt in itertools.count():
    plan = make_plan(seed, size, size, landslide=landslide, max_shift=max_shift, attempt=attempt)
    pair = render(plan, 0, 0, size, size)
    if not landslide or pair.mask.sum() >= _MIN_PIXELS:
      return plan, pair


def heights(plan: drawing.Plan, step: float, gsd: float) -> np.ndarray:
  """Returns a DEM of the ground, f32[h, w] in metres, at the centres of pixels of `step` pixels.

  `gsd` is metres per pixel of the scene.
  """
  height, width = plan.ground.shape
  rows, cols = ((np.arange(math.ceil(n / step)) + 0.5) * step - 0.5 for n in (height, width))
  parts = [  # In strips, since the weights of all rows would take much memory.
    terrain.heights_at(plan.ground, rows[i : i + 256], cols) for i in range(0, len(rows), 256)
  ]
  return np.concatenate(parts) * np.float32(gsd)

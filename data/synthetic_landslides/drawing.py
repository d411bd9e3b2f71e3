"""Draws synthetic overhead images of mountain country, with and without landslides.

Landslides and bare fields have the same soil. They differ in form and place: a landslide has a sharp
crown on a steep slope, runs down the fall line, and has streaks along the flow and a lobe at the toe.
"""

import dataclasses
import itertools
import math
from collections.abc import Collection

import numpy as np
import scipy.ndimage

from . import noise, paint, palette, shapes, terrain
from .terrain import Terrain

PAD = 20  # Pixels drawn around a window, so that shadows and blur cross its edges.
_MIN_PIXELS = 200  # Landslide pixels of a positive patch.
_WINDOW = 512


@dataclasses.dataclass(frozen=True)
class Plan:
  """Everything that determines a scene's pixels; any window of it can be drawn alone."""

  style: palette.Style
  ground: Terrain
  slides: tuple[shapes.Slide, ...]
  bares: tuple[shapes.Bare, ...]
  shift: tuple[int, int]  # Offset into the textures.
  old: tuple[shapes.Slide, ...] = ()  # Landslides of an earlier event; see pairs.py.


def make_plan(
  seed: int, height: int, width: int, *, landslide: bool, bare: bool | None = None,
  river: bool | None = None, attempt: int = 0,
) -> Plan:
  """Plans a scene. Both values of `landslide` give the same scene but for the landslides.

  So a classifier cannot learn from the rest of an image. `river` says whether there are rivers, None
  leaves it to chance. `bare=False` draws no bare patches; otherwise their number is random, perhaps 0.
  """
  style_rng, ground_rng, bare_rng, slide_rng = (
    np.random.default_rng([seed, attempt, k]) for k in range(4)
  )
  ground = terrain.draw_terrain(ground_rng, (height, width), river)
  slides = ()
  if landslide:
    slides = shapes.draw_slides(slide_rng, ground, shapes.draw_sizes(slide_rng, ground))
  return Plan(
    style=palette.draw_style(style_rng),
    ground=ground,
    slides=tuple(slides),
    bares=() if bare is False else tuple(shapes.draw_bares(bare_rng, ground)),
    shift=tuple(int(v) for v in style_rng.integers(noise.PERIOD, size=2)),
  )


def render(
  plan: Plan, top: int, left: int, height: int, width: int, *, classes: bool = False, pad: int = PAD
):
  """Returns a window of a scene: the image u8[height, width, 3] and its mask u8[height, width].

  The mask is 1 for landslides; with `classes` it holds the numbers of paint.CLASSES,
  and paint.OLD for old landslides.
  """
  rows = np.arange(top - pad, top + height + pad)
  cols = np.arange(left - pad, left + width + pad)
  canvas = paint.start(plan.ground, plan.style, plan.shift, rows, cols)
  for bare in plan.bares:
    paint.paint_bare(canvas, bare)
  paint.paint_road(canvas)
  paint.paint_river(canvas)
  for slide in plan.old:
    paint.paint_slide(canvas, slide, paint.OLD)
  for slide in plan.slides:
    paint.paint_slide(canvas, slide)
  image = _photograph(canvas, _sunlight(canvas))
  inner = (slice(pad, -pad), slice(pad, -pad))
  mask = canvas.mask[inner]
  return image[inner], mask.copy() if classes else np.uint8(mask == 1)


def _sunlight(canvas: paint.Canvas) -> np.ndarray:
  """Returns the direct light on the surface f32[h, w]: 1 on level ground, 0 in cast shadow."""
  style, surface = canvas.style, canvas.height + canvas.canopy
  y, x = -math.cos(style.azimuth), math.sin(style.azimuth)  # Towards the sun.
  sine, cosine = math.sin(style.elevation), math.cos(style.elevation)
  gy, gx = (np.gradient(surface, axis=axis) for axis in (0, 1))
  facing = (sine - cosine * (gy * y + gx * x)) / np.sqrt(1 + (gy * gy + gx * gx))
  light = np.clip(facing / sine, 0, 1.7)
  shade = np.zeros_like(light)
  for run in (2.5, 5.0, 9.0, 15.0):
    dy, dx = round(run * y), round(run * x)
    # The surface towards the sun, lowered by the descent of the ray on its way here.
    blocker = np.roll(surface, (-dy, -dx), (0, 1)) - math.hypot(dy, dx) * sine / cosine
    np.maximum(shade, blocker - surface, out=shade)
  light *= 1 - 0.8 * np.clip(shade / 1.6, 0, 1)
  if style.cloud:
    light *= 1 - 0.6 * np.clip(canvas.field(canvas.ground.cloud) * 1.6, 0, 1)
  return light.astype(np.float32)


def _photograph(canvas: paint.Canvas, light: np.ndarray) -> np.ndarray:
  """Returns the pixels u8[h, w, 3] from colour and light, with haze, blur and sensor noise."""
  style = canvas.style
  sky = np.float32([0.30, 0.32, 0.37])
  sun = np.float32([0.80, 0.78, 0.71]) * style.tint
  image = canvas.colour * (light[..., None] * sun + sky) * np.float32(style.exposure)
  # A soft limit, like film: bright soil turns pale instead of clipping.
  image = 1.22 * (1 - np.exp(-1.15 * image))
  image += style.haze * (np.float32([0.70, 0.74, 0.80]) - image)
  for band in range(3):
    image[..., band] = scipy.ndimage.gaussian_filter(image[..., band], style.blur, truncate=3)
    shift = (17 + 101 * band, 43 + 57 * band)
    image[..., band] += style.noise * canvas.texture("white", shift)
  return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def draw_patch(seed: int, *, size: int = 256, landslide: bool) -> tuple[np.ndarray, np.ndarray]:
  """Returns a square patch: the image u8[size, size, 3] and its mask u8[size, size], 1 = landslide.

  With the same seed, the two values of `landslide` show the same hillside after and before. Only if it
  is too gentle for a landslide (one in ten at 64 pixels), the positive shows another one. A positive
  has at least 200 landslide pixels, a negative none. Raises ValueError below 48 pixels.
  """
  if size < 48:
    raise ValueError(f"size={size}: a landslide needs a patch of at least 48 pixels")
  for attempt in itertools.count():
    image, mask = render(
      make_plan(seed, size, size, landslide=landslide, attempt=attempt), 0, 0, size, size
    )
    if not landslide or mask.sum() >= _MIN_PIXELS:
      return image, mask


def draw_classes(
  seed: int, present: Collection[str], *, size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
  """Returns a square patch that shows only the classes in `present`, with at least 200 pixels each.

  Returns the image u8[size, size, 3] and its mask u8[size, size] with the numbers of paint.CLASSES.
  """
  landslide, bare, river = shown = [name in present for name in paint.CLASSES]
  for attempt in itertools.count():
    plan = make_plan(
      seed, size, size, landslide=landslide, bare=bare, river=river, attempt=attempt
    )
    image, mask = render(plan, 0, 0, size, size, classes=True)
    pixels = np.bincount(mask.ravel(), minlength=len(shown) + 1)[1:]
    if np.all(pixels >= np.where(shown, _MIN_PIXELS, 0)):
      return image, mask


def windows(height: int, width: int, side: int = _WINDOW):
  """Yields the windows that tile a scene: (top, left, height, width)."""
  for top in range(0, height, side):
    for left in range(0, width, side):
      yield top, left, min(side, height - top), min(side, width - left)


def draw_scene(
  seed: int, height: int, width: int, *, landslide: bool = True
) -> tuple[np.ndarray, np.ndarray]:
  """Returns a coherent scene: the image u8[height, width, 3] and its mask u8[height, width]."""
  plan = make_plan(seed, height, width, landslide=landslide)
  image = np.empty((height, width, 3), np.uint8)
  mask = np.empty((height, width), np.uint8)
  for top, left, h, w in windows(height, width):
    window = (slice(top, top + h), slice(left, left + w))
    image[window], mask[window] = render(plan, top, left, h, w)
  return image, mask

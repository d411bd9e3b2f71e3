"""Draws synthetic overhead images of mountain country, with and without landslides.

A landslide and a bare field wear the same soil. What tells them apart is form and place: a sharp
crown on a steep slope, a run down the fall line, streaks along the flow, a lobe at the toe.
"""

import dataclasses
import itertools
import math
from collections.abc import Collection

import numpy as np
import scipy.ndimage

from . import noise, paint, palette, shapes, terrain
from .terrain import Terrain

_PAD = 20  # Pixels drawn around a window, so that shadows and blur cross its edges.
_LEAST_PIXELS = 200  # A positive patch shows at least so much landslide.
_WINDOW = 512


@dataclasses.dataclass(frozen=True)
class Plan:
  """All that determines a scene's pixels; any window of it can be drawn alone."""

  style: palette.Style
  ground: Terrain
  slides: tuple[shapes.Slide, ...]
  bares: tuple[shapes.Bare, ...]
  shift: tuple[int, int]  # Into the textures.


def make_plan(
  seed: int, height: int, width: int, *, landslide: bool, bare: bool | None = None,
  river: bool | None = None, attempt: int = 0,
) -> Plan:
  """Plans a scene; with the same seed all but the landslides is the same, with and without.

  A classifier can thus learn nothing from what else an image shows, nor from what it lacks. Whether
  there are rivers is left to chance, or told; so are bare patches, but that chance may deny them.
  """
  look, earth, things, slid = (np.random.default_rng([seed, attempt, k]) for k in range(4))
  ground = terrain.draw_terrain(earth, (height, width), river)
  slides = shapes.draw_slides(slid, ground, shapes.draw_sizes(slid, ground)) if landslide else ()
  return Plan(
    style=palette.draw_style(look),
    ground=ground,
    slides=tuple(slides),
    bares=() if bare is False else tuple(shapes.draw_bares(things, ground)),
    shift=tuple(int(v) for v in look.integers(noise.PERIOD, size=2)),
  )


def render(plan: Plan, top: int, left: int, height: int, width: int, *, classes: bool = False):
  """Draws a window of a scene: the image u8[height, width, 3] and its mask u8[height, width].

  The mask is 1 for landslides; with `classes` it numbers all of paint.CLASSES.
  """
  rows = np.arange(top - _PAD, top + height + _PAD)
  cols = np.arange(left - _PAD, left + width + _PAD)
  canvas = paint.start(plan.ground, plan.style, plan.shift, rows, cols)
  for bare in plan.bares:
    paint.paint_bare(canvas, bare)
  paint.paint_road(canvas)
  paint.paint_river(canvas)
  for slide in plan.slides:
    paint.paint_slide(canvas, slide)
  image = _photograph(canvas, _sunlight(canvas))
  inner = (slice(_PAD, -_PAD), slice(_PAD, -_PAD))
  mask = canvas.mask[inner]
  return image[inner], mask.copy() if classes else np.uint8(mask == 1)


def _sunlight(canvas: paint.Canvas) -> np.ndarray:
  """Shades the surface: direct light f32[h, w], 1 on level ground, 0 in cast shadow."""
  style, surface = canvas.style, canvas.height + canvas.canopy
  y, x = -math.cos(style.azimuth), math.sin(style.azimuth)  # Towards the sun.
  sine, cosine = math.sin(style.elevation), math.cos(style.elevation)
  gy, gx = (np.gradient(surface, axis=axis) for axis in (0, 1))
  facing = (sine - cosine * (gy * y + gx * x)) / np.sqrt(1 + (gy * gy + gx * gx))
  light = np.clip(facing / sine, 0, 1.7)
  shade = np.zeros_like(light)
  for run in (2.5, 5.0, 9.0, 15.0):
    dy, dx = round(run * y), round(run * x)
    # What stands towards the sun, lowered by the ray's descent on its way here.
    blocker = np.roll(surface, (-dy, -dx), (0, 1)) - math.hypot(dy, dx) * sine / cosine
    np.maximum(shade, blocker - surface, out=shade)
  light *= 1 - 0.8 * np.clip(shade / 1.6, 0, 1)
  if style.cloud:
    light *= 1 - 0.6 * np.clip(canvas.field(canvas.ground.cloud) * 1.6, 0, 1)
  return light.astype(np.float32)


def _photograph(canvas: paint.Canvas, light: np.ndarray) -> np.ndarray:
  """Turns colour and light into pixels, through haze, optics and sensor: u8[h, w, 3]."""
  style = canvas.style
  sky = np.float32([0.30, 0.32, 0.37])
  sun = np.float32([0.80, 0.78, 0.71]) * style.tint
  image = canvas.colour * (light[..., None] * sun + sky) * np.float32(style.exposure)
  # The film's shoulder: bright soil pales instead of clipping.
  image = 1.22 * (1 - np.exp(-1.15 * image))
  image += style.haze * (np.float32([0.70, 0.74, 0.80]) - image)
  for band in range(3):
    image[..., band] = scipy.ndimage.gaussian_filter(image[..., band], style.blur, truncate=3)
    shift = (17 + 101 * band, 43 + 57 * band)
    image[..., band] += style.noise * canvas.texture("white", shift)
  return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def draw_patch(seed: int, *, size: int = 256, landslide: bool) -> tuple[np.ndarray, np.ndarray]:
  """Draws a square patch: the image u8[size, size, 3] and its mask u8[size, size], 1 = landslide.

  With the same seed the two values of `landslide` show the same hillside after and before (save
  for a few too gentle, one in ten at 64 pixels, where a positive moves to another). A positive
  shows at least 200 pixels of landslide, a negative none. Raises ValueError below 48 pixels.
  """
  if size < 48:
    raise ValueError(f"size={size}: a landslide needs a patch of at least 48 pixels")
  for attempt in itertools.count():
    image, mask = render(
      make_plan(seed, size, size, landslide=landslide, attempt=attempt), 0, 0, size, size
    )
    if not landslide or mask.sum() >= _LEAST_PIXELS:
      return image, mask


def draw_classes(
  seed: int, present: Collection[str], *, size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a square patch that shows the classes in `present`, at least 200 pixels each, and no other.

  Returns the image u8[size, size, 3] and its mask u8[size, size], which numbers paint.CLASSES.
  """
  there = [name in present for name in paint.CLASSES]
  for attempt in itertools.count():
    landslide, bare, river = there
    plan = make_plan(
      seed, size, size, landslide=landslide, bare=bare, river=river, attempt=attempt
    )
    image, mask = render(plan, 0, 0, size, size, classes=True)
    pixels = np.bincount(mask.ravel(), minlength=len(there) + 1)[1:]
    if np.all(pixels >= np.where(there, _LEAST_PIXELS, 0)):
      return image, mask


def windows(height: int, width: int, side: int = _WINDOW):
  """Yields the windows that tile a scene: (top, left, height, width)."""
  for top in range(0, height, side):
    for left in range(0, width, side):
      yield top, left, min(side, height - top), min(side, width - left)


def draw_scene(
  seed: int, height: int, width: int, *, landslide: bool = True
) -> tuple[np.ndarray, np.ndarray]:
  """Draws one coherent scene: the image u8[height, width, 3] and its mask u8[height, width]."""
  plan = make_plan(seed, height, width, landslide=landslide)
  image = np.empty((height, width, 3), np.uint8)
  mask = np.empty((height, width), np.uint8)
  for top, left, h, w in windows(height, width):
    here = (slice(top, top + h), slice(left, left + w))
    image[here], mask[here] = render(plan, top, left, h, w)
  return image, mask

"""Paints ground, trees, bare patches, roads, rivers and landslides onto a window of a scene."""

import dataclasses

import numpy as np

from . import noise, shapes
from .palette import Style
from .terrain import Terrain

# Numbered from 1 in a canvas's mask. The uppermost object counts; roads and everything else are 0.
CLASSES = ("landslide", "bare", "river")
_SLIDE, _BARE, _RIVER = range(1, len(CLASSES) + 1)
OLD = len(CLASSES) + 1  # A landslide of an earlier event.


@dataclasses.dataclass
class Canvas:
  """A window being painted; heights in pixels, colours in 0..1 without light."""

  ground: Terrain
  style: Style
  shift: tuple[int, int]
  rows: np.ndarray  # i64[h]
  cols: np.ndarray  # i64[w]
  height: np.ndarray  # f32[h, w], of the ground.
  canopy: np.ndarray  # f32[h, w], of the trees above the ground.
  colour: np.ndarray  # f32[h, w, 3]
  mask: np.ndarray  # u8[h, w]

  def texture(self, name: str, shift=(0, 0), part=(slice(None), slice(None))) -> np.ndarray:
    """Returns a texture at the window's pixels, or at a part of them."""
    shift = (self.shift[0] + shift[0], self.shift[1] + shift[1])
    return noise.take(name, self.rows[part[0]], self.cols[part[1]], shift)

  def field(self, field: np.ndarray) -> np.ndarray:
    """Returns one of the ground's fields, interpolated at the window's pixels."""
    return noise.upsample(field, self.rows, self.cols, self.ground.step)

  def part(self, low, high) -> tuple[slice, slice] | None:
    """Returns the part of a box (row, column) in the window, None if they do not overlap."""
    slices = []
    for axis, lowest, highest in zip((self.rows, self.cols), low, high, strict=True):
      first = max(int(np.floor(lowest)) - int(axis[0]), 0)
      last = min(int(np.ceil(highest)) + 1 - int(axis[0]), len(axis))
      if first >= last:
        return None
      slices.append(slice(first, last))
    return tuple(slices)

  def cover(self, part, alpha: np.ndarray, colour: np.ndarray) -> None:
    """Paints colour f32[h, w, 3] over a part with opacity `alpha` f32[h, w], and removes its trees."""
    self.colour[part] += alpha[..., None] * (colour - self.colour[part])
    self.canopy[part] *= 1 - alpha


def _mix(low: np.ndarray, high: np.ndarray, weight: np.ndarray) -> np.ndarray:
  return low + weight[..., None] * (high - low)


def _soften(inside: np.ndarray, edge: float) -> np.ndarray:
  """Returns the opacity in 0..1 for a distance to the outline (pixels, positive inside)."""
  return np.clip(inside / edge + 0.5, 0, 1).astype(np.float32)


def start(ground: Terrain, style: Style, shift, rows, cols) -> Canvas:
  """Returns a new window with meadow and forest on the ground."""
  shape = (len(rows), len(cols))
  canvas = Canvas(ground, style, shift, rows, cols, None, None, None, np.zeros(shape, np.uint8))
  size = "large" if style.large_trees else "small"
  crowns, tone = canvas.texture(f"{size}_crowns"), canvas.texture(f"{size}_tone")
  mottle, patch, grain = (canvas.texture(name) for name in ("mottle", "patch", "grain"))
  wooded = canvas.field(ground.cover) + style.forest + 0.3 * mottle + 1.7 * (tone - 0.5)
  trees = _soften(wooded, 0.05) * np.minimum(crowns * 4, 1)
  meadow = style.meadow * (1 + 0.07 * mottle + 0.06 * patch + 0.035 * grain)[..., None]
  dry = np.clip(0.25 * patch + 0.2 * mottle - 0.2, 0, 0.5)
  meadow = _mix(meadow, style.soil, dry)
  shade = (0.55 + 0.62 * crowns) * (1 + 0.04 * grain)
  kind = np.clip(1.3 * tone - 0.2 + 0.2 * patch, 0, 1)
  forest = _mix(*style.crowns, kind) * shade[..., None]
  canvas.colour = meadow + trees[..., None] * (forest - meadow)
  canvas.canopy = trees * crowns * (5.0 if style.large_trees else 3.6)
  canvas.height = canvas.field(ground.height) + 0.35 * mottle + 0.07 * grain
  return canvas


def _soil(canvas: Canvas, part, tone: float, shift) -> np.ndarray:
  """Returns the colour of bare soil f32[h, w, 3], the same for a landslide and a field."""
  style = canvas.style
  mottle = canvas.texture("mottle", shift, part)
  freshness = np.clip(tone + 0.3 * mottle, -1, 1)
  colour = _mix(style.soil, style.fresh, np.maximum(freshness, 0))
  colour = colour + np.maximum(-freshness, 0)[..., None] * 0.7 * (style.wet - colour)
  return colour * (1 + 0.05 * canvas.texture("grain", shift, part))[..., None]


def paint_bare(canvas: Canvas, bare: shapes.Bare) -> None:
  """Paints a field, clearing or quarry: soil without a landslide's form."""
  reach = 1.5 * max(bare.size)
  part = canvas.part(bare.centre - reach, bare.centre + reach)
  if part is None:
    return
  dy = (canvas.rows[part[0]] - bare.centre[0])[:, None].astype(np.float32)
  dx = (canvas.cols[part[1]] - bare.centre[1])[None].astype(np.float32)
  cosine, sine = np.float32(np.cos(bare.angle)), np.float32(np.sin(bare.angle))
  u, v = dx * cosine + dy * sine, dy * cosine - dx * sine
  colour = _soil(canvas, part, bare.tone, bare.shift)
  if bare.kind == "field":
    inside = np.minimum(bare.size[0] - np.abs(u), bare.size[1] - np.abs(v))
    inside = inside + 0.5 * canvas.texture("mottle", bare.shift, part)
    canvas.mask[part][inside > 0] = _BARE
    furrow = np.sin(v * np.float32(2 * np.pi / (4.5 + 3 * bare.tone)))
    colour = colour * (1 + 0.045 * furrow)[..., None]
    canvas.height[part] += _soften(inside, 3) * 0.2 * furrow
    canvas.cover(part, _soften(inside, 1.5), colour)
    return
  radius = np.sqrt((u / bare.size[0]) ** 2 + (v / bare.size[1]) ** 2)
  bump = 0.5 * canvas.texture("patch", bare.shift, part)
  bump = bump + 0.25 * canvas.texture("mottle", bare.shift, part)
  inside = (1 - radius - np.clip(0.35 * bump, -0.35, 0.35)) * min(bare.size)
  canvas.mask[part][inside > 0] = _BARE
  if bare.kind == "quarry":
    pit = np.clip(inside / 7, 0, 3.5)
    bench = np.floor(pit) + np.clip((pit % 1) * 4, 0, 1)
    canvas.height[part] -= 1.8 * bench
    canvas.cover(part, _soften(inside, 1.5), colour)
    return
  sprout = np.clip(canvas.texture("grain", bare.shift, part) - 0.9, 0, 1)[..., None]
  colour = colour + sprout * 0.7 * (canvas.style.meadow - colour)
  canvas.cover(part, _soften(inside, 7) ** 1.5, colour)


def paint_road(canvas: Canvas) -> None:
  """Paints roads of tarmac or of the scene's soil."""
  away = canvas.field(canvas.ground.road)
  inside = canvas.ground.road_width - away
  if inside.max() < -4:
    return
  grain = canvas.texture("grain", (91, 7))
  base = np.float32([0.47, 0.46, 0.44]) if canvas.style.tarmac else canvas.style.fresh
  colour = base * (1 + 0.03 * grain)[..., None]
  canvas.cover(..., _soften(inside + 3, 4) * 0.55, canvas.style.soil * np.ones_like(colour))
  canvas.cover(..., _soften(inside, 1.2), colour)
  canvas.mask[inside > 0] = 0


def paint_river(canvas: Canvas) -> None:
  """Paints rivers, and bars of gravel in the colour of the slopes; the bars count as river."""
  away = canvas.field(canvas.ground.river)
  width = canvas.ground.river_width
  if away.min() > 5 * width:
    return
  patch, mottle = canvas.texture("patch", (5, 211)), canvas.texture("mottle", (5, 211))
  grain = canvas.texture("grain", (5, 211))
  bar = width * (1.15 + 0.6 * np.clip(patch, -1, 1)) + 0.5 * mottle - away
  gravel = 0.6 * canvas.style.fresh + 0.4 * np.float32([0.66, 0.65, 0.62])
  colour = gravel * (1 + 0.09 * grain + 0.05 * mottle)[..., None]
  canvas.cover(..., _soften(bar, 2), colour)
  stream = width * (0.8 + 0.12 * patch) - away
  deep = np.clip(stream / width, 0, 1)
  water = canvas.style.water * (1 + 0.05 * mottle - 0.15 * deep)[..., None]
  canvas.mask[(bar > 0) | (stream > 0)] = _RIVER
  wet = _soften(stream, 2)
  canvas.cover(..., wet, water)
  # Water is flat, so the relief does not show through it.
  canvas.height -= wet * (0.35 * canvas.texture("mottle") + 0.07 * canvas.texture("grain") + 0.8)


def paint_slide(canvas: Canvas, slide: shapes.Slide, number: int = _SLIDE) -> None:
  """Paints a landslide, and marks its pixels in the mask by `number`."""
  reach = 1.4 * float(slide.width.max()) + 3
  part = canvas.part(slide.path.min(0) - reach, slide.path.max(0) + reach)
  if part is None:
    return
  y = canvas.rows[part[0]][:, None].astype(np.float32)
  x = canvas.cols[part[1]][None].astype(np.float32)
  s, t = shapes.flow_coordinates(slide, y, x)
  step = slide.length / (len(slide.width) - 1)
  width = np.interp(s, np.arange(len(slide.width)) * step, slide.width).astype(np.float32)
  ragged = canvas.texture("mottle", slide.shift, part)
  bank = noise.take_between("mottle", s / 3.5 + slide.shift[0], np.sign(t) * 60 + 0 * s)
  width = width * (1 + 0.05 * ragged + 0.13 * bank)
  inside = np.where((s >= 0) & (s <= slide.length), width - np.abs(t), -reach)
  canvas.mask[part][inside > 0] = number
  along, across = s / slide.length, t / np.maximum(width, 1)
  streak = noise.take_between("grain", t / 1.3 + slide.shift[0], s / 18 + slide.shift[1])
  streak = streak + 0.7 * noise.take_between("grain", t / 2.5 + slide.shift[1], s / 30)
  deposit = np.clip((along - 0.55) / 0.3, 0, 1)
  grain = canvas.texture("grain", slide.shift, part)
  colour = _soil(canvas, part, slide.tone, slide.shift)
  scarp = np.clip(1.4 - inside / 3, 0, 1) * np.clip(1 - along / 0.3, 0, 1)
  fade = np.clip(0.12 - 0.3 * along, -0.15, 0.12)  # Bright at the scar, darker below.
  colour = colour * (1 + fade - 0.4 * scarp + 0.22 * streak + 0.1 * deposit * grain)[..., None]
  canvas.cover(part, _soften(inside, 1.2), colour)
  # A hollow with a steep crown above, a raised lobe with a steep front below.
  bowl = np.clip(inside / 2.2, 0, 1) * np.clip((0.5 - along) / 0.4, 0, 1)
  lobe = np.sqrt(np.clip(inside / 9, 0, 1)) * np.clip((along - 0.45) / 0.3, 0, 1)
  levee = np.exp(-(((np.abs(across) - 0.85) / 0.14) ** 2)) * (inside > 0) * (along > 0.25)
  rough = _soften(inside, 2) * (0.5 * streak + 0.35 * deposit * grain + 0.5 * deposit * ragged)
  canvas.height[part] += 0.6 * slide.depth * (lobe - bowl * 1.5) + 0.9 * levee + rough

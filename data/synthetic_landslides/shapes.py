"""Shapes on the ground: landslides, and bare patches of the same soil that are not landslides."""

import dataclasses
import math

import numpy as np

from .terrain import Terrain

_STRIDE = 3.0  # Pixels between the points of a slide's path.
KINDS = ("field", "clearing", "quarry")


@dataclasses.dataclass(frozen=True)
class Slide:
  """A landslide: its path f32[n, 2] from crown to toe, and its half width f32[n], pixels."""

  path: np.ndarray
  width: np.ndarray
  depth: float  # Of the scar, pixels.
  tone: float  # 0: the scene's soil, 1: its fresh tone.
  shift: tuple[int, int]  # Offset into the texture of the streaks.

  @property
  def length(self) -> float:
    """Length of the path, pixels."""
    return _STRIDE * (len(self.path) - 1)


@dataclasses.dataclass(frozen=True)
class Bare:
  """A bare patch: an ellipse or rectangle with half axes `size`, rotated by `angle`."""

  kind: str
  centre: np.ndarray  # f32[2]
  size: tuple[float, float]  # Pixels.
  angle: float
  tone: float
  shift: tuple[int, int]


def flow_coordinates(slide: Slide, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns each pixel's distance along the path, and its signed distance from the path.

  `y` is f32[h, 1] and `x` is f32[1, w]; both results are f32[h, w], pixels.
  """
  path = slide.path
  tangent = np.gradient(path, axis=0)
  tangent /= np.hypot(tangent[:, 0], tangent[:, 1])[:, None]
  square = (y[..., None] - path[:, 0]) ** 2 + (x[..., None] - path[:, 1]) ** 2
  near = square.argmin(-1)
  dy, dx = y - path[near, 0], x - path[near, 1]
  ty, tx = tangent[near, 0], tangent[near, 1]
  return near * _STRIDE + dy * ty + dx * tx, dy * tx - dx * ty


def _profile(rng: np.random.Generator, length: float, flow: bool, girth: float) -> np.ndarray:
  """Returns the half width along a path: scar, run-out and deposit, with round ends."""
  s = np.arange(0, length + _STRIDE / 2, _STRIDE)
  u = s / s[-1]
  if flow:
    body = np.interp(u, (0, 0.18, 0.42, 0.65, 0.85, 1), (1, 1, 0.62, 0.68, 1.1, 1.05))
  else:
    body = np.interp(u, (0, 0.25, 0.55, 0.8, 1), (1, 1.05, 0.85, 1.05, 0.95))
  body = body * (1 + 0.1 * np.sin(u * rng.uniform(6, 12) + rng.uniform(0, 6)))
  ends = np.clip(s / (1.1 * girth), 0, 1) * np.clip((s[-1] - s) / (1.3 * girth), 0, 1)
  # An ellipse's arc at either end.
  return (girth * body * np.sqrt(1 - (1 - ends) ** 2)).astype(np.float32)


def _descend(rng, ground: Terrain, start: np.ndarray, length: float) -> np.ndarray:
  """Returns a path along the steepest descent, with some inertia; ends at level ground or `length`."""
  (y, x), (hy, hx) = start.tolist(), ground.at(ground.descent, start).tolist()
  points = [(y, x)]
  for wander_y, wander_x in rng.normal(0, 0.05, (int(length / _STRIDE), 2)).tolist():
    dy, dx = ground.at(ground.descent, (y, x)).tolist()
    hy, hx = 0.85 * hy + 0.25 * dy + wander_y, 0.85 * hx + 0.25 * dx + wander_x
    norm = math.hypot(hy, hx) + 1e-6
    hy, hx = hy / norm, hx / norm
    y, x = y + _STRIDE * hy, x + _STRIDE * hx
    outside = min(y, x, ground.shape[0] - y, ground.shape[1] - x) < -8
    level = len(points) > 12 and ground.at(ground.slope, (y, x)) < 0.13
    if outside or level or ground.at(ground.river, (y, x)) < 0.6 * ground.river_width:
      break
    points.append((y, x))
  return np.asarray(points, np.float32)


def draw_sizes(rng: np.random.Generator, ground: Terrain) -> list[tuple[float, float, bool]]:
  """Returns length, half width (pixels) and whether it is a flow, for a random number of slides."""
  area = ground.shape[0] * ground.shape[1]
  many = max(ground.shape) > 512
  count = 2 + rng.poisson(area / 300**2) if many else rng.choice(4, p=(0, 0.6, 0.28, 0.12))
  sizes = []
  for _ in range(count):
    flow = bool(rng.random() < 0.65)
    scale = ground.unit * np.exp(rng.uniform(np.log(0.75), np.log(1.7)))
    length = scale * (rng.uniform(95, 190) if flow else rng.uniform(60, 115))
    sizes.append((length, length / (rng.uniform(6, 10) if flow else rng.uniform(3.0, 4.5)), flow))
  return sizes


def _starts(rng: np.random.Generator, ground: Terrain, count: int) -> np.ndarray:
  """Returns random places inside the scene f32[count, 2], most of them steep."""
  rows, cols = (
    np.flatnonzero((axis > 0.06 * n) & (axis < 0.94 * n))
    for axis, n in zip((ground.rows, ground.cols), ground.shape, strict=True)
  )
  weight = ground.slope[np.ix_(rows, cols)].astype(np.float64).ravel() ** 4
  weight[(ground.river[np.ix_(rows, cols)] < 4 * ground.river_width).ravel()] *= 1e-4
  chosen = np.searchsorted(weight.cumsum(), rng.uniform(0, weight.sum(), count))
  i, j = np.divmod(chosen.clip(0, len(weight) - 1), len(cols))
  return np.stack([ground.rows[rows[i]], ground.cols[cols[j]]], -1)


def draw_slides(rng: np.random.Generator, ground: Terrain, sizes) -> list[Slide]:
  """Returns landslides of the given sizes on steep ground."""
  slides = []
  tries = 14
  starts = _starts(rng, ground, tries * len(sizes)).reshape(len(sizes), tries, 2)
  for (length, girth, flow), candidates in zip(sizes, starts, strict=True):
    best, best_score = None, -np.inf
    for start in candidates:
      if any(np.hypot(*(s.path - start).T).min() < 30 * ground.unit for s in slides):
        continue
      path = _descend(rng, ground, start, length)
      steep = np.mean([ground.at(ground.slope, p) for p in path[::4]])
      # The distance from start to end, not the path's length, since a slide does not turn back.
      score = min(steep, 0.6) + 2.0 * np.hypot(*(path[-1] - path[0])) / length
      if len(path) > 8 and score > best_score:
        best, best_score = path, score
      if score > 2.3:
        break
    if best is None:
      continue
    run = _STRIDE * (len(best) - 1)
    slides.append(
      Slide(
        path=best,
        width=_profile(rng, run, flow, min(girth, run / 3.2)),
        depth=rng.uniform(4, 8) * ground.unit**0.5,
        tone=rng.uniform(0.3, 1.0),
        shift=tuple(int(v) for v in rng.integers(512, size=2)),
      )
    )
  return slides


def draw_bares(rng: np.random.Generator, ground: Terrain) -> list[Bare]:
  """Returns a random number of bare patches, small and large.

  Most lie on the flattest of several random places. One in seven lies on any place, so that not every
  bare patch on a slope is a landslide.
  """
  many = max(1.0, ground.shape[0] * ground.shape[1] / 400**2)
  bares = []
  for _ in range(rng.poisson(1.7 * many)):
    extent = (ground.unit * math.exp(rng.uniform(math.log(24), math.log(100)))) ** 2
    places = rng.uniform(0.04, 0.96, (8, 2)) * ground.shape
    steep = [ground.at(ground.slope, place) for place in places]
    centre = places[0] if rng.random() < 0.15 else places[int(np.argmin(steep))]
    kind = KINDS[rng.choice(3, p=(0.42, 0.4, 0.18))]
    ratio = rng.uniform(1.0, 2.0 if kind == "field" else 1.5)
    side = math.sqrt(extent / (4 if kind == "field" else math.pi))
    bares.append(
      Bare(
        kind=kind,
        centre=centre.astype(np.float32),
        size=(side * math.sqrt(ratio), side / math.sqrt(ratio)),
        angle=rng.uniform(0, np.pi),
        tone=rng.uniform(0.0, 0.85),
        shift=tuple(int(v) for v in rng.integers(512, size=2)),
      )
    )
  return bares

"""The ground of a scene on a coarse grid: height, slope, rivers, roads and forest cover.

Coordinates are (row, column) in pixels; heights are in pixels too, so a slope of 1 is 45 degrees.
"""

import dataclasses

import numpy as np
import scipy.ndimage
import scipy.spatial

from . import noise

_FAR = 1e3  # Distance in pixels if there is no river or road nearby.


@dataclasses.dataclass(frozen=True)
class Terrain:
  """Coarse fields, each f32[n, m], over a scene and a margin around it."""

  shape: tuple[int, int]  # The scene's height and width in pixels.
  step: int  # Pixels between nodes.
  unit: float  # Scale of all objects: 1 for a scene of 256 pixels or more, less for smaller ones.
  rows: np.ndarray  # f32[n], of the nodes.
  cols: np.ndarray  # f32[m], of the nodes.
  height: np.ndarray
  slope: np.ndarray  # Length of the gradient.
  descent: np.ndarray  # f32[n, m, 2], the unit vector downhill.
  cover: np.ndarray  # Positive where forest grows.
  cloud: np.ndarray  # Positive under a cloud.
  river: np.ndarray  # Distance to the nearest river's middle, pixels.
  road: np.ndarray  # Distance to the nearest road's middle, pixels.
  river_width: float  # Half of it, pixels.
  road_width: float  # Half of it, pixels.

  def at(self, field: np.ndarray, place) -> np.ndarray:
    """Returns a field at the node nearest to a place (row, column)."""
    rows, cols = field.shape[:2]
    i = round(float(place[0]) / self.step) - noise.FIRST
    j = round(float(place[1]) / self.step) - noise.FIRST
    return field[min(max(i, 0), rows - 1), min(max(j, 0), cols - 1)]


def _smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
  x = np.clip((x - low) / (high - low), 0, 1)
  return x * x * (3 - 2 * x)


def _distance(lines: list[np.ndarray], rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
  if not lines:
    return np.full((len(rows), len(cols)), _FAR, np.float32)
  nodes = np.stack(np.meshgrid(rows, cols, indexing="ij"), -1).reshape(-1, 2)
  tree = scipy.spatial.cKDTree(np.concatenate(lines))
  distance = tree.query(nodes, distance_upper_bound=_FAR)[0]
  return np.minimum(distance, _FAR).reshape(len(rows), len(cols)).astype(np.float32)


def _rivers(
  rng: np.random.Generator, shape: tuple[int, int], unit: float, river: bool | None
) -> list[np.ndarray]:
  """Returns roughly parallel, meandering courses f32[n, 2] across the whole scene."""
  extent = float(np.hypot(*shape)) + 400
  count = int(rng.random() < 0.4) if max(shape) <= 512 else 1 + round(max(shape) / 1100)
  if river is not None:
    count = max(count, 1) if river else 0
  angle = rng.uniform(0, np.pi)
  along = np.arange(-extent / 2, extent / 2, 2.5, dtype=np.float32)
  lines = []
  for k in range(count):
    offset = rng.uniform(-0.3, 0.3) * min(shape) / count
    offset += (k - (count - 1) / 2) * min(extent, max(shape)) / count
    for wavelength, amplitude in ((520, 0.07), (230, 0.055), (110, 0.03)):
      wave = 2 * np.pi * along / (wavelength * unit * rng.uniform(0.8, 1.2))
      offset = offset + wavelength * unit * amplitude * np.sin(wave + rng.uniform(0, 2 * np.pi))
    y = shape[0] / 2 + along * np.sin(angle) + offset * np.cos(angle)
    x = shape[1] / 2 + along * np.cos(angle) - offset * np.sin(angle)
    lines.append(np.stack([y, x], -1))
  return lines


def _roads(rng: np.random.Generator, ground: Terrain) -> list[np.ndarray]:
  """Returns roads f32[n, 2] that roughly follow contour lines."""
  area = ground.shape[0] * ground.shape[1]
  lines = []
  count = int(rng.random() < 0.45) if max(ground.shape) <= 512 else rng.poisson(area / 1000**2)
  for _ in range(count):
    start = rng.uniform(0.1, 0.9, 2) * ground.shape
    side = rng.choice([-1.0, 1.0])
    for sense in (-1.0, 1.0):
      place, points, heading = start.copy(), [], None
      for _ in range(int(max(ground.shape) / 2.5)):
        down = ground.at(ground.descent, place)
        contour = sense * side * np.array([-down[1], down[0]])
        heading = contour if heading is None else 0.94 * heading + 0.08 * contour
        heading = heading / (np.hypot(*heading) + 1e-6)
        place = place + 3 * heading
        if np.any(place < -40) or np.any(place > np.add(ground.shape, 40)):
          break
        points.append(place)
      lines.extend([np.stack(points)] if points else [])
  return lines


def _relief(rng, rows, cols, step, unit, river, river_width) -> np.ndarray:
  """Returns the heights of hills with gullies, benches and river valleys."""
  grid = (len(rows), len(cols))
  hills = noise.fractal(rng, grid, longest=560 * unit / step, beta=2.6)
  gullies = -np.abs(noise.fractal(rng, grid, longest=150 * unit / step, beta=2.2))
  height = hills + rng.uniform(0.25, 0.5) * gullies
  tilt = rng.uniform(0, 2 * np.pi)
  across = rows[:, None] * np.sin(tilt) + cols[None] * np.cos(tilt)
  slope = np.hypot(*np.gradient(height, step)).mean()
  height *= rng.uniform(0.36, 0.6) / slope
  height += rng.uniform(0.1, 0.3) * 160 * unit * np.sin(across / (160 * unit))
  bench = rng.uniform(60, 110) * unit
  height += 0.75 * bench / (2 * np.pi) * np.sin(2 * np.pi * height / bench)
  away = np.maximum(river - river_width - 8 * unit, 0)
  height *= 0.12 + 0.88 * _smoothstep(away, 0, 70 * unit)
  return height + rng.uniform(50, 95) * unit * (1 - np.exp(-((away / (75 * unit)) ** 1.4)))


def draw_terrain(
  rng: np.random.Generator, shape: tuple[int, int], river: bool | None = None
) -> Terrain:
  """Returns the ground of a scene of the given height and width in pixels.

  `river` says whether there are rivers; None leaves it to chance.
  """
  unit = float(np.clip(min(shape) / 256, 0.4, 1))
  step = 4 if unit > 0.7 else 2
  rows, cols = noise.coarse_axes(*shape, step)
  grid = (len(rows), len(cols))
  river_width = rng.uniform(4, 9) * unit
  away = _distance(_rivers(rng, shape, unit, river), rows, cols)
  height = _relief(rng, rows, cols, step, unit, away, river_width).astype(np.float32)
  # The smoothed gradient, which a landslide follows, without small bumps.
  smooth = scipy.ndimage.gaussian_filter(height, 11 * unit / step)
  gradient = np.stack(np.gradient(smooth, step), -1)
  slope = np.hypot(gradient[..., 0], gradient[..., 1])
  clump = noise.fractal(rng, grid, longest=130 * unit / step, beta=1.9)
  ground = Terrain(
    shape=shape,
    step=step,
    unit=unit,
    rows=rows,
    cols=cols,
    height=height,
    slope=slope,
    descent=-gradient / (slope[..., None] + 1e-6),
    cover=clump + 1.2 * (slope - 0.45),
    cloud=noise.fractal(rng, grid, longest=300 * unit / step, beta=3.0) - rng.uniform(0.2, 1.0),
    river=away,
    road=away,
    river_width=river_width,
    road_width=rng.uniform(2.4, 4.2) * unit**0.5,
  )
  return dataclasses.replace(ground, road=_distance(_roads(rng, ground), rows, cols))


def with_more_roads(rng: np.random.Generator, ground: Terrain) -> Terrain:
  """Returns the ground with at least one road more."""
  lines: list[np.ndarray] = []
  for _ in range(20):  # A patch has a road less than half of the time.
    if lines := _roads(rng, ground):
      break
  away = _distance(lines, ground.rows, ground.cols)
  return dataclasses.replace(ground, road=np.minimum(ground.road, away))


def heights_at(ground: Terrain, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
  """Returns the heights f32[len(rows), len(cols)] at places that may lie between pixels."""
  return noise.upsample(ground.height, rows, cols, ground.step)

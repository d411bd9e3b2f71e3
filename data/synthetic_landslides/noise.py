"""Position-based noise: textures and smooth fields that are equal wherever two windows overlap.

Noise depends on a pixel's position in its scene, not on the window. So a scene drawn in strips equals
the same scene drawn at once.
"""

import functools

import numpy as np
import scipy.fft
import scipy.spatial

PERIOD = 512  # Pixels after which a texture repeats.
_MAX_WINDOW = 640  # Rows or columns.
FIRST = -12  # Index of the first coarse node: 12 nodes lie beyond each edge of a scene.


def fractal(rng: np.random.Generator, shape: tuple[int, int], *, longest: float, beta: float):
  """Returns spectral noise f32[*shape], whose amplitude falls as frequency to the power `beta`.

  Waves longer than `longest` nodes are damped. The result has mean 0 and standard deviation 1.
  """
  size = [scipy.fft.next_fast_len(int(1.25 * n) + 8, real=True) for n in shape]
  spectrum = scipy.fft.rfft2(rng.standard_normal(size, dtype=np.float32))
  fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
  spectrum *= (fy**2 + fx**2 + longest**-2.0).astype(np.float32) ** (-beta / 2)
  spectrum[0, 0] = 0
  field = scipy.fft.irfft2(spectrum, s=size)[: shape[0], : shape[1]]
  return ((field - field.mean()) / field.std()).astype(np.float32)


def _band(seed: int, shortest: float, longest: float) -> np.ndarray:
  white = np.random.default_rng(seed).standard_normal((PERIOD, PERIOD), dtype=np.float32)
  fy, fx = np.fft.fftfreq(PERIOD)[:, None], np.fft.rfftfreq(PERIOD)[None]
  square = fy**2 + fx**2
  band_pass = np.exp(-square * shortest**2) * (1 - np.exp(-square * longest**2))
  field = scipy.fft.irfft2(scipy.fft.rfft2(white) * band_pass.astype(np.float32), s=white.shape)
  return (field / field.std()).astype(np.float32)


def _crowns(seed: int, spacing: float) -> tuple[np.ndarray, np.ndarray]:
  """Returns tree crowns: their heights, and one random tone per tree, both in 0..1."""
  rng = np.random.default_rng(seed)
  count = round(PERIOD / spacing)
  grid = np.stack(np.meshgrid(np.arange(count), np.arange(count), indexing="ij"), -1)
  trees = (grid + rng.uniform(0.1, 0.9, grid.shape)).reshape(-1, 2) * (PERIOD / count)
  radius = spacing * rng.uniform(0.55, 1.0, len(trees))
  pixels = np.stack(np.meshgrid(np.arange(PERIOD), np.arange(PERIOD), indexing="ij"), -1)
  tree = scipy.spatial.cKDTree(trees, boxsize=PERIOD)
  distance, index = tree.query(pixels.reshape(-1, 2), k=2)
  height = radius[index] / spacing * np.sqrt(np.clip(1 - (distance / radius[index]) ** 2, 0, 1))
  best = height.argmax(1)[:, None]
  tone = rng.uniform(size=len(trees))[np.take_along_axis(index, best, 1)]
  shape = (PERIOD, PERIOD)
  return (
    height.max(1).reshape(shape).astype(np.float32),
    tone.reshape(shape).astype(np.float32),
  )


@functools.cache
def textures() -> dict[str, np.ndarray]:
  """Returns the periodic textures f32[PERIOD, PERIOD], drawn once per process."""
  small, small_tone = _crowns(1, 5.0)
  large, large_tone = _crowns(2, 7.5)
  return {
    "white": _band(3, 0.0, 2.0),
    "grain": _band(4, 1.2, 6.0),
    "mottle": _band(5, 5.0, 30.0),
    "patch": _band(6, 16.0, 120.0),
    "small_crowns": small,
    "small_tone": small_tone,
    "large_crowns": large,
    "large_tone": large_tone,
  }


@functools.cache
def _wrapped(name: str) -> np.ndarray:
  return np.pad(textures()[name], (0, _MAX_WINDOW), mode="wrap")


def take(name: str, rows: np.ndarray, cols: np.ndarray, shift: tuple[int, int] = (0, 0)):
  """Returns a texture f32[len(rows), len(cols)] at contiguous rows and columns of the scene.

  The result is a view: do not write to it. Raises ValueError beyond 640 rows or columns.
  """
  if max(len(rows), len(cols)) > _MAX_WINDOW:
    raise ValueError(f"a window of {len(rows)} x {len(cols)}: draw at most {_MAX_WINDOW} at a time")
  top, left = (int(rows[0]) + shift[0]) % PERIOD, (int(cols[0]) + shift[1]) % PERIOD
  return _wrapped(name)[top : top + len(rows), left : left + len(cols)]


def take_between(name: str, y: np.ndarray, x: np.ndarray) -> np.ndarray:
  """Returns a texture at fractional positions, interpolated bilinearly, with the shape of `y`."""
  grid = textures()[name]
  y0, x0 = np.floor(y).astype(np.int32), np.floor(x).astype(np.int32)
  fy, fx = (y - y0).astype(np.float32), (x - x0).astype(np.float32)
  y0, x0 = y0 % PERIOD, x0 % PERIOD
  y1, x1 = (y0 + 1) % PERIOD, (x0 + 1) % PERIOD
  upper = grid[y0, x0] * (1 - fx) + grid[y0, x1] * fx
  lower = grid[y1, x0] * (1 - fx) + grid[y1, x1] * fx
  return upper * (1 - fy) + lower * fy


def coarse_axes(height: int, width: int, step: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the rows and the columns of a scene's coarse nodes in pixels."""
  return tuple(
    (np.arange(-(-n // step) - 2 * FIRST, dtype=np.float32) + FIRST) * step for n in (height, width)
  )


def _spline(places: np.ndarray, step: int, count: int) -> tuple[np.ndarray, slice]:
  """Returns the cubic B-spline weights from coarse nodes to pixels, and the nodes they apply to."""
  position = places / step - FIRST
  base = np.floor(position).astype(np.int64)
  f = (position - base).astype(np.float32)
  weights = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
  first, last = int(base.min()) - 1, int(base.max()) + 3
  if first < 0 or last > count:
    raise ValueError(f"the window reaches {first}..{last}, beyond the plan's nodes 0..{count}")
  matrix = np.zeros((len(places), last - first), np.float32)
  for offset, weight in enumerate(weights):
    matrix[np.arange(len(places)), base - 1 + offset - first] = weight / 6
  return matrix, slice(first, last)


def upsample(field: np.ndarray, rows: np.ndarray, cols: np.ndarray, step: int) -> np.ndarray:
  """Returns a coarse field interpolated smoothly at pixels: f32[len(rows), len(cols)].

  Raises ValueError for pixels outside the margin of the plan.
  """
  down, window_y = _spline(rows, step, field.shape[0])
  across, window_x = _spline(cols, step, field.shape[1])
  return down @ field[window_y, window_x] @ across.T

"""What the pixels of a DEM under a polygon add up to."""

import dataclasses

import numpy as np

_LEVEL = 1e-9  # A mean gradient below it has no direction.


@dataclasses.dataclass(frozen=True)
class Terrain:
  """The terrain under a polygon; None where the DEM has no data."""

  slope_mean: float | None = None  # Degrees.
  slope_max: float | None = None
  aspect: float | None = None  # Where the mean gradient descends: 0..360 clockwise from true north.
  lowest: float | None = None  # Metres.
  highest: float | None = None
  share: float = 0.0  # Of the DEM's pixels under the polygon, those that have a slope.
  lowest_pixel: tuple[int, int] | None = None  # Column and row in the DEM; the first of equal ones.
  highest_pixel: tuple[int, int] | None = None
  lowest_place: tuple[float, float] | None = None  # Its centre, in the coordinates of the polygons.
  highest_place: tuple[float, float] | None = None

  @property
  def height_range(self) -> float | None:
    if self.lowest is None or self.highest is None:
      return None
    return self.highest - self.lowest


@dataclasses.dataclass
class Sums:
  """What the pixels of a polygon add up to."""

  pixels: int = 0
  sloping: int = 0  # Pixels with a slope.
  slope: float = 0.0
  steepest: float = 0.0
  gradient: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2))  # East, north.
  lowest: float = np.inf
  highest: float = -np.inf
  lowest_pixel: tuple[int, int] | None = None
  highest_pixel: tuple[int, int] | None = None

  def add(
    self, heights: np.ndarray, east: np.ndarray, north: np.ndarray, pixels: np.ndarray
  ) -> None:
    """Adds heights and gradients f64[n] of the pixels i64[n, 2], column and row."""
    slopes = np.degrees(np.arctan(np.hypot(east, north)))
    known = np.isfinite(slopes)
    self.pixels += len(heights)
    self.sloping += int(known.sum())
    self.slope += slopes[known].sum()
    self.steepest = max(self.steepest, slopes[known].max(initial=0.0))
    self.gradient += east[known].sum(), north[known].sum()
    known = np.isfinite(heights)
    if not known.any():
      return
    heights, pixels = heights[known], pixels[known]
    low, high = int(heights.argmin()), int(heights.argmax())
    if heights[low] < self.lowest:
      self.lowest, self.lowest_pixel = float(heights[low]), tuple(pixels[low].tolist())
    if heights[high] > self.highest:
      self.highest, self.highest_pixel = float(heights[high]), tuple(pixels[high].tolist())

  def terrain(self) -> Terrain:
    """Returns what is known of the terrain."""
    heights = {}
    if self.lowest_pixel is not None:
      heights = {
        "lowest": self.lowest, "highest": self.highest, "lowest_pixel": self.lowest_pixel,
        "highest_pixel": self.highest_pixel,
      }
    if not self.sloping:
      return Terrain(**heights)
    east, north = self.gradient / self.sloping
    level = np.hypot(east, north) < _LEVEL
    return Terrain(
      float(self.slope / self.sloping), float(self.steepest),
      None if level else float(np.degrees(np.arctan2(-east, -north)) % 360),
      share=self.sloping / self.pixels, **heights,
    )

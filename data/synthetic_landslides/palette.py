"""Colours and light of a scene: biome, soil, sun, haze and camera."""

import dataclasses
import math

import numpy as np

# Two crown colours and a meadow colour per biome, 8-bit.
_BIOMES = {
  "temperate summer": ((48, 76, 40), (76, 98, 50), (116, 134, 72)),
  "autumn": ((92, 82, 44), (146, 92, 42), (140, 130, 80)),
  "tropical": ((44, 74, 38), (74, 102, 48), (106, 132, 62)),
  "alpine": ((40, 60, 46), (58, 76, 56), (122, 134, 84)),
  "dry": ((80, 84, 52), (104, 100, 62), (156, 142, 98)),
  "late winter": ((76, 74, 60), (96, 86, 68), (136, 130, 98)),
}
_SOILS = (
  (156, 100, 68),
  (176, 138, 92),
  (152, 148, 138),
  (118, 92, 70),
  (188, 168, 134),
  (142, 124, 102),
)
_WATERS = ((64, 92, 96), (96, 116, 104), (122, 112, 90), (52, 76, 84))


@dataclasses.dataclass(frozen=True)
class Style:
  """Colours f32[3] in 0..1 and light of a scene; angles in radians."""

  biome: str
  crowns: tuple[np.ndarray, np.ndarray]
  meadow: np.ndarray
  soil: np.ndarray
  fresh: np.ndarray  # The brighter tone of the same soil.
  wet: np.ndarray  # The darker one.
  water: np.ndarray
  tarmac: bool
  forest: float  # Added to the cover field; more of it means more forest.
  large_trees: bool
  azimuth: float  # Of the sun, clockwise from north.
  elevation: float
  tint: np.ndarray
  exposure: float
  haze: float
  blur: float  # Standard deviation in pixels.
  noise: float  # Standard deviation in 0..1.
  cloud: bool


def _colour(rng: np.random.Generator, colour, spread: float = 0.05) -> np.ndarray:
  jitter = 1 + rng.normal(0, spread) + rng.normal(0, spread / 3, 3)
  colour = np.asarray(colour) / 255
  colour = colour + 0.15 * (colour.mean() - colour)
  return (colour * jitter).clip(0.02, 0.95).astype(np.float32)


def draw_style(rng: np.random.Generator) -> Style:
  """Returns random colours and light for a scene."""
  biome = list(_BIOMES)[rng.integers(len(_BIOMES))]
  dark, bright, meadow = _BIOMES[biome]
  soil = _colour(rng, _SOILS[rng.integers(len(_SOILS))], 0.06)
  warmth = rng.normal(0, 0.03)
  return Style(
    biome=biome,
    crowns=(_colour(rng, dark), _colour(rng, bright)),
    meadow=_colour(rng, meadow),
    soil=soil,
    fresh=(soil * 1.18).clip(0, 0.95),
    wet=soil * np.float32([0.68, 0.67, 0.68]),
    water=_colour(rng, _WATERS[rng.integers(len(_WATERS))]),
    tarmac=bool(rng.random() < 0.4),
    forest=rng.uniform(-0.9, 1.3),
    large_trees=bool(rng.random() < 0.45),
    azimuth=math.radians(rng.uniform(60, 320)),
    elevation=math.radians(rng.uniform(34, 62)),
    tint=np.float32([1 + warmth, 1, 1 - warmth]),
    exposure=rng.uniform(0.98, 1.25),
    haze=rng.uniform(0.0, 0.13),
    blur=rng.uniform(0.35, 0.75),
    noise=rng.uniform(0.006, 0.02),
    cloud=bool(rng.random() < 0.15),
  )

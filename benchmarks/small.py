"""A data set and settings that train in seconds: for benchmarks of all but speed and accuracy."""

import pathlib

import numpy as np
from PIL import Image

SIDE = 64
SETTINGS = {
  "data.image_size": SIDE, "model.side_widths": (8, 8, 8, 8), "model.head_width": 16,
  "model.grid_stride": 16, "bank.slots": 24, "bank.centres": 3, "bank.min_confidence": 0.1,
  "train.batch_size": 8, "train.min_steps": 0, "localize.batch_size": 8,
}


def images(count: int, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
  """Returns random ground u8[n, S, S, 3], every second image with a bright square, and masks."""
  random = np.random.default_rng(seed)
  ground = random.integers(40, 90, (count, SIDE, SIDE, 3), dtype=np.uint8)
  masks = np.zeros((count, SIDE, SIDE), np.uint8)
  for i in range(0, count, 2):
    top, left = random.integers(0, SIDE - 24, 2)
    ground[i, top : top + 24, left : left + 24] += np.array([150, 90, 20], np.uint8)
    masks[i, top : top + 24, left : left + 24] = 255
  return ground, masks


def write_folder(root: pathlib.Path, count: int = 40) -> pathlib.Path:
  """Writes them as folders landslide/, non-landslide/ and masks/; returns `root`."""
  for name in ("landslide", "non-landslide", "masks"):
    (root / name).mkdir(parents=True)
  for i, (image, mask) in enumerate(zip(*images(count), strict=True)):
    folder = "non-landslide" if i % 2 else "landslide"
    Image.fromarray(image).save(root / folder / f"image_{i:03d}.png")
    if not i % 2:
      Image.fromarray(mask).save(root / "masks" / f"image_{i:03d}.png")
  return root


def flags(**changes: object) -> list[str]:
  """Returns the command line's flags for the settings, with fields ("train.epochs") changed."""
  return [f"--config.{name}={value}" for name, value in {**SETTINGS, **changes}.items()]

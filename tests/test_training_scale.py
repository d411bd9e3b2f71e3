"""The scale of training images is that of the pixels that training reads, whatever they are part of."""

import types

import numpy as np
import pytest
from PIL import Image

from lgag_jax.config import Config, DataConfig
from lgag_jax.geo import scale
from lgag_jax.inputs.patches import PatchSource


def write_patches(root, side, manifest=""):
  """Two images with masks that alternate in tiles of 64 pixels."""
  for folder in ("images", "masks"):
    (root / folder).mkdir(parents=True)
  for number in range(2):
    pixels = np.random.default_rng(number).integers(1, 250, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(root / "images" / f"{number}.png")
    mask = np.zeros((side, side), np.uint8)
    mask[: min(64, side) // 2] = 1
    Image.fromarray(mask).save(root / "masks" / f"{number}.png")
  if manifest:
    (root / "manifest.csv").write_text(manifest)
  return root


PARTS = "file,split,row_start,row_stop,col_start,col_stop\n" + "".join(
  f"{number}.png,{split},{row},{row + 128},0,128\n"
  for number, split in ((0, "train"), (1, "validation")) for row in (0, 128)
)


@pytest.mark.parametrize(("side", "manifest", "tile_size", "expected"), [
  (256, "", 0, 256), (256, "", 64, 64), (64, "", 256, 64), (256, PARTS, 0, 128), (256, PARTS, 64, 64),
])
def test_the_side_is_that_of_what_is_read(tmp_path, side, manifest, tile_size, expected):
  root = write_patches(tmp_path, side, manifest)
  config = Config(data=DataConfig(
    source="patches", directory=str(root), tile_size=tile_size, image_size=96, validation_fraction=0.5,
    manifest=str(root / "manifest.csv") if manifest else ""))
  source = PatchSource(config.data, "train")
  assert scale.training_scale(source, config) == scale.Scale(expected, None)


def test_examples_without_files_have_the_side_of_their_pixels():
  pixels = np.zeros((48, 48, 3), np.uint8)
  examples = types.SimpleNamespace(
    ids=["a", "b"], read_valid_pixels=lambda index: (pixels, pixels[..., 0] == 0),
    files=lambda index: (None, None),
  )
  assert scale.training_scale(examples, Config()) == scale.Scale(48, None)

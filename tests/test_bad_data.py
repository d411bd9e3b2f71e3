"""Training on data with one bad file in twenty: it skips them if configured to, otherwise it stops."""

import io
import json
import logging

import numpy as np
import pytest
from PIL import Image

from lgag_jax import config as configs
from lgag_jax.imagery.reading import ImageError
from lgag_jax.training import loop
from tests.conftest import SIDE
from tests.test_hostile_images import png_header

COUNT = 120


def encoded(array, kind="png"):
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, kind)
  return buffer.getvalue()


def bad_image(kind, array):
  """Returns the contents of a bad image file."""
  return {
    "truncated": encoded(array)[:3000],
    "gif": encoded(array, "gif"),
    "empty": b"",
    "channels": encoded(array[..., 0]),
    "absurd": png_header(60_000, 60_000),
    "text": b"<html>404</html>",
  }[kind]


BAD = {0: "truncated", 1: "gif", 2: "empty", 3: "channels", 4: "absurd", 70: "text"}
WRONG_SIZE = 5  # The mask of this image has another size.


def write(path, data):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data)


def make(root, source):
  """Writes 60 positives and 60 negatives; the images in BAD and WRONG_SIZE are bad."""
  random = np.random.default_rng(3)
  for i in range(COUNT):
    image = random.integers(40, 90, (SIDE, SIDE, 3), dtype=np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    if i < COUNT // 2:
      image[10:40, 20:50] += np.uint8([150, 90, 20])
      mask[10:40, 20:50] = 255
    name, stem = f"{i:03d}.png", "images"
    if source == "folder":
      stem = "landslide" if i < COUNT // 2 else "non-landslide"
    if source == "patches" or i < COUNT // 2:
      write(root / "masks" / name, encoded(mask[:-1] if i == WRONG_SIZE else mask))
    data = bad_image(BAD[i], image) if i in BAD else encoded(image)
    if i == 6:  # Only the name is wrong: readers go by the contents.
      name = f"{i:03d}.jpg"
    if i == 7:
      data = sixteen_bits(image)
    write(root / stem / name, data)
  # Without a manifest, the last fifth by order would be negatives only.
  if source == "patches":
    lines = ["image,mask,split"]
    for i in range(COUNT):
      suffix = "jpg" if i == 6 else "png"
      split = "validation" if i % 5 == 4 and i not in BAD else "train"
      lines.append(f"images/{i:03d}.{suffix},masks/{i:03d}.png,{split}")
    (root / "manifest.csv").write_text("\n".join(lines))


def sixteen_bits(image):
  """Returns a PNG with 16 bits per channel, which Pillow cannot write."""
  import rasterio

  with rasterio.MemoryFile() as memory:
    with memory.open(driver="PNG", width=SIDE, height=SIDE, count=3, dtype="uint16") as file:
      file.write(np.moveaxis(image.astype(np.uint16) * 257, -1, 0))
    return memory.read()


def config_of(small_config, root, source, **data):
  small_config.data.directory = str(root)
  small_config.data.source = source
  small_config.train.epochs = 1
  small_config.model.method = "class_activation"
  small_config.data.update(data)
  return configs.from_mapping(small_config)


@pytest.mark.longest
@pytest.mark.parametrize("source", ["folder", "patches"])
def test_a_training_that_skips_bad_files_finishes_and_names_each_of_them(
  small_config, tmp_path, source, caplog
):
  make(tmp_path / "data", source)
  config = config_of(small_config, tmp_path / "data", source, on_bad_image="skip")
  with caplog.at_level(logging.WARNING):
    state = loop.train_and_evaluate(config, tmp_path / "run")
  trained_on = 96 if source == "folder" else COUNT - 23 - 6  # Skipped when the source is opened.
  assert int(state.step) == -(-trained_on // 8)
  result = json.loads((tmp_path / "run" / "eval" / "validation.json").read_text())
  assert result["classes"]["landslide"]["maps"]["class_activation"]["label_free"]["pixels"] > 0
  warnings = [r.message for r in caplog.records if r.message.startswith("Skipped")]
  for number in (*BAD, WRONG_SIZE):
    assert any(f"/{number:03d}.png" in text for text in warnings), (number, warnings)
  assert len(warnings) == len(BAD) + 1
  for number in (6, 7, 8, 71):
    assert not any(f"/{number:03d}." in text for text in warnings)


@pytest.mark.parametrize("source", ["folder", "patches"])
def test_by_default_it_stops_at_once_and_names_a_bad_file(small_config, tmp_path, source):
  make(tmp_path / "data", source)
  config = config_of(small_config, tmp_path / "data", source)
  with pytest.raises(ImageError, match=r"/\d{3}\.png") as caught:
    loop.train_and_evaluate(config, tmp_path / "run")
  if source == "patches":  # Masks are read in order when the source is opened.
    assert "001.png" in str(caught.value) and "GIF8" in str(caught.value)
  assert not list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


@pytest.mark.parametrize("source", ["folder", "patches"])
def test_it_stops_at_more_bad_files_than_the_limit(small_config, tmp_path, source):
  make(tmp_path / "data", source)
  options = {"on_bad_image": "skip", "max_bad_images": len(BAD)}
  config = config_of(small_config, tmp_path / "data", source, **options)
  with pytest.raises(ImageError, match=rf"More than data\.max_bad_images={len(BAD)} images are bad"):
    loop.train_and_evaluate(config, tmp_path / "run")

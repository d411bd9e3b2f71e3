"""Prediction on image files: probability and mask beside an overlay to look at."""

import csv
import dataclasses
import hashlib
import itertools
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import rasterio
import tensorflow as tf
from PIL import Image

from lgag_jax import config as configs
from lgag_jax import files, images, input_pipeline, localize, partition, session
from lgag_jax.config import Config
from lgag_jax.evaluate import chosen_thresholds
from lgag_jax.metrics import BLACK, WHITE
from lgag_jax.patches import Tile, tiles
from lgag_jax.progress import Progress

_LOG = logging.getLogger(__name__)

_LONGEST_STEM = 200  # Bytes; file systems take names of 255.
_COLOURS = np.array([(230, 60, 40), (250, 190, 40), (160, 60, 200), (40, 140, 250)], np.float32)


@dataclasses.dataclass
class Canvas:
  """The scores of one image while its tiles come in."""

  path: pathlib.Path
  pixels: np.ndarray  # [H, W, channels] as read.
  missing: int  # Tiles still to come.
  scores: np.ndarray  # f32[H, W, C].
  probability: np.ndarray  # f32[C], the highest of its tiles.


def predict(workdir: pathlib.Path, source: pathlib.Path, output: pathlib.Path) -> list[dict]:
  """Maps one image file or every image of a folder with a workdir's newest checkpoint.

  Writes probability/, mask/ and overlay/ and predictions.csv to `output`, and returns its rows.
  Georeferenced images give GeoTIFFs with the same transform, others PNGs. An image that cannot be
  read is named, and left out; raises ImageError when none can, ValueError with several processes.
  """
  if jax.process_count() > 1:
    raise ValueError("Prediction runs in one process: start it once, or with --distributed=off.")
  paths = input_paths(source)
  mesh = partition.make_mesh()
  config, network, state = session.restore(workdir, mesh)
  thresholds = load_thresholds(workdir, config, step=int(state.step))
  run = localize.make_localize(network, config, mesh)
  name = localize.map_of(config)
  for folder in ("probability", "mask", "overlay"):
    (output / folder).mkdir(parents=True, exist_ok=True)
  rows, bad, open_canvases = [], [], {}
  progress = Progress("prediction", len(paths))
  stream = _stream(paths, config, open_canvases, bad)
  while chunk := list(itertools.islice(stream, config.localize.batch_size)):
    padding = [chunk[-1][2]] * (config.localize.batch_size - len(chunk))
    batch = {"image": np.stack([image for _, _, image in chunk] + padding)}
    maps = run(state, partition.to_global(batch, mesh))
    scores = np.asarray(localize.gated(maps, name, config))
    for (path, tile, _), score, probability in zip(
      chunk, scores, np.asarray(maps.probabilities), strict=False
    ):
      canvas = open_canvases[path]
      _paste(canvas, tile, score, probability)
      if not canvas.missing:
        rows.append(_write(open_canvases.pop(path), thresholds[name], config, output))
        progress.advance(1)
  progress.close()
  if not rows:
    raise images.ImageError(f"No image of {source} could be read; the first: {bad[0]}")
  _write_table(rows, output / "predictions.csv")
  if bad:
    _LOG.warning("%d of %d images were left out.", len(bad), len(paths))
  if doubt := doubt_of(rows, config):
    _LOG.warning("%s", doubt)
  return rows


def doubt_of(rows: list[dict], config: Config) -> str:
  """Returns what to think and try when all maps of a prediction's rows are black, or white; else ""."""
  names, gate = config.data.classes, config.localize.gate
  shares = [sum(row[f"{name}_share"] for name in names) for row in rows]
  black, white = max(shares) < BLACK, min(shares) > WHITE
  if not black and not white:
    return ""
  share = f"under {100 * BLACK:g} %" if black else f"over {100 * WHITE:g} %"
  text = f"Every map is {'black' if black else 'white'}: {share} of each image's pixels are mapped."
  denied = sum(all(row[f"{name}_probability"] <= gate for name in names) for row in rows)
  if black and denied and config.model.method != "segmentation":
    text += f" In {denied} of {len(rows)} images no class is found at all (localize.gate={gate:g})."
  return (
    f"{text} If that cannot be: are these images as large, as far from the ground and in the same "
    "range of values as those of training? Large ones shrink, and lose small landslides: cut them. "
    "Then see the AUC and what is found in the workdir's report.html."
  )


def input_paths(source: pathlib.Path) -> list[pathlib.Path]:
  """Lists the images that `source`, a file or a folder, stands for; raises when there is none."""
  if source.is_file():
    return [source]
  if not source.is_dir():
    raise FileNotFoundError(f"--input={source}: there is no such file or folder.")
  paths = images.image_files(source)
  if not paths:
    raise FileNotFoundError(f"--input={source} holds no image ({', '.join(images.SUFFIXES)}).")
  return paths


def load_thresholds(
  workdir: pathlib.Path, config: Config, *, step: int | None = None
) -> dict[str, list[float]]:
  """Returns each map's thresholds; raises FileNotFoundError when training has not finished.

  Raises ValueError when they are those of another step than the one given.
  """
  path = workdir / "thresholds.json"
  if not path.exists():
    raise FileNotFoundError(f"{path} is missing: let the training finish, or run --mode=eval.")
  content = files.read_json(path)
  if not _are_thresholds(content, config):
    raise ValueError(f"{path} is not what --mode=eval writes: run it again.")
  if step is not None and content["step"] != step:
    raise ValueError(f"{path} is of step {content['step']}, not {step}: run --mode=eval first.")
  return chosen_thresholds(content["maps"], config)


def _are_thresholds(content: Any, config: Config) -> bool:
  """Whether JSON holds a step, and a list of one number a class for every rule of every map."""
  names, classes = localize.maps_of(config), len(config.data.classes)
  try:
    rows = [content["maps"][name][rule] for name in names for rule in configs.RULES]
    return "step" in content and set(content["maps"]) == set(names) and all(
      len(row) == classes and all(isinstance(value, int | float) for value in row) for row in rows
    )
  except (KeyError, TypeError):
    return False


def _stream(paths, config: Config, canvases: dict, bad: list) -> Iterator[tuple]:
  """Yields (path, tile, image at the model's size), and opens a canvas for every image."""
  classes, side = len(config.data.classes), config.data.tile_size
  for path in paths:
    try:
      pixels = images.read_image(path, config.data.channels)
    except images.ImageError as error:
      _LOG.warning("Left out: %s", error)
      bad.append(str(error))
      continue
    parts = tiles(*pixels.shape[:2], side)
    canvases[path] = Canvas(
      path=path, pixels=pixels, missing=len(parts),
      scores=np.zeros((*pixels.shape[:2], classes), np.float32),
      probability=np.zeros(classes, np.float32),
    )
    for tile in parts:
      part = pixels[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width]
      yield path, tile, input_pipeline.to_model_size(part, config.data)


def _paste(canvas: Canvas, tile: Tile, score: np.ndarray, probability: np.ndarray) -> None:
  score = tf.image.resize(score, (tile.height, tile.width), antialias=True).numpy()
  rows = slice(tile.row + tile.seen_rows, tile.row + tile.height)
  cols = slice(tile.col + tile.seen_cols, tile.col + tile.width)
  canvas.scores[rows, cols] = score[tile.seen_rows :, tile.seen_cols :]
  canvas.probability = np.maximum(canvas.probability, probability)
  canvas.missing -= 1


def _write(canvas: Canvas, thresholds: list[float], config: Config, output: pathlib.Path) -> dict:
  above = np.where(canvas.scores >= np.array(thresholds), canvas.scores, 0.0)
  mask = np.where(above.max(-1) > 0, above.argmax(-1) + 1, 0).astype(np.uint8)
  percent = np.uint8(np.round(canvas.scores * 100))
  # Two inputs may differ in suffix alone.
  stem = f"{canvas.path.stem}_{canvas.path.suffix[1:]}"
  if len(os.fsencode(stem)) > _LONGEST_STEM:
    digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:16]
    stem = f"{os.fsdecode(os.fsencode(stem)[: _LONGEST_STEM - 17])}_{digest}"
  _write_raster(output / "probability" / stem, np.moveaxis(percent, -1, 0), canvas.path)
  _write_raster(output / "mask" / stem, mask[None], canvas.path)
  with files.beside(output / "overlay" / f"{stem}.png") as path:
    overlay(canvas.pixels, mask, config).save(path)
  row = {"file": canvas.path.name}
  for c, name in enumerate(config.data.classes):
    row[f"{name}_probability"] = round(float(canvas.probability[c]), 4)
    row[f"{name}_share"] = round(float(np.mean(mask == c + 1)), 6)
  return row


def _write_raster(path: pathlib.Path, bands: np.ndarray, like: pathlib.Path) -> None:
  with images.open_raster(like) as raster:
    reference = {"crs": raster.crs, "transform": raster.transform}
    georeferenced = raster.crs is not None or not raster.transform.is_identity
  profile = {
    "count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2], "dtype": "uint8"
  }
  if georeferenced:
    profile |= {**reference, "driver": "GTiff", "compress": "deflate"}
    path = path.with_name(path.name + ".tif")
  elif bands.shape[0] in (1, 3, 4):
    profile |= {"driver": "PNG"}
    path = path.with_name(path.name + ".png")
  else:
    profile |= {"driver": "GTiff", "compress": "deflate"}
    path = path.with_name(path.name + ".tif")
  # In memory first: GDAL may keep a full disk to itself.
  with rasterio.MemoryFile() as memory, files.beside(path) as partial:
    with memory.open(**profile) as raster:
      raster.write(bands)
    partial.write_bytes(memory.read())


def overlay(pixels: np.ndarray, mask: np.ndarray, config: Config) -> Image.Image:
  """Returns the image with each class tinted and outlined."""
  unit = input_pipeline.to_unit_range(pixels, config.data.max_value)[..., :3]
  if unit.shape[-1] < 3:
    unit = np.repeat(unit[..., :1], 3, axis=-1)
  shown = np.clip(unit * 255.0, 0, 255)
  inside = mask > 0
  colour = _COLOURS[(np.maximum(mask, 1) - 1) % len(_COLOURS)]
  same = np.ones(mask.shape, bool)
  for axis in (0, 1):
    for shift in (1, -1):
      same &= np.roll(mask, shift, axis) == mask
  shown = np.where(inside[..., None], 0.65 * shown + 0.35 * colour, shown)
  shown = np.where((inside & ~same)[..., None], colour, shown)
  return Image.fromarray(np.uint8(shown))


def _write_table(rows: list[dict], path: pathlib.Path) -> None:
  with files.beside(path) as partial, partial.open("w", newline="") as file:
    writer = csv.DictWriter(file, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)

"""Reads every example of a data set once, in threads, and collects statistics and signatures."""

import collections
import dataclasses
import functools
import logging
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from lgag_jax.config import DataConfig
from lgag_jax.doctor import duplicates
from lgag_jax.imagery import listing, reading, scaling
from lgag_jax.inputs import sources
from lgag_jax.inputs.sources import Source
from lgag_jax.runtime.progress import Progress

SPLITS = ("train", "validation")
_QUEUE = 64  # Images requested in advance.
_MAX_VALUES = 257  # Distinct values recorded per mask, one more than a byte has.
_PIECE = 1 << 22  # Pixels processed at once.


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Example:
  """Statistics of an image and its mask."""

  split: str
  index: int  # In the split's source.
  name: str
  label: tuple[float, ...]  # One number per class.
  shape: tuple[int, int]
  dtype: str
  low: np.ndarray  # f64[channels], the smallest values in the file.
  high: np.ndarray  # f64[channels], the largest values.
  mean: np.ndarray  # f64[channels]; with normalise="trunk" in units of full scale.
  std: np.ndarray
  blank: float  # The fraction of pixels at the minimum or at the maximum, whichever is larger.
  digest: bytes
  signature: np.ndarray
  known_pixels: int  # In the mask; 0 without a mask.
  pixels_per_class: tuple[int, ...]  # In the mask.
  invalid_values: tuple[int, ...]  # Values in the mask that are not a class.
  mask_file: pathlib.Path | None

  @property
  def positive(self) -> bool:
    return any(self.label)


@dataclasses.dataclass(frozen=True)
class MaskValues:
  """The distinct values in the first band of a mask file."""

  values: tuple[float, ...] = ()
  bands: int = 1
  fault: str = ""  # Why the file could not be read.


@dataclasses.dataclass
class Survey:
  """The statistics of a data set. An example's number is its position in `examples`, train first."""

  sources: dict[str, Source] = dataclasses.field(default_factory=dict)  # By split.
  unopened_splits: dict[str, str] = dataclasses.field(default_factory=dict)  # With the reason.
  faults: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # Unreadable files, reasons.
  examples: list[Example] = dataclasses.field(default_factory=list)
  masks: dict[pathlib.Path, MaskValues] = dataclasses.field(default_factory=dict)
  # Mask files with the name of a negative and of no positive, by the negative's name.
  masks_of_negatives: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  bytes_decoded: int = 0  # The size of images and masks in memory.
  seconds: float = 0.0
  workers: int = 1

  def of(self, split: str) -> list[Example]:
    return [example for example in self.examples if example.split == split]

  @property
  def rate(self) -> float:
    """Images read and checked per second."""
    return len(self.examples) / max(self.seconds, 1e-9)


def read(config: DataConfig) -> Survey:
  """Reads both splits; records what cannot be opened or read, and does not raise."""
  # The survey records every failed read, so libraries need not log it too.
  for name in ("rasterio", "PIL"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  survey = Survey()
  for split in SPLITS:
    skipped: dict[str, str] = {}
    try:
      survey.sources[split] = sources.make_source(config, split, skipped)
    except (ValueError, TypeError, OSError) as error:
      survey.unopened_splits[split] = str(error)
    survey.faults += [
      (_short_path(pathlib.Path(path), config), reason) for path, reason in skipped.items()
    ]
  survey.faults = list(dict.fromkeys(survey.faults))  # Both splits may have blocks of one image.
  survey.workers = max(2, min(os.cpu_count() or 2, 16))
  with ThreadPoolExecutor(survey.workers) as pool:
    _read_all(survey, config, pool)
    if config.source == "folder":
      survey.masks_of_negatives = _masks_of_negatives(survey, config)
    _read_masks(survey, pool)
  return survey


def _short_path(path: pathlib.Path, config: DataConfig) -> str:
  """Returns a path for findings, relative to data.directory if it lies there."""
  root = pathlib.Path(config.directory)
  return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _example_name(source: Source, split: str, index: int, config: DataConfig) -> str:
  """Returns an example's file with the position of the tile, or its split and id if it has no file."""
  path, name = source.files(index)[0], source.ids[index]
  if path is None:
    return f"{split}: {name}"
  return _short_path(path.parent / name.rsplit("/")[-1], config)


def _read_all(survey: Survey, config: DataConfig, pool: ThreadPoolExecutor) -> None:
  rows = [(split, i) for split, source in survey.sources.items() for i in range(len(source.ids))]
  progress = Progress("doctor reads", len(rows))
  begin = time.monotonic()

  def read_row(row: tuple[str, int]) -> Any:
    split, index = row
    source = survey.sources[split]
    name = _example_name(source, split, index, config)
    try:
      return _read_example(source, split, index, name, config)
    except Exception as error:  # Decoders may raise anything; the other files are read all the same.
      kind = "" if isinstance(error, reading.ImageError) else f"{type(error).__name__}: "
      return name, f"{kind}{error}"

  for result in _in_order(pool, read_row, rows):
    if isinstance(result[0], Example):
      survey.examples.append(result[0])
      survey.bytes_decoded += result[1]
    else:
      survey.faults.append(result)
    progress.advance(1)
  survey.seconds = time.monotonic() - begin
  progress.close()


def _in_order(pool: ThreadPoolExecutor, function: Callable, rows: Iterable) -> Iterator:
  """Yields function(row) of each row in order, computed in threads with a bounded queue."""
  waiting: collections.deque = collections.deque()
  for row in rows:
    waiting.append(pool.submit(function, row))
    if len(waiting) >= _QUEUE:
      yield waiting.popleft().result()
  while waiting:
    yield waiting.popleft().result()


def _read_example(
  source: Source, split: str, index: int, name: str, config: DataConfig
) -> tuple[Example, int]:
  """Returns the statistics of an example, and its size in memory."""
  image, mask = source.read(index)
  counts = np.bincount(mask.reshape(-1), minlength=256)
  classes = len(config.classes)
  low, high, blank, mean, std = _statistics(image.reshape(-1, image.shape[-1]), config)
  example = Example(
    split=split, index=index, name=name, shape=image.shape[:2], dtype=str(image.dtype),
    label=tuple(float(x) for x in source.labels[index]), low=low.astype(np.float64),
    high=high.astype(np.float64), blank=blank, mean=mean, std=std, digest=duplicates.digest(image),
    signature=duplicates.signature(image), known_pixels=int(counts.sum() - counts[reading.UNKNOWN]),
    pixels_per_class=tuple(int(n) for n in counts[1 : classes + 1]),
    invalid_values=tuple(int(v) for v in np.flatnonzero(counts[: reading.UNKNOWN]) if v > classes),
    mask_file=source.files(index)[1],
  )
  return example, image.nbytes + mask.nbytes


def _statistics(flat: np.ndarray, config: DataConfig) -> tuple:
  """Returns minimum, maximum, the larger fraction of pixels at one of them, mean and deviation."""
  low, high = flat.min(axis=0), flat.max(axis=0)
  extreme_pixels, total, squares = np.zeros(2), 0.0, 0.0
  scale = scaling.full_scale(flat.dtype, config) if config.normalise == "trunk" else 1.0
  for piece in np.array_split(flat, -(-len(flat) // _PIECE)):
    extreme_pixels += [np.count_nonzero(np.all(piece == value, axis=1)) for value in (low, high)]
    scaled = piece.astype(np.float64) / scale
    total, squares = total + scaled.sum(axis=0), squares + np.square(scaled).sum(axis=0)
  mean = total / len(flat)
  std = np.sqrt(np.maximum(squares / len(flat) - np.square(mean), 0.0))
  return low, high, float(extreme_pixels.max() / len(flat)), mean, std


def _masks_of_negatives(survey: Survey, config: DataConfig) -> dict[str, pathlib.Path]:
  @functools.cache
  def unused_masks(root: pathlib.Path) -> dict[str, pathlib.Path]:
    positives = {
      listing.stem_key(p) for name in config.classes for p in listing.image_files(root / name)}
    masks = listing.files_by_stem(root / "masks")
    return {stem: path for stem, path in masks.items() if stem not in positives}

  masks_of_negatives = {}
  for example in survey.examples:
    path, _ = survey.sources[example.split].files(example.index)
    masks = unused_masks(path.parent.parent) if path and not example.positive else {}
    if path and (mask := masks.get(listing.stem_key(path))):
      masks_of_negatives[example.name] = mask
  return masks_of_negatives


def _read_masks(survey: Survey, pool: ThreadPoolExecutor) -> None:
  """Reads the original values of each mask file, which examples do not have."""
  mask_files = {e.mask_file for e in survey.examples} | set(survey.masks_of_negatives.values())
  paths = sorted(path for path in mask_files if path)
  progress = Progress("masks", len(paths), unit="files")
  for path, values in zip(paths, _in_order(pool, _mask_values, paths), strict=True):
    survey.masks[path] = values
    progress.advance(1)
  if paths:
    progress.close()


def _mask_values(path: pathlib.Path) -> MaskValues:
  values: set[float] = set()
  try:
    with reading.open_raster(path) as raster:
      small = raster.height * raster.width <= _PIECE
      for window in (None,) if small else (block for _, block in raster.block_windows(1)):
        values |= set(np.unique(raster.read(1, window=window)).tolist())
        if len(values) > _MAX_VALUES:
          break
      return MaskValues(tuple(sorted(values)[:_MAX_VALUES]), raster.count)
  except Exception as error:
    return MaskValues(fault=str(error))

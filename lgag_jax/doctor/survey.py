"""Reads every example of a data set once, in threads, and keeps sums and signatures of it."""

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
_QUEUE = 64  # Images asked for ahead of the one that is waited for.
_MOST_VALUES = 257  # Of distinct values in a mask are kept, one more than bytes have.
_PIECE = 1 << 22  # Pixels that are worked on at once; larger images in pieces.


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Example:
  """What is kept of an image and its mask."""

  split: str
  index: int  # In the split's source.
  name: str
  label: tuple[float, ...]  # One a class.
  shape: tuple[int, int]
  dtype: str
  low: np.ndarray  # f64[channels], the smallest values, as the file has them.
  high: np.ndarray
  mean: np.ndarray  # f64[channels]; with normalise="trunk" in units of full scale.
  std: np.ndarray
  blank: float  # Share of pixels that are all at the lowest, or all at the highest, value.
  digest: bytes
  signature: np.ndarray
  known: int  # Pixels of the mask that are known; 0 also where there is no mask.
  pixels: tuple[int, ...]  # Of each class in the mask.
  strange: tuple[int, ...]  # Values in the mask that are no class.
  mask_file: pathlib.Path | None

  @property
  def positive(self) -> bool:
    return any(self.label)


@dataclasses.dataclass(frozen=True)
class MaskValues:
  """What a mask's file holds in its first band; `fault` says why it could not be read."""

  values: tuple[float, ...] = ()
  bands: int = 1
  fault: str = ""


@dataclasses.dataclass
class Survey:
  """All that was read. Indices of examples here are positions in `examples`, train first."""

  sources: dict[str, Source]
  closed: dict[str, str]  # Splits that could not be opened at all, with the reason.
  faults: list[tuple[str, str]]  # Files that could not be read, with the reason.
  examples: list[Example] = dataclasses.field(default_factory=list)
  masks: dict[pathlib.Path, MaskValues] = dataclasses.field(default_factory=dict)
  # "folder": negatives whose name a mask file bears, which no positive claims.
  masks_of_negatives: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  bytes_decoded: int = 0  # Images and masks as they are in memory.
  seconds: float = 0.0
  workers: int = 1

  def of(self, split: str) -> list[Example]:
    return [example for example in self.examples if example.split == split]

  @property
  def rate(self) -> float:
    """Images a second, read and looked at."""
    return len(self.examples) / max(self.seconds, 1e-9)


def take(config: DataConfig) -> Survey:
  """Reads both splits; what cannot be opened or read is noted, not raised."""
  # Each failed read comes back as a reason; libraries need not tell of it as well.
  for name in ("rasterio", "PIL"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  survey = Survey({}, {}, [])
  for split in SPLITS:
    skipped: dict[str, str] = {}
    try:
      survey.sources[split] = sources.make_source(config, split, skipped)
    except (ValueError, TypeError, OSError) as error:
      survey.closed[split] = str(error)
    survey.faults += [(shown(pathlib.Path(path), config), why) for path, why in skipped.items()]
  survey.faults = list(dict.fromkeys(survey.faults))  # Both splits may hold blocks of an image.
  survey.workers = max(2, min(os.cpu_count() or 2, 16))
  with ThreadPoolExecutor(survey.workers) as pool:
    _read_all(survey, config, pool)
    if config.source == "folder":
      survey.masks_of_negatives = _masks_of_negatives(survey, config)
    _read_masks(survey, pool)
  return survey


def shown(path: pathlib.Path, config: DataConfig) -> str:
  """Returns a file's name in findings: from the data's root on where it lies there."""
  root = pathlib.Path(config.directory)
  return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def name_of(source: Source, split: str, index: int, config: DataConfig) -> str:
  """Returns an example's name: its file, with the tile's place in it."""
  path = source.files(index)[0]
  own = source.ids[index]
  return f"{split}: {own}" if path is None else shown(path.parent / own.rsplit("/")[-1], config)


def _read_all(survey: Survey, config: DataConfig, pool: ThreadPoolExecutor) -> None:
  rows = [(split, i) for split, source in survey.sources.items() for i in range(len(source.ids))]
  progress = Progress("doctor reads", len(rows))
  begin = time.monotonic()

  def look(row: tuple[str, int]) -> Any:
    split, index = row
    source = survey.sources[split]
    name = name_of(source, split, index, config)
    try:
      return _look(source, split, index, name, config)
    except Exception as error:  # A decoder may raise anything; the other files are still of interest.
      kind = "" if isinstance(error, reading.ImageError) else f"{type(error).__name__}: "
      return name, f"{kind}{error}"

  for result in _in_order(pool, look, rows):
    if isinstance(result[0], Example):
      survey.examples.append(result[0])
      survey.bytes_decoded += result[1]
    else:
      survey.faults.append(result)
    progress.advance(1)
  survey.seconds = time.monotonic() - begin
  progress.close()


def _in_order(pool: ThreadPoolExecutor, function: Callable, rows: Iterable) -> Iterator:
  """Maps in threads without queueing everything at once."""
  waiting: collections.deque = collections.deque()
  for row in rows:
    waiting.append(pool.submit(function, row))
    if len(waiting) >= _QUEUE:
      yield waiting.popleft().result()
  while waiting:
    yield waiting.popleft().result()


def _look(
  source: Source, split: str, index: int, name: str, config: DataConfig
) -> tuple[Example, int]:
  image, mask = source.read(index)
  counts = np.bincount(mask.reshape(-1), minlength=256)
  classes = len(config.classes)
  low, high, blank, mean, std = _statistics(image.reshape(-1, image.shape[-1]), config)
  example = Example(
    split=split, index=index, name=name, shape=image.shape[:2], dtype=str(image.dtype),
    label=tuple(float(x) for x in source.labels[index]),
    low=low.astype(np.float64), high=high.astype(np.float64),
    blank=blank, mean=mean, std=std,
    digest=duplicates.digest(image), signature=duplicates.signature(image),
    known=int(counts.sum() - counts[reading.UNKNOWN]),
    pixels=tuple(int(n) for n in counts[1 : classes + 1]),
    strange=tuple(int(v) for v in np.flatnonzero(counts[: reading.UNKNOWN]) if v > classes),
    mask_file=source.files(index)[1],
  )
  return example, image.nbytes + mask.nbytes


def _statistics(flat: np.ndarray, config: DataConfig) -> tuple:
  """Returns lowest and highest values, the share of the commoner of these, mean and spread."""
  low, high = flat.min(axis=0), flat.max(axis=0)
  at_edge, total, squares = np.zeros(2), 0.0, 0.0
  scale = scaling.full_scale(flat.dtype, config) if config.normalise == "trunk" else 1.0
  for piece in np.array_split(flat, -(-len(flat) // _PIECE)):
    at_edge += [np.count_nonzero(np.all(piece == edge, axis=1)) for edge in (low, high)]
    scaled = piece.astype(np.float64) / scale
    total, squares = total + scaled.sum(axis=0), squares + np.square(scaled).sum(axis=0)
  mean = total / len(flat)
  spread = np.sqrt(np.maximum(squares / len(flat) - np.square(mean), 0.0))
  return low, high, float(at_edge.max() / len(flat)), mean, spread


def _masks_of_negatives(survey: Survey, config: DataConfig) -> dict[str, pathlib.Path]:
  @functools.cache
  def masks(root: pathlib.Path) -> dict[str, pathlib.Path]:
    claimed = {p.stem for name in config.classes for p in listing.image_files(root / name)}
    found = listing.files_by_stem(root / "masks")
    return {stem: path for stem, path in found.items() if stem not in claimed}

  found = {}
  for example in survey.examples:
    path, _ = survey.sources[example.split].files(example.index)
    if not example.positive and path.stem in masks(path.parent.parent):
      found[example.name] = masks(path.parent.parent)[path.stem]
  return found


def _read_masks(survey: Survey, pool: ThreadPoolExecutor) -> None:
  """Reads each mask's file as it is: examples hold what the program makes of it."""
  paths = {e.mask_file for e in survey.examples} | set(survey.masks_of_negatives.values())
  paths = sorted(paths - {None})
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
        if len(values) > _MOST_VALUES:
          break
      return MaskValues(tuple(sorted(values)[:_MOST_VALUES]), raster.count)
  except Exception as error:
    return MaskValues(fault=str(error))

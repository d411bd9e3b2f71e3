"""Maps one block: reads and composites its images, runs the network, and writes its files.

The three steps are functions of a job and a block only, so that any engine may run them anywhere, and
again. Nothing here knows an engine. Reading and writing need no JAX.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterable, Sequence

import numpy as np

from lgag_jax.blocks import region_files, stac_items
from lgag_jax.blocks.block_arrays import BlockMap, BlockPixels, Network, Sides
from lgag_jax.blocks.plan import Block, BlockSize, block_grid
from lgag_jax.catalogues import composites, value_types
from lgag_jax.catalogues.images import Image
from lgag_jax.catalogues.value_types import Divisor
from lgag_jax.geo.grid import Grid
from lgag_jax.mapping import rasters, regions
from lgag_jax.mapping.rasters import NO_DATA
from lgag_jax.options.area import Imagery
from lgag_jax.runtime import files

ITEMS = "items"
UNFINISHED = ".unfinished"
_SUFFIXES = {"mask": ".tif", "probability": ".tif", "regions": ".npz"}
FOLDERS = (*_SUFFIXES, ITEMS)
_EMPTY = ".empty"  # In the name of the item of a block without data, which has no other files.


@dataclasses.dataclass(frozen=True)
class AreaJob:
  """All that the maps of an area's blocks depend on, except the network itself."""

  output: pathlib.Path
  images: tuple[Image, ...]
  imagery: Imagery
  resolution: float  # Metres per pixel.
  size: BlockSize
  channels: int
  classes: tuple[str, ...]
  dtype: str  # Of the probabilities.
  maker: str  # Identifies the network and the options.
  divisor: Divisor = value_types.undivided  # What the network divides values of a type by.

  @functools.cached_property
  def image_keys(self) -> tuple[str, ...]:
    """The keys of all images."""
    return tuple(image.key for image in self.images)

  def key(self, block: Block) -> str:
    """Identifies a block's map: another key is another map."""
    parts = [self.maker, block.name, *(self.image_keys[i] for i in block.images)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

  def for_block(self, block: Block) -> tuple["AreaJob", Block]:
    """Returns the job and the block with the block's images only, to send to another machine."""
    images = tuple(self.images[i] for i in block.images)
    numbered = dataclasses.replace(block, images=tuple(range(len(images))))
    return dataclasses.replace(self, images=images), numbered


def map_block(job: AreaJob, block: Block, network: Network) -> None:
  """Reads, maps and writes a block; raises ImageError or OSError."""
  write_block(job, block, network_map(block, read_block(job, block), network))


def read_block(job: AreaJob, block: Block) -> BlockPixels:
  """Returns the imagery of a block and its halo; raises ImageError naming an unreadable image.

  Without any valid pixel, its arrays are empty.
  """
  grid = block_grid(block, job.resolution, job.size, halo=True)
  values, valid = _read_dates(job, [job.images[i] for i in block.images], grid)
  beyond = _missing_beyond(valid, job.size)
  if not valid.any():  # Nothing to send to another process.
    values, valid = values[:0, :0], valid[:0, :0]
  return BlockPixels(grid, values, valid, beyond)


def _read_dates(
  job: AreaJob, images: Sequence[Image], grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the composite of each date, after and before, as further bands, and where all are valid."""
  scales: list[tuple[str, list[bool | None]]] = []
  read = lambda before: composites.read_composite(
    [image for image in images if image.before == before], grid, job.channels, job.imagery,
    job.divisor, scales,
  )
  after, valid = read(False)
  if not job.imagery.before_dates or not valid.any():
    return after, valid
  before, also_valid = read(True)
  valid &= also_valid
  if valid.any():
    dates = (("The image after the event", after.dtype), ("the image before it", before.dtype))
    value_types.require_one(dates, job.divisor)
  return np.concatenate([after, before], axis=-1), valid


def network_map(block: Block, pixels: BlockPixels, network: Network) -> BlockMap | None:
  """Returns the map of a block; None if it has no data."""
  if not pixels.valid.any():
    return None
  block_map = network.map_pixels(block.name, pixels)
  block_map = dataclasses.replace(block_map, missing_beyond=pixels.missing_beyond)
  return block_map if (block_map.mask != NO_DATA).any() else None


def _missing_beyond(valid: np.ndarray, size: BlockSize) -> Sides:
  """Returns where data are missing just outside a block; without a halo, nowhere is known."""
  core = slice(size.lead, size.lead + size.core)

  def line(lines: np.ndarray, number: int) -> np.ndarray:
    if not 0 <= number < len(lines):
      return np.zeros(size.core, bool)
    return ~lines[number, core]

  before, after = size.lead - 1, size.lead + size.core
  return Sides(
    line(valid, before), line(valid, after), line(valid.T, before), line(valid.T, after)
  )


def write_block(job: AreaJob, block: Block, block_map: BlockMap | None) -> None:
  """Writes a block's files, and last its STAC item.

  All files are whole before the first one is in its place, and two processes that write the same block
  do not mix their files. A block without data only has an item.
  """
  staged = job.output / UNFINISHED / f"{block.name}-{uuid.uuid4().hex}"
  key, names, figures = job.key(block), {}, stac_items.Figures()
  try:
    if block_map is not None:
      names = {kind: f"{kind}/{block.name}{suffix}" for kind, suffix in _SUFFIXES.items()}
      found = _write_rasters(job, block, block_map, staged)
      beyond = block_map.missing_beyond
      if beyond is None:
        raise ValueError(f"{block.name}: `network_map` must make the map: it adds what lies beyond.")
      region_files.write(staged / names["regions"], found, block_map.mask, beyond)
      counts = np.bincount(block_map.mask.ravel(), minlength=256)
      figures = stac_items.Figures(
        int(counts[:NO_DATA].sum()), tuple(counts[1 : len(job.classes) + 1].tolist()),
        block_map.image_scores,
      )
    images = [job.images[i] for i in block.images]
    grid = block_grid(block, job.resolution, job.size)
    names[ITEMS] = f"{ITEMS}/{record_name(block, key, empty=block_map is None)}"
    item = stac_items.block_item(block, key, grid, names, images, job.classes, job.dtype, figures)
    files.write_json(staged / names[ITEMS], item)
    for name in names.values():
      (job.output / name).parent.mkdir(exist_ok=True)
      os.replace(staged / name, job.output / name)
  finally:
    shutil.rmtree(staged, ignore_errors=True)


def whole_blocks(job: AreaJob, blocks: Iterable[Block]) -> tuple[dict[str, str], list[str]]:
  """Returns the STAC items of the blocks that are mapped, by block, and files that are out of date.

  These are of earlier maps of the same blocks, with the path in the output, items first: without its
  item a block is not whole. Lists the output's folders, and opens no file.
  """
  listed = {kind: _names_in(job.output / kind) for kind in FOLDERS}
  whole, records, stale = {}, {}, []
  for name in listed[ITEMS]:
    records.setdefault(name.partition(".")[0], []).append(name)
  for block in blocks:
    key = job.key(block)
    here = [
      f"{kind}/{block.name}{suffix}" for kind, suffix in _SUFFIXES.items()
      if f"{block.name}{suffix}" in listed[kind]
    ]
    for empty in (False, True):
      record = record_name(block, key, empty=empty)
      if record in listed[ITEMS] and (empty or len(here) == len(_SUFFIXES)):
        whole[block.name] = record
    record = whole.get(block.name)
    stale += [f"{ITEMS}/{name}" for name in records.get(block.name, ()) if name != record]
    if record is None or is_empty(record):
      stale += here
  return whole, stale


def is_empty(record: str) -> bool:
  """Returns whether a block's item says that it has no data."""
  return record.endswith(f"{_EMPTY}.json")


def record_name(block: Block, key: str, *, empty: bool) -> str:
  """Returns the name of a block's STAC item; `empty` is a block without data."""
  return f"{block.name}.{key}{_EMPTY if empty else ''}.json"


def _write_rasters(
  job: AreaJob, block: Block, block_map: BlockMap, staged: pathlib.Path
) -> list[regions.Regions]:
  """Writes both rasters; returns the regions."""
  grid = block_grid(block, job.resolution, job.size)
  with (
    rasters.write_and_open(
      staged / "probability" / block.name, grid, len(job.classes), np.dtype(job.dtype),
      iter([(0, block_map.scores)]), job.classes, averaged=True, product="probability",
    ) as probability,
    rasters.write_and_open(
      staged / "mask" / block.name, grid, 1, np.dtype(np.uint8),
      iter([(0, block_map.mask[..., None])]), ("class",), averaged=False,
      product="mask",
    ) as mask,
  ):
    return list(regions.find_regions(mask, probability, len(job.classes)))


def _names_in(folder: pathlib.Path) -> set[str]:
  try:
    with os.scandir(folder) as entries:
      return {entry.name for entry in entries}
  except FileNotFoundError:
    return set()

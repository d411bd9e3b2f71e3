"""Measures the ground that the maps of an area have data on, each place once."""

import math
import pathlib
from collections.abc import Mapping

import numpy as np
import rasterio.features
import shapely
from shapely.geometry.base import BaseGeometry

from lgag_jax.blocks import map_block, mask_overviews, plan
from lgag_jax.blocks.map_block import AreaJob
from lgag_jax.blocks.plan import Block
from lgag_jax.mapping.rasters import NO_DATA
from lgag_jax.runtime import files


def square_metres(
  job: AreaJob, records: Mapping[Block, str], area: BaseGeometry | None
) -> float:
  """Returns the ground with data on an area, in the maps' pixels; `records` are blocks' items.

  Blocks of two zones overlap, so that only the part in its zone counts of each. Of a block that
  reaches beyond its zone or the area, the share is that of the cells of a reduced mask. Raises
  ValueError naming an item, or ImageError naming a mask, that cannot be read.
  """
  pixels = 0.0
  for epsg in sorted({block.epsg for block in records}):
    own = [
      block for block, record in records.items()
      if block.epsg == epsg and not map_block.is_empty(record)
    ]
    strip = plan.zone_strip(epsg)
    ground = plan.to_zone(strip if area is None else shapely.intersection(strip, area), epsg)
    shapely.prepare(ground)
    boxes = plan.boxes(own, job.resolution, job.size)
    whole = shapely.contains_properly(ground, boxes)
    for block, box, is_whole in zip(own, boxes, whole, strict=True):
      valid = _valid_pixels(job.output / map_block.ITEMS / records[block])
      pixels += valid if is_whole else valid * _share(job, block, shapely.intersection(ground, box))
  return pixels * job.resolution**2


def _valid_pixels(path: pathlib.Path) -> int:
  """Reads how many pixels of a block have data."""
  content = files.read_json(path)
  try:
    return int(content["properties"]["lgag:valid_pixels"])
  except (LookupError, TypeError, ValueError) as error:
    raise ValueError(
      f"{path} is damaged: {error!r:.100}. Delete it, and run the same command again."
    ) from error


def _share(job: AreaJob, block: Block, ground: BaseGeometry) -> float:
  """Returns the share of a block's data that lies on some ground, in its zone's coordinates."""
  if not shapely.area(ground):
    return 0.0
  core = job.size.core
  reduction = math.ceil(core / mask_overviews.SIDE)
  valid = mask_overviews.read(job.output, block, core, reduction) != NO_DATA
  grid = plan.block_grid(block, job.resolution, job.size)
  scale = core / len(valid)
  inside = rasterio.features.geometry_mask(
    [ground], valid.shape, grid.transform @ grid.transform.scale(scale), invert=True
  )
  return float(np.count_nonzero(valid & inside) / max(1, np.count_nonzero(valid)))
